"""A worker process seen from outside: started, asked, stopped, and what can be said about one that
died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from equivbench.environment import last_log_line, worker_environment
from equivbench.errors import FailedError, UsageError
from equivbench.execution.protocol import (
    Answer,
    Begin,
    Command,
    Concluded,
    Failure,
    Note,
    Ready,
    Slice,
    Time,
    TurnOver,
    as_error,
    receive_answer,
    send,
)
from equivbench.execution.state import LOG_FILE
from equivbench.registry import IN_PROCESS, MODELS, PAIRS, TASKS
from equivbench.training.job import Job
from equivbench.training.progress import Progress

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
                    [sys.executable, "-P", "-m", "equivbench.execution.worker", label(job)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    start_new_session=True,
                    env=_environment(job),
                )
        except OSError as error:
            raise FailedError(
                f"cannot start the worker of {label(job)}: {error.strerror}: "
                f"{error.filename or self.log}"
            ) from error

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

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
            if pipe is not None:
                # Closing flushes what the worker never read.
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
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
            return WorkerDiedError(f"the worker of {label(self.job)} was killed by {name}{hint}")
        last = last_log_line(self.log)
        said = f": {last}" if last else ""
        return WorkerDiedError(
            f"the worker of {label(self.job)} ended with code {code}{said}; its log is {self.log}"
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


def label(job: Job) -> str:
    """How messages name a job: ``forcefield/vector augmented seed 0``."""
    return f"{job.pair} {job.arm} seed {job.seed}"


def _environment(job: Job) -> dict[str, str]:
    # What this process can import, the worker can: scripts and notebooks register models of their
    # own folder.
    import_path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return worker_environment(job.threads, import_path)
