"""The orchestrator's end of a worker process: started, asked, watched and stopped. One that dies or
hangs leaves the record of a failed run."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec
import psutil

from equivbench.environment import last_log_line, worker_environment
from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError, UsageError
from equivbench.execution.dead import record_of_dead
from equivbench.execution.messages import (
    Alive,
    Answer,
    Begin,
    Command,
    Concluded,
    Draft,
    Failure,
    Note,
    Ready,
    Slice,
    Time,
    TurnOver,
    receive_answer,
    send,
)
from equivbench.execution.state import LOG_FILE
from equivbench.execution.turns import LOOK_SECONDS, Turns, Waiting
from equivbench.records.schema import RunRecord
from equivbench.registry import IN_PROCESS, MODELS, PAIRS, TASKS
from equivbench.specs import PairSpec
from equivbench.training.heartbeat import HEARTBEAT, Heartbeat
from equivbench.training.job import Job, Progress


class FailedRunError(FailedError):
    """A worker met an error; ``record`` is the run as far as it got, if it got anywhere, and
    ``reason`` says why the run itself failed (None: something that it needs was not there)."""

    def __init__(self, text: str, record: RunRecord | None, reason: str | None = None) -> None:
        super().__init__(text)
        self.record = record
        self.reason = reason


class TooLargeError(FailedRunError):
    """The memory of the device is too small for the run."""


def as_error(failure: Failure) -> EquivbenchError:
    """The error of :mod:`equivbench.errors` that ends the command line with the failure's exit
    code."""
    if failure.exit_code == FailedError.exit_code:
        reason = failure.text if failure.broke else None
        kind = TooLargeError if failure.too_large else FailedRunError
        return kind(f"{failure.text}{failure.hint}", failure.record, reason)
    kinds: dict[int, type[EquivbenchError]] = {2: UsageError, 130: InterruptedRunError}
    return kinds[failure.exit_code](failure.text)


A = TypeVar("A", bound=Answer)
_PATIENCE = 30.0
"""Seconds a worker gets to save its checkpoint and leave after its stdin has closed, and seconds
without a sign of life after which one that was told to end its turn is ended."""
_STOPPED_AFTER = 3.0
"""Seconds without a sign of life after which it is asked whether one that was told to end its turn
is stopped, or waits for a process of its own that is: nothing would come of more patience."""
_HANGS_AFTER = 1800.0
"""Seconds without a sign of life after which a worker is taken to hang; the environment variable
EQUIVBENCH_HANG_SECONDS sets another number. Steps tell of themselves twice a second and evaluations
after each pass, so what is silent for long compiles, or makes one step of many minutes."""
_MANY_TIMES = 5.0
"""Nor is one taken to hang before it was silent so many times longer than ever before."""


class WorkerDiedError(FailedRunError):
    """The worker process is gone without having said why: killed, crashed in native code, or ended
    because it hung."""


class WorkerProcess:
    """One arm and seed in a process of its own.

    The process has its own session, so that Ctrl-C in a terminal reaches the orchestrator alone; it
    ends when its stdin closes, so that it cannot outlive the orchestrator.
    """

    def __init__(self, job: Job, note: Callable[[str], None]) -> None:
        self.job = job
        self.log = Path(job.state_dir) / LOG_FILE
        self._note = note
        self._hangs_after = hangs_after()
        self.turns = Turns()
        self._draft: RunRecord | None = None
        self._asked_to_end: float | None = None
        """When it was told to end its turn, until it has."""
        self._waited = 0.0
        """Seconds that the last answer took."""
        self._in_turn = False
        self._longest_silence = 0.0
        """Seconds, while it had a turn."""
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
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
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

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
        seconds = 0.0
        while True:
            answer = self._next()
            seconds += self._waited
            if isinstance(answer, TurnOver):
                self._asked_to_end = None
                self.turns.over(seconds, answer.progress.wall)
                return answer.progress
            if isinstance(answer, Progress):
                show(answer)

    def end_turn(self) -> None:
        """Make it end the turn it has after the step at hand; safe to call from a signal
        handler. One that does not is ended itself."""
        self._asked_to_end = time.monotonic()
        self._process.terminate()

    def answer(self, expect: type[A]) -> A:
        """The next answer; raises the worker's own error, or :class:`WorkerDiedError`."""
        answer = self._next()
        if not isinstance(answer, expect):
            raise AssertionError(f"expected {expect.__name__}, got {answer!r}")
        if isinstance(answer, Progress):
            self.turns.told(answer.wall)
        return answer

    def stop(self) -> None:
        """Close its stdin, which makes it save and leave, and wait; one that does not leave in time
        is killed."""
        # Closing flushes what the worker never read.
        with contextlib.suppress(BrokenPipeError):
            cast(BinaryIO, self._process.stdin).close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
        self._hang_up()

    def kill(self) -> None:
        """End it and what it started at once; what it did since its last checkpoint is lost."""
        if hasattr(os, "killpg") and self._process.poll() is None:
            # Its group is that of its session, which no other process of ours is in.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._hang_up()

    def end_now(self) -> None:
        """Kill it and what it started, and wait for nothing; safe to call from a signal handler."""
        if hasattr(os, "killpg") and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _hang_up(self) -> None:
        # A process that the worker left behind may hold the pipe open: it is not waited for.
        self._listener.join(1.0)
        if not self._listener.is_alive():
            cast(BinaryIO, self._process.stdout).close()

    def _listen(self) -> None:
        """Queue what the worker says, and None at its end."""
        answer: Answer | None = None
        while True:
            try:
                answer = receive_answer(cast(BinaryIO, self._process.stdout))
            except msgspec.MsgspecError as error:
                said = f"the worker of {self.job.label} sent what is no message: {error}"
                answer = Failure(said, FailedError.exit_code)
            self._answers.put(answer)
            if answer is None or isinstance(answer, Failure):
                return

    def _wait(self) -> Answer | None:
        """The next thing that it says, None once it is gone; one that hangs is ended."""
        waiting = Waiting()
        while True:
            try:
                answer = self._answers.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                silent = waiting.seconds(self._asked_to_end or 0.0)
                if self._process.poll() is not None:
                    # What it said last may be on its way; a process of its own may hold the pipe.
                    self._listener.join(1.0)
                    if self._answers.empty():
                        return None
                elif silent > self._patience():
                    raise self._ended_hung(silent) from None
                elif self._asked_to_end is not None and silent > _STOPPED_AFTER:
                    stopped = stopped_process(self._process.pid)
                    if stopped is not None:
                        raise self._ended_stopped(stopped) from None
            else:
                silent = waiting.seconds()
                self._waited += silent
                if self._in_turn:
                    self._longest_silence = max(self._longest_silence, silent)
                return answer

    def _patience(self) -> float:
        """Seconds of silence after which it hangs."""
        patience = self._hangs_after
        if self._asked_to_end is not None:
            patience = min(patience, _PATIENCE)
        return max(patience, _MANY_TIMES * self._longest_silence if self._in_turn else 0.0)

    def _ended_hung(self, silent: float) -> WorkerDiedError:
        if hasattr(signal, "SIGUSR1"):
            # It writes to its log where each of its threads is.
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
        self.kill()
        asked = " though it was told to end" * (self._asked_to_end is not None)
        return self._dead(f"hung: it gave no sign of life for {silent:.0f} s{asked}")

    def _ended_stopped(self, title: str) -> WorkerDiedError:
        self.kill()
        which = "it" if title == self.job.label else title
        return self._dead(f"did not end its turn: {which} is stopped (SIGSTOP)")

    def _next(self) -> Ready | Progress | TurnOver | Concluded:
        """The next answer that is not for the user or for later, or a failure."""
        self._waited = 0.0
        while True:
            answer = self._wait()
            match answer:
                case Note():
                    self._note(answer.text)
                case Draft():
                    self._draft = answer.record
                case Alive():
                    pass
                case Failure():
                    self.stop()
                    if answer.record is None and answer.exit_code == FailedError.exit_code:
                        record = self._last_known(answer.text)
                        answer = msgspec.structs.replace(answer, record=record)
                    raise as_error(answer)
                case None:
                    raise self._death()
                case _:
                    return answer

    def _send(self, command: Command) -> None:
        self._in_turn = isinstance(command, Slice | Time)
        if not self._in_turn:
            # Told to end a turn that was over already, it may take its time to save.
            self._asked_to_end = None
        try:
            send(cast(BinaryIO, self._process.stdin), command)
        except BrokenPipeError:
            raise self._death() from None

    def _death(self) -> WorkerDiedError:
        """What can be said about a worker that is gone."""
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._dead("closed its pipe and went on")
        if code < 0:
            hint = " (the system may have run out of memory)" if -code == signal.SIGKILL else ""
            return self._dead(f"was killed by {signal_name(-code)}{hint}")
        last = last_log_line(self.log)
        return self._dead(f"ended with code {code}{f': {last}' if last else ''}")

    def _dead(self, how: str) -> WorkerDiedError:
        why = f"the worker of {self.job.label} {how}"
        return WorkerDiedError(f"{why}; its log is {self.log}", self._last_known(why), why)

    def _last_known(self, why: str) -> RunRecord | None:
        """The run that failed because of ``why``, as far as it is known to have got."""
        if self._draft is None:
            return None
        beat = Heartbeat(Path(self.job.state_dir) / HEARTBEAT).read()
        return record_of_dead(self._draft, beat, why)


