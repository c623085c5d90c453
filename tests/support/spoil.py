"""Makes corrupted and hostile submissions from good records: each differs in one way, and says what
the refusal must name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoil_forged import FORGED

Plain = dict[str, Any]
MACHINE = "amd-epyc-f25m17-2t"
NAMES = ("run_id", "task", "pair", "arm", "environment.machine_key")
TRAVERSALS = (
    "../../etc",
    "..",
    "a/b",
    "/etc/passwd",
    "a\\b",
    ".hidden",
    "",
    "x" * 300,
    "é",
    "con\n",
    "$(id)",
)
UNSEEN = ("\x1b[2J", "\x07", "\u202egnp.exe", "a\u200bb", "\u2066x", "\x7f")
TEXTS = (
    "command",
    "matching.what",
    "model.name",
    "environment.cpu",
    "recipe.optimizer",
    "dataset.version",
)


@dataclass(frozen=True)
class Spoiled:
    """One bad submission: ``write`` puts it below a folder of results and returns its path;
    ``reason`` must be said of it."""

    name: str
    reason: str
    write: Callable[[Path], Path]


def set_at(record: Any, path: str, value: Any) -> None:
    """Set the value at a path such as ``trace.-1.test.total``."""
    *parents, last = [int(key) if key.lstrip("-").isdigit() else key for key in path.split(".")]
    for key in parents:
        record = record[key]
    record[last] = value


def get_at(record: Any, path: str) -> Any:
    """The value at a path."""
    for key in path.split("."):
        record = record[int(key) if key.lstrip("-").isdigit() else key]
    return record


def text_of(record: Plain) -> bytes:
    """JSON as a stranger's program might write it: any text or number."""
    return json.dumps(record).encode()


def place_of(record: Plain, out: Path) -> Path:
    """Where a record lies."""
    return out.joinpath(
        MACHINE, record["task"], record["pair"], record["arm"], f"{record['run_id']}.json"
    )


def from_records(good: Sequence[Plain]) -> Iterator[Spoiled]:
    """All spoiled records, each made from one of ``good`` in turn, under a run id of its own."""
    texts = [text_of(each) for each in good]
    for number, (name, reason, change) in enumerate(changes()):
        yield Spoiled(name, reason, _writer(texts[number % len(texts)], change, number))


def _writer(text: bytes, change: Callable[[Plain], None], number: int) -> Callable[[Path], Path]:
    def write(out: Path) -> Path:
        # Read anew each time, which is quicker than a deep copy.
        record = json.loads(text)
        record["run_id"] += f"-bad{number}"
        path = place_of(record, out)
        change(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text_of(record))
        return path

    return write


def changes() -> Iterator[tuple[str, str, Callable[[Plain], None]]]:
    """(name, what must be said, change) of every way in which a record is spoiled by its
    content."""
    for path, value, reason in (*VALUES, *_hostile_values()):
        yield (
            f"{path} = {str(value)[:30]!r}",
            reason,
            lambda record, path=path, value=value: set_at(record, path, value),
        )
    for path in MISSING:
        yield (
            f"no {path}",
            "missing required field",
            lambda record, path=path: _remove(record, path),
        )
    for path in MISSING[::3]:
        yield f"{path} is a list", "Expected", lambda record, path=path: set_at(record, path, [[]])
    for path in ("", "clock.", "model.", "trace.0.", "rungs.0.", "environment.", "final."):
        yield (
            f"unknown field {path}x",
            "unknown field",
            lambda record, path=path: set_at(record, f"{path}x\x1b", 1),
        )
    for name, (reason, change) in FORGED.items():
        yield name, reason, change


def _hostile_values() -> Iterator[tuple[str, Any, str]]:
    for number, path in enumerate(NAMES):
        for value in TRAVERSALS[number::2]:
            yield path, value, "cannot be part of a file name"
    for number, path in enumerate(TEXTS):
        for value in UNSEEN[number % 2 :: 2]:
            yield path, value, "unseen character U+"
        yield path, "x" * 2**20, "1048576 characters, more than"
    for path in (
        "clock.train",
        "trace.1.test.total",
        "throughput.samples_per_second",
        "epochs",
        "recipe.learning_rate",
    ):
        yield path, 1e308, "measures nothing"
    for path in ("memory.peak_bytes", "samples", "seed", "trace.0.step"):
        yield path, 10**36, "measures nothing"
    nested: Any = 1
    for _ in range(60):
        nested = {"a": nested}
    yield "model.config", nested, "nests deeper"
    yield "model.config", {str(number): number for number in range(20_000)}, "20000 entries"
    yield "model.config", {"a": [[]] * 200_000}, "lists and objects, more than"
    yield "final.groups.weights", [1.0] * 1_000_000, "not one value a group"
    yield "rungs", [], "final is not the test of the last rung"
    yield "reasons", {}, "reasons has no entry"
    yield "reasons", {"\u202e": "x"}, "unseen character U+202E"
    yield "environment.packages", {"torch\x1b]0;owned\x07": "1"}, "unseen character U+001B"
    yield (
        "trace.0.test.by",
        {"\u202e": {"total": 1.0, "twirled": 1.0, "equivariance": 0.0, "share": 0.0}},
        "unseen character",
    )


