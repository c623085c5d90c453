"""The messages that an orchestrator and a worker exchange, one JSON object a line over the worker's
stdin and stdout."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import msgspec

from equivbench.records.schema import RunRecord
from equivbench.specs import PairSpec
from equivbench.training.acts import Act
from equivbench.training.job import Job, Progress

# --- What the orchestrator asks.


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """Take the job's state folder and import all that it needs; answered by :class:`Ready`.

    What the orchestrator's own process registered goes with it: ``modules`` are imported first,
    ``pair`` is registered if it is still missing then.
    """

    job: Job
    modules: list[str] = []
    pair: PairSpec | None = None


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Load the data, build the model (restored where the job says so) and compile it; answered by
    :class:`Progress`.

    All of it is on the clock, so a worker does it with the machine to itself.
    """


class Slice(msgspec.Struct, tag="slice", frozen=True):
    """Train for about ``seconds``; answered by :class:`Progress` now and then and by
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
    """Go on as ``job``, which prolongs the one just concluded; answered by :class:`Progress`."""

    job: Job


Command = Begin | Prepare | Slice | Time | Conclude | Extend

# --- What a worker answers.


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Everything is imported."""


class TurnOver(msgspec.Struct, tag="turn_over", frozen=True):
    """The slice or timing round is over."""

    progress: Progress


class Concluded(msgspec.Struct, tag="concluded", frozen=True):
    """The run's record; ``checkpoint`` is the file of its weights."""

    record: RunRecord
    checkpoint: str


class Draft(msgspec.Struct, tag="draft", frozen=True):
    """The record as it is to be if the process dies from here on without a word."""

    record: RunRecord


class Alive(msgspec.Struct, tag="alive", frozen=True):
    """A long evaluation goes on."""


class Note(msgspec.Struct, tag="note", frozen=True):
    """A line for the user, such as that compilation was replaced by eager."""

    text: str


class Failure(msgspec.Struct, tag="failure", frozen=True):
    """The command failed and the worker ends."""

    text: str
    """One plain sentence for the user."""
    exit_code: int
    hint: str = ""
    """What follows it for the user and is kept in no record: it names a file of this machine."""
    record: RunRecord | None = None
    """The run as far as it got."""
    broke: bool = False
    """Whether the run itself failed, and nothing that it needs and that was not there."""
    too_large: bool = False
    """Whether the memory of its device is too small for the run."""


Answer = Ready | Progress | TurnOver | Concluded | Draft | Alive | Note | Failure

_encode = msgspec.json.Encoder().encode
_decode_command = msgspec.json.Decoder(Command).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_act = msgspec.json.Decoder(Begin | Act).decode


def send(stream: BinaryIO, message: Command | Answer | Act) -> None:
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


def receive_act(stream: BinaryIO) -> Begin | Act | None:
    """The next that a further rank is told, or None when the first one is gone."""
    line = stream.readline()
    return _decode_act(line) if line.endswith(b"\n") else None


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
