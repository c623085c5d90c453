"""The plan of a results folder: a hidden folder with a small file a unit, beside which its leases
lie, so that several processes or machines can work on one plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from equivbench.errors import EquivbenchError, FailedError
from equivbench.execution.identity import code_version
from equivbench.execution.leases import Leases, is_alive
from equivbench.execution.plan import Contest, Machine, contest_name, utc
from equivbench.execution.state import on_machine, read_state, records_of_unit, renamed
from equivbench.execution.workers import registered_here
from equivbench.records.files import create_atomically, read_bounded, write_atomically
from equivbench.records.schema import Attempt
from equivbench.specs import PairSpec
from equivbench.training.job import Job

FOLDER = ".plan"
"""In the results folder. Whatever reads results leaves hidden folders out."""
_FORMAT = 1
Ended = Literal["completed", "failed", "interrupted"]


class Unit(msgspec.Struct, kw_only=True, frozen=True):
    """A contest as a plan keeps it: what any process of any machine needs to run it, or to go on
    with it."""

    digest: str
    """That of :func:`equivbench.execution.identity.unit_digest`, which names its files."""
    contest: Contest
    repeats: bool = False
    """Whether it is to be run though earlier contests of its digest are finished: then its own
    records count alone."""
    modules: list[str] = []
    """What to import first: they register what the planning process had registered."""
    pair: PairSpec | None = None
    """The pair, where that was registered by the planning process."""
    attempts: list[Attempt] = []
    failures: list[str] = []
    """What went wrong in the last attempt, a sentence each."""
    code: str = ""
    """The version of the code that it was planned with, which alone can run it."""
    format: int = _FORMAT

    @property
    def name(self) -> str:
        """The contest's own, which no repetition shares."""
        return self.contest.jobs[0].contest

    @property
    def title(self) -> str:
        """How messages name it: ``forcefield/vector seed 0 (sweep data, value 0.5)``."""
        labels = ", ".join(f"{key} {value}" for key, value in self.contest.jobs[0].labels.items())
        named = f"{self.contest.pair} seed {self.contest.seed}"
        return f"{named} ({labels})" if labels else named

    @property
    def own(self) -> str | None:
        """The contest whose records count alone; None where all of the unit's do."""
        return self.name if self.repeats else None


