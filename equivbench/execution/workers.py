"""The orchestrator's end of a worker process: the messages both ends exchange, one JSON object a
line over its stdin and stdout, and the process started, asked and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec

from equivbench.environment import last_log_line, worker_environment
from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError, UsageError
from equivbench.execution.state import LOG_FILE
from equivbench.records.schema import RunRecord
from equivbench.registry import IN_PROCESS, MODELS, PAIRS, TASKS
from equivbench.specs import PairSpec
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


class Note(msgspec.Struct, tag="note", frozen=True):
    """A line for the user, such as that compilation was replaced by eager."""

    text: str


class Failure(msgspec.Struct, tag="failure", frozen=True):
    """The command failed and the worker ends."""

    text: str
    """One plain sentence for the user."""
    exit_code: int
    record: RunRecord | None = None
    """The run as far as it got."""


Answer = Ready | Progress | TurnOver | Concluded | Note | Failure

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


def as_error(failure: Failure) -> EquivbenchError:
    """The error of :mod:`equivbench.errors` that ends the command line with the failure's exit
    code."""
    if failure.exit_code == FailedError.exit_code:
        return FailedRunError(failure.text, failure.record)
    kinds: dict[int, type[EquivbenchError]] = {2: UsageError, 130: InterruptedRunError}
    return kinds[failure.exit_code](failure.text)


A = TypeVar("A", bound=Answer)
_PATIENCE = 30.0
"""Seconds a worker gets to save its checkpoint and leave after its stdin has closed."""


class WorkerDiedError(FailedError):
    """The worker process is gone without having said why (killed, crashed in native code)."""


class WorkerProcess:
    """One arm and seed in a process of its own.

    The process has its own session, so that Ctrl-C in a terminal reaches the orchestrator alone; it
    ends when its stdin closes, so that it cannot outlive the orchestrator.
    """

    def __init__(self, job: Job, note: Callable[[str], None]) -> None:
        self.job = job
        self.log = Path(job.state_dir) / LOG_FILE
        self._note = note
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, "ab") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "equivbench.execution.worker", job.label],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    start_new_session=True,
                    # What this process can import, the worker can: scripts and notebooks register
                    # models of their own folder.
                    env=worker_environment(
                        job.threads, os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
                    ),
                )
        except OSError as error:
            raise FailedError(
                f"cannot start the worker of {job.label}: {error.strerror}: "
                f"{error.filename or self.log}"
            ) from error

    def begin(self) -> None:
        """Tell the worker its job without waiting, so that several workers load at once;
        :meth:`answer` waits."""
        self._send(begin_command(self.job))

    def ask(self, command: Command, expect: type[A]) -> A:
        """Send ``command`` and wait for its answer."""
        self._send(command)
        return self.answer(expect)

    def take_turn(self, command: Slice | Time, show: Callable[[Progress], None]) -> Progress:
        """Let it train or be timed; ``show`` is told how far it is, and so is the caller at the
        end."""
        self._send(command)
        while True:
            answer = self._next()
            if isinstance(answer, TurnOver):
                return answer.progress
            if isinstance(answer, Progress):
                show(answer)

    def end_turn(self) -> None:
        """Make it end the turn it has after the step at hand; safe to call from a signal
        handler."""
        self._process.terminate()

    def answer(self, expect: type[A]) -> A:
        """The next answer; raises the worker's own error, or :class:`WorkerDiedError`."""
        answer = self._next()
        if not isinstance(answer, expect):
            raise AssertionError(f"expected {expect.__name__}, got {answer!r}")
        return answer

    def stop(self) -> None:
        """Close its stdin, which makes it save and leave, and wait; one that does not leave in time
        is killed."""
        for pipe in (self._process.stdin, self._process.stdout):
            # Closing flushes what the worker never read.
            with contextlib.suppress(BrokenPipeError):
                cast(BinaryIO, pipe).close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once; what it did since its last checkpoint is lost."""
        self._process.kill()
        self._process.wait()

    def _next(self) -> Ready | Progress | TurnOver | Concluded:
        """The next answer that is not a note for the user or a failure."""
        while True:
            answer = receive_answer(cast(BinaryIO, self._process.stdout))
            match answer:
                case Note():
                    self._note(answer.text)
                case Failure():
                    self.stop()
                    raise as_error(answer)
                case None:
                    raise self._death()
                case _:
                    return answer

    def _send(self, command: Command) -> None:
        try:
            send(cast(BinaryIO, self._process.stdin), command)
        except BrokenPipeError:
            raise self._death() from None

    def _death(self) -> WorkerDiedError:
        """What can be said about a worker that is gone."""
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (the system may have run out of memory)" if -code == signal.SIGKILL else ""
            return WorkerDiedError(f"the worker of {self.job.label} was killed by {name}{hint}")
        last = last_log_line(self.log)
        said = f": {last}" if last else ""
        return WorkerDiedError(
            f"the worker of {self.job.label} ended with code {code}{said}; its log is {self.log}"
        )


def begin_command(job: Job) -> Begin:
    """The first command for ``job``, with what this process registered and a fresh one would not
    know."""
    entry = PAIRS.entry(job.pair)
    model = MODELS.entry(entry.value.arm(job.arm).model)
    task = TASKS.entry(entry.value.task)
    factories = [model.value.build] if model.origin == IN_PROCESS else []
    factories += [task.value.factory] if task.origin == IN_PROCESS else []
    modules = [factory.__module__ for factory in factories if not isinstance(factory, str)]
    if "__main__" in modules:
        raise UsageError(
            f"{job.pair} is registered by a script; workers import it, "
            "so move what registers it to a module"
        )
    return Begin(
        job, list(dict.fromkeys(modules)), entry.value if entry.origin == IN_PROCESS else None
    )
