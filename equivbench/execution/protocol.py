"""What the orchestrator and a worker say to each other: one JSON object a line, over the worker's
stdin and stdout."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import msgspec

from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError, UsageError
from equivbench.records.schema import RunRecord
from equivbench.specs import PairSpec
from equivbench.training.job import Job

# --- what the orchestrator asks
# ---------------------------------------------------------------------------------------


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """Import all that ``job`` needs; answered by :class:`Ready`.

    What the orchestrator's own process registered goes with it: ``modules`` are imported first,
    ``pair`` is registered if it is still missing then.
    """

    job: Job
    modules: list[str] = []
    pair: PairSpec | None = None


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Load the data, build the model (restored where the job says so) and compile it; answered by
    :class:`Standing`.

    All of it is on the clock, so a worker does it with the machine to itself.
    """


class Slice(msgspec.Struct, tag="slice", frozen=True):
    """Train for about ``seconds``; answered by :class:`Standing` now and then and by
    :class:`TurnOver` at the end."""

    seconds: float


class Time(msgspec.Struct, tag="time", frozen=True):
    """Repeat training steps for about ``seconds``, off the budget and without learning; answered by
    :class:`TurnOver`."""

    seconds: float


class Conclude(msgspec.Struct, tag="conclude", frozen=True):
    """Save a checkpoint and hand in the record; answered by :class:`Concluded`.

    ``alternated_with`` names the arms whose timing rounds alternated with this one's;
    ``interrupted`` says that the user stopped the run before it was done.
    """

    alternated_with: str | None = None
    interrupted: bool = False


class Extend(msgspec.Struct, tag="extend", frozen=True):
    """Go on as ``job``, which prolongs the one just concluded; answered by :class:`Standing`."""

    job: Job


Command = Begin | Prepare | Slice | Time | Conclude | Extend

# --- what a worker answers
# --------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Everything is imported."""


class Standing(msgspec.Struct, tag="standing", frozen=True):
    """How far a run is: what progress bars show. ``spent`` and ``limit`` are in the budget's own
    unit."""

    step: int
    spent: float
    limit: float
    finished: bool
    """The budget is spent, or the arm diverged."""
    diverged: str | None = None
    loss: float | None = None
    """Training objective of recent steps."""
    total: float | None = None
    """Board metric of the last evaluation; ``share`` and ``explained`` belong to it."""
    share: float | None = None
    explained: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    phase: str | None = None


class TurnOver(msgspec.Struct, tag="turn_over", frozen=True):
    """The slice or timing round is over."""

    standing: Standing


class Concluded(msgspec.Struct, tag="concluded", frozen=True):
    """The run's record; ``checkpoint`` is the file of its weights."""

    record: RunRecord
    checkpoint: str


class Note(msgspec.Struct, tag="note", frozen=True):
    """A line for the user, such as that compilation was replaced by eager."""

    text: str


class Problem(msgspec.Struct, tag="problem", frozen=True):
    """The command failed and the worker ends; ``text`` is one plain sentence, ``record`` what was
    seen until then."""

    text: str
    exit_code: int
    record: RunRecord | None = None


Answer = Ready | Standing | TurnOver | Concluded | Note | Problem

_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode
_decode_answer = msgspec.json.Decoder(Answer).decode


def send(stream: BinaryIO, message: Command | Answer) -> None:
    """Write ``message`` as one line; raises ``BrokenPipeError`` when nobody listens any more."""
    stream.write(_encode(message) + b"\n")
    stream.flush()


def receive_command(stream: BinaryIO) -> Command | None:
    """The next command, or None when the orchestrator is gone."""
    line = stream.readline()
    return _decode_command(line) if line.endswith(b"\n") else None


def receive_answer(stream: BinaryIO) -> Answer | None:
    """The next answer, or None when the worker is gone (a half-written line counts as gone)."""
    line = stream.readline()
    return _decode_answer(line) if line.endswith(b"\n") else None


def claim_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """(commands, answers): this process's stdin and stdout, kept for messages alone.

    Whatever a library prints afterwards goes to stderr, and whatever reads stdin finds it empty.
    The kept descriptors are not inherited by child processes, so that a compiler left running
    cannot keep the pipe open.
    """
    sys.stdout.flush()
    commands, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), os.fdopen(answers, "wb")


class FailedRunError(FailedError):
    """A worker met an error; ``record`` is the run as far as it got, if it got anywhere."""

    def __init__(self, text: str, record: RunRecord | None) -> None:
        super().__init__(text)
        self.record = record


def as_error(problem: Problem) -> EquivbenchError:
    """The error of :mod:`equivbench.errors` that ends the command line with the problem's exit
    code."""
    if problem.exit_code == FailedError.exit_code:
        return FailedRunError(problem.text, problem.record)
    kinds: dict[int, type[EquivbenchError]] = {2: UsageError, 130: InterruptedRunError}
    return kinds[problem.exit_code](problem.text)
