"""The evidence that a results folder holds: records, gaps and analyses, sorted by machine and
preset. Nothing else is read."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from equivbench.counted import counted
from equivbench.errors import FailedError
from equivbench.gap.efficiency import PairGap
from equivbench.records.declared import as_declared, effective_variant
from equivbench.records.line_files import LineFile
from equivbench.records.schema import RunRecord
from equivbench.records.store import InvalidRecordWarning
from equivbench.records.submission import admitted
from equivbench.studies.claims.findings import Hardware, hardware_of
from equivbench.studies.claims.headline import Headline, make_headline, telling_headlines
from equivbench.studies.claims.statements import TASKS
from equivbench.studies.gradients.record import GRADIENTS, Gradients
from equivbench.studies.landscape.record import LANDSCAPES, Landscape
from equivbench.studies.record import RunAnalysis

A = TypeVar("A", Gradients, Landscape)
TRIAL_PRESET = "dev"
"""Runs of seconds, for tests and the gate: no evidence for anything."""


@dataclass(frozen=True)
class MachineEvidence:
    """Everything from one machine under one preset; only within it are numbers compared."""

    machine_key: str
    hardware: Hardware
    preset: str
    records: list[RunRecord]
    headlines: list[Headline]
    gradients: list[Gradients]
    landscapes: list[Landscape]

    @property
    def declared(self) -> list[RunRecord]:
        """The records of pairs as declared, points of sweeps and other precisions left out."""
        return [record for record in self.records if as_declared(effective_variant(record))]

    @property
    def gaps(self) -> list[PairGap]:
        """Those of pairs as declared, of the campaign that counts where there are several."""
        telling = telling_headlines(self.headlines)
        return [each.gap for each in telling if as_declared(each.gap.variant)]

    def record_of(self, analysis: RunAnalysis) -> RunRecord:
        """The run that was analysed."""
        return next(each for each in self.records if _identity(each) == _identity(analysis))


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on, and what was left out of it (``warnings``)."""

    machines: list[MachineEvidence]
    warnings: list[str]


def load_evidence(results: Path) -> Evidence:
    """The evidence below ``results``; an empty folder holds none. What `results validate` refuses
    is left out with a warning.

    Raises ``FailedError`` where the folder does not exist. Records of the preset ``dev`` and of
    tasks other than the paper's take no part; an analysis counts while the record of its run is
    there and was made on the same data.
    """
    if not results.is_dir():
        raise FailedError(
            f"{results} is no folder; name a results folder, or make one with `equivbench "
            f"reproduce`"
        )
    records: list[RunRecord] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InvalidRecordWarning)
        # An empty folder fails: every claim is then not measured.
        with contextlib.suppress(FailedError):
            records = admitted(results, invalid="warn")
    left_out = [
        str(each.message) for each in caught if issubclass(each.category, InvalidRecordWarning)
    ]
    gradients, landscapes = list[Gradients](), list[Landscape]()
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        gradients += _sound(folder, GRADIENTS, left_out)
        landscapes += _sound(folder, LANDSCAPES, left_out)
    return gather_evidence(records, gradients, landscapes, left_out)


def gather_evidence(
    records: Sequence[RunRecord],
    gradients: Sequence[Gradients] = (),
    landscapes: Sequence[Landscape] = (),
    left_out: Sequence[str] = (),
) -> Evidence:
    """The evidence in what was read; ``left_out`` are warnings of the reading."""
    notes = list(left_out)
    used = [record for record in records if record.preset != TRIAL_PRESET and record.task in TASKS]
    if len(used) < len(records):
        others = f"of the preset {TRIAL_PRESET} or of tasks that the paper does not have"
        notes.append(f"no evidence: {counted(len(records) - len(used), 'record')} {others}")
    known = {_identity(record) for record in used if record.status == "completed"}
    kept_gradients = _kept(gradients, known, notes)
    kept_landscapes = _kept(landscapes, known, notes)
    headlines = make_headline(used)
    machines = []
    for place in sorted({_place(record) for record in used}):
        own = [record for record in used if _place(record) == place]
        machines.append(
            MachineEvidence(
                machine_key=place[0],
                hardware=hardware_of(own[0].environment),
                preset=place[1],
                records=own,
                headlines=[
                    each for each in headlines if (each.gap.machine_key, each.gap.preset) == place
                ],
                gradients=[each for each in kept_gradients if _place(each) == place],
                landscapes=[each for each in kept_landscapes if _place(each) == place],
            )
        )
    return Evidence(machines, notes)


def _sound(folder: Path, file: LineFile[A], left_out: list[str]) -> list[A]:
    """The analyses in the ``file`` of ``folder``, where there is one, that can be right."""
    path = folder / file.name
    if not path.is_file():
        return []
    try:
        found = [(each, file.problems_of(each)) for each in file.read(path)]
    except FailedError as error:
        left_out.append(f"left out: {error}")
        return []
    left_out += [
        f"left out: an analysis in {path}: {problems[0]}" for _, problems in found if problems
    ]
    return [each for each, problems in found if not problems]


def _kept(analyses: Sequence[A], known: set[tuple[str, ...]], notes: list[str]) -> list[A]:
    kept = [each for each in analyses if _identity(each) in known and each.preset != TRIAL_PRESET]
    if len(kept) < len(analyses):
        notes.append(
            f"left out {counted(len(analyses) - len(kept), 'analysis', 'analyses')} of runs whose "
            "finished records are not here"
        )
    return kept


def _identity(made: RunRecord | RunAnalysis) -> tuple[str, ...]:
    """What a run's record and the analyses of it have in common."""
    data = made.dataset.sha256 if isinstance(made, RunRecord) else made.dataset_sha256
    machine = made.environment.machine_key
    return (machine, made.task, made.pair, made.arm, made.run_id, data)


def _place(made: RunRecord | RunAnalysis) -> tuple[str, str]:
    return made.environment.machine_key, made.preset
