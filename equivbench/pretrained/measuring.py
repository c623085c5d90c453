"""Measures one pretrained network: its environment, its process, the measurement, and the record of
it."""

from __future__ import annotations

import contextlib
import datetime
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from equivbench.environment import environment, git_state
from equivbench.errors import EquivbenchError, FailedError, ModelError
from equivbench.pretrained.environments import ready_python
from equivbench.pretrained.forces import measure_forces
from equivbench.pretrained.networks import Family, PretrainedNetwork
from equivbench.pretrained.outcome import Asked, Outcome
from equivbench.pretrained.processes import NetworkProcess
from equivbench.pretrained.scores import measure_scores, shipped_complex
from equivbench.records.pretrained import AVERAGED_OVER, AveragedCost, PretrainedMeasurement

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What all networks of one command share."""

    asked: Asked
    threads: int
    command: str
    weights: str | None = None
    """A user's file, for networks that take one."""
    said: Callable[[str], None] = lambda text: None
    """Told what happens now."""

    def measurements(
        self, networks: Sequence[PretrainedNetwork]
    ) -> Generator[tuple[PretrainedNetwork, PretrainedMeasurement | EquivbenchError], None, None]:
        """Each of ``networks`` with its record, or with what kept it from being measured."""
        return self._each(networks, self._measured)

    def preparations(
        self, networks: Sequence[PretrainedNetwork]
    ) -> Generator[tuple[PretrainedNetwork, dict[str, str] | EquivbenchError], None, None]:
        """Each of ``networks`` with the versions of its packages once it was loaded, or with what
        kept it from that: afterwards no network connection is needed."""
        return self._each(networks, self._loaded)

    def _each(
        self,
        networks: Sequence[PretrainedNetwork],
        act: Callable[[PretrainedNetwork, NetworkProcess], T],
    ) -> Generator[tuple[PretrainedNetwork, T | EquivbenchError], None, None]:
        """What ``act`` gives of each. Those of one family that follow one another share a process,
        whose imports take seconds."""
        with contextlib.ExitStack() as running:
            process: NetworkProcess | None = None
            family: Family | None = None
            unmade: dict[str, FailedError] = {}
            for network in networks:
                found: T | EquivbenchError
                try:
                    if network.family.name in unmade:
                        raise unmade[network.family.name]
                    if process is None or network.family is not family:
                        running.close()
                        family, python = network.family, self._python(network, unmade)
                        process = running.enter_context(NetworkProcess(python, self.threads))
                    found = act(network, process)
                except (FailedError, ModelError) as error:
                    # What fails once is not trusted again.
                    running.close()
                    process, found = None, error
                yield network, found

    def measure(self, network: PretrainedNetwork) -> PretrainedMeasurement:
        """The record of ``network``; raises what keeps it from being measured."""
        ((_, found),) = self.measurements([network])
        if isinstance(found, EquivbenchError):
            raise found
        return found

    def _python(self, network: PretrainedNetwork, unmade: dict[str, FailedError]) -> Path:
        """That of the network's environment; one that cannot be made is not tried again."""
        try:
            return ready_python(network.family, lambda text: self.said(f"{network.name}: {text}"))
        except FailedError as error:
            unmade[network.family.name] = error
            raise

    def _loaded(self, network: PretrainedNetwork, process: NetworkProcess) -> dict[str, str]:
        """Load ``network``; returns the versions of its packages."""
        self.said(f"{network.name}: loading")
        load = {
            "door": network.door,
            "network": network.load.plain(self.weights),
            "packages": [*network.family.packages, "torch", "numpy"],
        }
        try:
            found: dict[str, str] = process.load(network.name, load)["packages"]
        except FailedError as error:
            if network.offline:
                raise
            raise FailedError(
                f"{error}; its weights are fetched when it is first loaded, which takes a network "
                "connection, and for some a licence that is accepted first"
            ) from error
        return found

    def _measured(
        self, network: PretrainedNetwork, process: NetworkProcess
    ) -> PretrainedMeasurement:
        packages = self._loaded(network, process)
        self.said(f"{network.name}: measuring")
        found = (
            measure_forces(network, process, self.asked)
            if network.door == "forces"
            else measure_scores(process, self.asked, shipped_complex())
        )
        return self._record(network, packages, found)

    def _record(
        self, network: PretrainedNetwork, packages: dict[str, str], found: Outcome
    ) -> PretrainedMeasurement:
        seconds = statistics.median(found.seconds)
        facts = {name: value for name, value in vars(found).items() if name != "seconds"}
        return PretrainedMeasurement(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=self.command,
            network=network.name,
            family=network.family.name,
            source=network.family.source,
            packages=packages,
            seed=self.asked.seed,
            symmetry=network.symmetry,
            averaged={
                str(count): AveragedCost(
                    error=found.twirled + found.equivariance / count, seconds=count * seconds
                )
                for count in AVERAGED_OVER
            },
            call_seconds=seconds,
            calls=len(found.seconds),
            environment=environment("cpu", self.threads),
            git=git_state(),
            **facts,
        )