def _remove(record: Plain, path: str) -> None:
    parent, _, last = path.rpartition(".")
    del (get_at(record, parent) if parent else record)[last]


MISSING = (
    *(
        "schema_version",
        "rules_version",
        "run_id",
        "created",
        "status",
        "reason",
        "command",
        "task",
        "dataset",
        "dataset.sha256",
    ),
    *(
        "pair",
        "arm",
        "matching",
        "model",
        "model.symmetry",
        "recipe",
        "recipe.batch_size",
        "variant",
        "seed",
        "budget",
        "clock",
    ),
    *(
        "clock.wall",
        "restarts",
        "steps",
        "samples",
        "throughput",
        "inference",
        "memory",
        "trace",
        "trace.0.test",
        "trace.0.ema",
        "rungs",
        "rungs.0.test",
        "final_on_part",
        "machine_share",
    ),
    *(
        "final",
        "environment",
        "environment.machine_key",
        "git",
        "reasons",
        "trace.0.test.share",
        "budget.limit",
    ),
)
VALUES: tuple[tuple[str, Any, str], ...] = (
    ("schema_version", 99, "schema version 99"),
    ("schema_version", "1", "not a valid record"),
    ("status", "splendid", "Invalid enum value"),
    ("status", "failed", "failed without a reason"),
    ("status", "diverged", "there is a final result"),
    ("reason", "because", "a reason for not completing"),
    ("created", "yesterday", "not an ISO 8601 time in UTC"),
    ("created", "2026-11-23T18:01:05+02:00", "not an ISO 8601 time in UTC"),
    ("created", "9998-01-01T00:00:00Z", "no time at which it can have been made"),
    ("created", "1970-01-01T00:00:00Z", "no time at which it can have been made"),
    ("preset", "huge", "does not hold preset"),
    ("seed", 77, "and seed 77"),
    ("task", "chess", "belongs to the task"),
    ("pair", "other", "place does not fit"),
    ("arm", "best", "place does not fit"),
    ("environment.machine_key", "nvidia-b200-2t", "place does not fit"),
    ("dataset.sha256", "0" * 64, "other data"),
    ("dataset.sha256", "abc", "not a SHA-256"),
    ("dataset.sha256", "Z" * 64, "not a SHA-256"),
    ("dataset.sizes", {"train": -5}, "dataset.sizes.train is -5"),
    ("dataset.sizes", {"train": 10}, "epochs of 10 samples"),
    ("model.symmetry", "perfect", "Invalid enum value"),
    ("model.parameters", 0, "model.parameters is 0"),
    ("model.parameters", -1, "model.parameters is -1"),
    ("recipe.batch_size", 0, "recipe.batch_size is 0"),
    ("recipe.batch_size", 17, "do not fit"),
    ("recipe.learning_rate", -1e-3, "recipe.learning_rate is -0.001"),
    ("recipe.augmentation_fraction", 1.5, "augmentation_fraction is 1.5"),
    ("recipe.tuning_log_sha256", "none", "not a SHA-256"),
    ("budget.kind", "wishes", "Invalid enum value"),
    ("budget.kind", "steps", "budget.spent is"),
    ("budget.limit", 0.0, "budget.limit is 0"),
    ("budget.limit", 1e6, "are spent"),
    ("budget.spent", 1.0, "budget.spent is 1"),
    ("budget.overshoot", 5.0, "budget.overshoot is 5"),
    *(
        (f"clock.{part}", -1.0, "below zero")
        for part in (
            "train",
            "data",
            "rungs",
            "evaluate",
            "checkpoint",
            "timing",
            "other",
            "stalled",
        )
    ),
    ("clock.wall", 5.0, "parts add up to"),
    ("clock.evaluate", 1e4, "parts add up to"),
    ("restarts", -1, "contradict each other"),
    ("lost_seconds", 12.0, "contradict each other"),
    ("steps", 1, "do not fit"),
    ("samples", 10**9, "do not fit"),
    ("samples", 1, "do not fit"),
    ("epochs", 1e6, "epochs of"),
    ("throughput.samples_per_second", 0.0, "samples_per_second is 0"),
    ("throughput.samples_per_second", 1e9, "throughput"),
    ("throughput.samples_per_second", 1e-3, "throughput x time"),
    ("throughput.step_seconds", {"p10": 3.0, "p50": 2.0, "p90": 1.0}, "not in order"),
    ("throughput.step_seconds", {"p10": -1.0, "p50": 2.0, "p90": 3.0}, "step_seconds is -1"),
    ("throughput.step_seconds", {"p10": 1e3, "p50": 1e3, "p90": 1e3}, "more than steps of"),
    ("inference.samples_per_second", -1.0, "inference_samples_per_second is -1"),
    ("inference.twirl", {"4": 1e9}, "faster than a single pass"),
    ("inference.twirl", {"4": -1.0}, "inference.twirl.4 is -1"),
    ("inference.twirl", {"many": 1.0}, "no number of rotations"),
    ("inference.twirl", {"1": 1.0}, "no number of rotations"),
    ("memory.peak_bytes", 0, "peak_bytes is 0"),
    ("flops_per_sample", -1.0, "flops_per_sample is -1"),
    ("flops_per_sample", 1e13, "operations a second, more than"),
    ("energy_joules", -1.0, "energy_joules is -1"),
    ("energy_joules", 0.0, "energy_joules is 0"),
    ("environment.threads", 0, "environment.threads is 0"),
    ("final.total", -1.0, "total is -1"),
    ("final.total", 0.0, "is not the test of the last rung"),
    ("final.share", 7.0, "share is 7, outside"),
    ("final.share", -0.5, "below zero"),
    ("final.twirled", 5.0, "is not twirled"),
    ("final.explained", 1.5, "explained is 1.5, outside"),
    ("final.explained", 0.123, "imply baselines"),
    ("final.floor", -1.0, "floor is -1"),
    ("final.group", "u1", "Invalid enum value"),
    ("final.over_best_untrained", 0.123, "imply best untrained predictors"),
    ("final.samples", 0, "final: samples is 0"),
    ("final.samples", 10**7, "the test split has"),
    ("final.rotations", -4, "final: rotations is -4"),
    ("final", None, "final is null"),
    ("final_on_part", None, "final_on_part is null"),
    ("final_on_part.samples", 1, "differ in samples"),
    ("final_raw", None, "final_raw is null"),
    ("final_raw.share", 0.9, "is not equivariance / total"),
    ("final_ema", None, "final_ema is null"),
    ("final_ema.total", 1e-20, "below"),
    ("rungs.0.budget", 1e6, "the rungs go back"),
    ("rungs.0.step", 10**6, "the rungs go back"),
    ("rungs.0.train_seconds", 0.0, "only 0 are spent"),
    ("rungs.0.test.total", 1e-20, "below"),
    ("rungs.-1.budget", 1e6, "the budget is"),
    ("rungs.-1.step", 10**6, "end after the run"),
    ("rungs.-1.samples", 10**9, "samples are not"),
    ("rungs.-1.test.total", 1e-20, "is not the test of the last rung"),
    ("trace.0.ema.twirled", 1e20, "is not twirled"),
    ("trace.0.test.total", 1e-20, "below"),
    ("trace.0.test.equivariance", -1e-3, "a mean of squares"),
    ("trace.0.train_seconds", -1.0, "a time below zero"),
    ("trace.0.step", 10**6, "goes back"),
    ("trace.-1.step", 10**6, "ends after the run"),
    ("trace.-1.train_seconds", 1e6, "ends after the run"),
    ("trace.-1.samples", 10**9, "samples are not"),
    ("final.groups.weights", [], "one for each group"),
    ("final.groups.weights", [-1.0], "must be positive"),
    ("final.groups.total", [], "not one value a group"),
    ("machine_share.stalled_seconds", 1e5, "clock.stalled is"),
    ("machine_share.cpu_share", -1.0, "machine_share.cpu_share is -1"),
    ("machine_share.p90_over_p10", 0.1, "below 1"),
    ("baselines", {"zero": -1.0}, "baselines.zero is -1"),
    ("baselines", {"zero": 1e20}, "which rounding of the stored labels alone leaves"),
)