def hangs_after() -> float:
    """Seconds without a sign of life after which a worker is taken to hang.

    Raises ``UsageError`` where EQUIVBENCH_HANG_SECONDS is no positive number.
    """
    named = os.environ.get("EQUIVBENCH_HANG_SECONDS", "")
    if not named:
        return _HANGS_AFTER
    try:
        seconds = float(named)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(
            f"EQUIVBENCH_HANG_SECONDS must be a positive number of seconds, not {named!r}"
        )
    return seconds


def stopped_process(worker: int) -> str | None:
    """The title (its last argument) of the process ``worker``, or of one that it started, if a
    signal has stopped it."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(worker)
        for each in (first, *first.children(recursive=True)):
            if each.status() == psutil.STATUS_STOPPED:
                return (each.cmdline() or [each.name()])[-1]
    return None


def signal_name(number: int) -> str:
    """The name of signal ``number``, such as ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def begin_command(job: Job) -> Begin:
    """The first command for ``job``, with what this process registered and a fresh one would not
    know."""
    return Begin(job, *registered_here(job))


def registered_here(job: Job) -> tuple[list[str], PairSpec | None]:
    """(modules to import, pair) that a fresh process needs for ``job`` and would not know.

    Raises ``UsageError`` for what a script registers by itself.
    """
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
    return list(dict.fromkeys(modules)), entry.value if entry.origin == IN_PROCESS else None
