"""A worker process: trains one arm with one seed, in turns that the orchestrator gives (``python
-m``, over pipes)."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.execution.protocol import (
    Answer,
    Begin,
    Command,
    Conclude,
    Concluded,
    Extend,
    Note,
    Prepare,
    Problem,
    Ready,
    Slice,
    Standing,
    Time,
    TurnOver,
    claim_standard_streams,
    receive_command,
    send,
)
from equivbench.records.schema import RunRecord
from equivbench.registry import PAIRS
from equivbench.training.job import Job

if TYPE_CHECKING:
    from equivbench.training.loop import Trainer


class Desk:
    """Answers commands with one trainer. Making it imports all that the job needs; :class:`Prepare`
    builds the trainer."""

    def __init__(self, begin: Begin, answers: BinaryIO) -> None:
        self.alone = False
        """Whether the orchestrator is gone."""
        self._answers = answers
        self._job = begin.job
        self._trainer: Trainer | None = None
        self._notes = 0
        self._step_seconds: list[float] = []
        for module in begin.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                text = f"a worker cannot import {module!r}, which registers what {begin.job.pair} needs: {error}"
                raise UsageError(text) from error
        if begin.pair is not None and begin.job.pair not in PAIRS.entries():
            PAIRS.add(begin.pair)
        import torch

        importlib.import_module("equivbench.training.assembly")
        torch.set_num_threads(self._job.threads)

    def handle(self, command: Command) -> Answer:
        """The last answer to ``command``; those before it are sent on the way."""
        match command:
            case Begin():
                return Ready()
            case Prepare():
                self._prepare()
                return self._standing()
            case Slice(seconds):
                self.trainer.train_slice(seconds, report=lambda _: self.say(self._standing()))
                return TurnOver(self._standing())
            case Time(seconds):
                self._step_seconds += self.trainer.time_steps(seconds)
                return TurnOver(self._standing())
            case Conclude():
                return self._conclude(command)
            case Extend(job):
                from equivbench.budget import Budget

                self._job = job
                self.trainer.extend(Budget.parse(job.budget))
                return self._standing()

    @property
    def trainer(self) -> Trainer:
        """The trainer, once prepared."""
        if self._trainer is None:
            raise AssertionError("asked to train before it was prepared")
        return self._trainer

    def say(self, answer: Answer) -> None:
        """Send ``answer``, after any new lines of the trainer for the user; with nobody listening,
        end the turn."""
        try:
            if self._trainer is not None:
                for text in self._trainer.notes[self._notes :]:
                    send(self._answers, Note(text))
                self._notes = len(self._trainer.notes)
            send(self._answers, answer)
        except BrokenPipeError:
            self.alone = True
            if self._trainer is not None:
                self._trainer.stop()

    def save(self) -> None:
        """Write a checkpoint."""
        self.trainer.save()

    def record_failure(self, why: str) -> RunRecord | None:
        """The run as far as it got, as a failed one; None if training had not begun or its state
        tells nothing any more."""
        from equivbench.training.record import make_record

        try:
            return (
                None
                if self._trainer is None
                else make_record(self._job, self._trainer, [], None, failed=why)
            )
        except Exception:  # noqa: BLE001  the first failure is what matters, not what it did to the trainer
            traceback.print_exc()
            return None

    def _prepare(self) -> None:
        from equivbench.training.assembly import build_trainer

        trainer = self._trainer = build_trainer(self._job)
        # Ctrl-C belongs to the orchestrator, which ends turns by SIGTERM.
        signal.signal(signal.SIGTERM, lambda *_: trainer.stop())
        trainer.prepare()

    def _standing(self) -> Standing:
        now = self.trainer.progress()
        known: dict[str, Any] = {
            name: getattr(now, name, None) for name in Standing.__struct_fields__
        }
        return Standing(**known)

    def _conclude(self, command: Conclude) -> Concluded:
        from equivbench.training.record import make_record

        checkpoint = self.trainer.save()
        record = make_record(
            self._job,
            self.trainer,
            self._step_seconds,
            command.alternated_with,
            interrupted=command.interrupted,
        )
        return Concluded(record, str(checkpoint))


def explain(error: BaseException, job: Job | None) -> Problem:
    """``error`` as one plain sentence with its exit code; what is unforeseen leaves its traceback
    in the log."""
    if isinstance(error, EquivbenchError):
        return Problem(str(error), error.exit_code)
    where = f"{job.pair} {job.arm} seed {job.seed}" if job is not None else "a worker"
    if isinstance(error, OSError) and error.strerror:
        named = f" {error.filename}" if error.filename is not None else ""
        return Problem(
            f"{where}: cannot access{named}: {error.strerror}; check its permissions and the free space",
            FailedError.exit_code,
        )
    traceback.print_exception(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    log = f"; the log {job.state_dir}/worker.log says where" if job is not None else ""
    return Problem(f"{where} failed with {said}{log}", FailedError.exit_code)


def serve(commands: BinaryIO, answers: BinaryIO) -> int:
    """Answer commands until the orchestrator closes the pipe or is gone; then save what is unsaved
    and leave."""
    desk: Desk | None = None
    job: Job | None = None
    unsaved = False
    try:
        while (command := receive_command(commands)) is not None:
            if isinstance(command, Begin):
                job = command.job
                desk = Desk(command, answers)
            if desk is None:
                raise AssertionError(f"the first command must be begin, not {command!r}")
            desk.say(desk.handle(command))
            unsaved = (unsaved or isinstance(command, Slice)) and not isinstance(command, Conclude)
            if desk.alone:
                break
    except BaseException as error:  # noqa: BLE001  whatever happened must reach the orchestrator as a sentence
        problem = explain(error, job)
        if desk is not None and problem.exit_code == FailedError.exit_code:
            problem = Problem(problem.text, problem.exit_code, desk.record_failure(problem.text))
        with contextlib.suppress(BrokenPipeError):
            send(answers, problem)
        return 1
    if desk is not None and unsaved:
        desk.save()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(serve(*claim_standard_streams()))