class PlanFolder:
    """The units of one results folder, as ``owner`` of leases sees them."""

    def __init__(self, results: str | Path, owner: str = "") -> None:
        self.results = Path(results)
        self.folder = self.results / FOLDER
        self._owner = owner
        self._leases: dict[str, Leases] = {}

    def add(self, contests: Iterable[Contest]) -> list[Unit]:
        """The units of ``contests``, whose jobs know their digest, with a file for each.

        A file that is there already stays where a resumed contest joins it or somebody is at work
        on it.

        Raises ``FailedError`` where the disk refuses, ``UsageError`` for a contest that only the
        script at hand could run.
        """
        write_atomically(self.folder / ".gitignore", b"*\n", durable=False)
        units = []
        for contest in contests:
            unit = _unit(contest)
            path = self.path(unit.digest)
            if not create_atomically(path, msgspec.json.encode(unit), durable=False):
                lease = self.leases(unit.digest).current()
                taken = lease is not None and is_alive(lease.owner) is not False
                if self.read(unit.digest) is None or (unit.repeats and not taken):
                    self._write(unit)
            units.append(unit)
        return units

    def units(self) -> list[Unit]:
        """All that are planned, by pair and seed; a file that cannot be read is left out.

        Raises ``FailedError`` where there is no plan.
        """
        if not self.folder.is_dir():
            raise FailedError(
                f"{self.results} has no plan; `equivbench run --out {self.results}` makes one"
            )
        names = sorted(path.stem for path in self.folder.glob("[0-9a-f]*.json"))
        found = [unit for unit in map(self.read, names) if unit is not None]
        return sorted(found, key=lambda unit: (unit.contest.pair, unit.contest.seed, unit.name))

    def read(self, digest: str) -> Unit | None:
        """The unit in a file; None where there is none that this version can read."""
        try:
            data = read_bounded(self.path(digest), follow=False)
            unit = msgspec.json.decode(data, type=Unit)
        except (EquivbenchError, msgspec.DecodeError, ValueError, RecursionError):
            return None
        own = unit.format == _FORMAT and unit.digest == digest
        return unit if own and unit.contest.jobs else None

    def path(self, digest: str) -> Path:
        """The file of the unit with this digest."""
        return self.folder / f"{digest}.json"

    def leases(self, digest: str) -> Leases:
        """The leases of the unit with this digest; the same object each time, which remembers for
        how long a lease has been silent."""
        if digest not in self._leases:
            self._leases[digest] = Leases(self.folder / digest, self._owner)
        return self._leases[digest]

    def joined(self, unit: Unit) -> Unit:
        """``unit`` as far as others have got with it, for whoever holds its lease: of a contest
        that is resumed the names and the attempts in its file. A fresh one is what it is."""
        there = self.read(unit.digest)
        if there is None or (unit.repeats and unit.name != there.name):
            return unit
        return msgspec.structs.replace(
            unit,
            contest=renamed(unit.contest, there.contest.jobs[0]),
            repeats=there.repeats,
            attempts=there.attempts,
        )

    def begin(self, unit: Unit, machine: Machine, beside: int) -> tuple[Unit, Contest, str | None]:
        """The ``unit`` with a new attempt, which is in its file; its contest for ``machine``, of
        which ``beside`` further ones run there; and what the user must know of it.

        What was begun on another kind of machine starts afresh, under another name.
        """
        now, kind = datetime.now(UTC), machine.kind
        said = None
        if unit.attempts and unit.attempts[-1].machine_key != kind:
            last = unit.attempts[-1].machine_key
            said = f"{unit.title} was begun on another kind of machine ({last}): it starts afresh"
            unit = msgspec.structs.replace(unit, contest=_afresh(unit.contest, now))
        contest = _settled(unit, machine, utc(now), beside)
        # Until it says otherwise it is one that died.
        attempt = Attempt(started=utc(now), machine_key=kind, ended="died")
        unit = msgspec.structs.replace(unit, attempts=[*unit.attempts, attempt], failures=[])
        self._write(unit)
        return unit, contest, said

    def end(self, unit: Unit, ended: Ended, failures: Sequence[str]) -> None:
        """Write how the attempt that was begun has ended."""
        *earlier, last = unit.attempts
        attempts = [*earlier, msgspec.structs.replace(last, ended=ended)]
        self._write(msgspec.structs.replace(unit, attempts=attempts, failures=list(failures)))

    def finished_on(self, unit: Unit) -> list[str]:
        """The kinds of machine on which every arm of ``unit`` came to its end, as the records
        say."""
        kinds: set[str] | None = None
        for job in unit.contest.jobs:
            found = records_of_unit(self.results, unit.digest, job)
            here = {
                record.environment.machine_key
                for _, record in found
                if unit.own in (None, record.contest)
            }
            kinds = here if kinds is None else kinds & here
        return sorted(kinds or ())

    def _write(self, unit: Unit) -> None:
        write_atomically(self.path(unit.digest), msgspec.json.encode(unit), durable=False)


def _unit(contest: Contest) -> Unit:
    modules: list[str] = []
    pair = None
    for job in contest.jobs:
        needed, pair = registered_here(job)
        modules += needed
    first = contest.jobs[0]
    return Unit(
        digest=first.unit,
        contest=contest,
        repeats=not first.request.resume,
        modules=list(dict.fromkeys(modules)),
        pair=pair,
        code=code_version(),
    )


def _afresh(contest: Contest, now: datetime) -> Contest:
    """``contest`` as if it were planned now, under a name of its own."""
    first, name = contest.jobs[0], contest_name(now)
    run_id = f"{first.run_id.removesuffix(first.contest)}{name}"
    new = msgspec.structs.replace(first, run_id=run_id, created=utc(now), contest=name)
    return renamed(contest, new)


def _settled(unit: Unit, machine: Machine, started: str, beside: int) -> Contest:
    """The contest of ``unit`` for ``machine``: each job goes on with what this cache has of it."""
    contest = on_machine(unit.contest, machine, unit.digest)
    return replace(
        contest, jobs=tuple(_begun(job, unit.attempts, started, beside) for job in contest.jobs)
    )


def _begun(job: Job, attempts: list[Attempt], started: str, beside: int) -> Job:
    state = read_state(job.state_dir)
    known = state is not None and state.contest == job.contest
    return msgspec.structs.replace(
        job,
        request=replace(job.request, resume=known),
        attempts=attempts,
        started=started,
        beside=beside,
    )
