"""A worker process: trains one arm with one seed, in turns that the orchestrator gives it over
pipes (``python -m equivbench.execution.worker``)."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from equivbench.budget import Budget
from equivbench.errors import (
    EquivbenchError,
    EquivbenchWarning,
    FailedError,
    ModelError,
    UsageError,
)
from equivbench.execution.messages import (
    Alive,
    Answer,
    Begin,
    Command,
    Conclude,
    Concluded,
    Draft,
    Extend,
    Failure,
    Note,
    Prepare,
    Ready,
    Slice,
    Time,
    TurnOver,
    claim_standard_streams,
    receive_command,
    send,
)
from equivbench.execution.shares import keep_to
from equivbench.execution.state import LOG_FILE, locked, open_state
from equivbench.records.schema import RunRecord
from equivbench.registry import PAIRS, PluginWarning
from equivbench.training.job import Job
from equivbench.training.memory import is_out_of_memory

if TYPE_CHECKING:
    from equivbench.execution.replicas import Replicas
    from equivbench.training.loop import StepTimes, Trainer


_SIGN_SECONDS = 5.0
"""How often a sign of life is given while nothing else is said."""


class Server:
    """Answers commands with one trainer, which :class:`Prepare` builds.

    Making it takes the state folder of the job, which must be held by this process, and imports all
    that the job needs.
    """

    def __init__(self, begin: Begin, answers: BinaryIO) -> None:
        self.alone = False
        """Whether the orchestrator is gone."""
        self.unsaved = False
        """Whether there is work since the last checkpoint."""
        self._answers = answers
        self._job = begin.job
        self._trainer: Trainer | None = None
        self._notes_sent = 0
        self._timed: list[StepTimes] = []
        self._drafted = 0
        """How many evaluations the last draft holds."""
        self._said = time.monotonic()
        open_state(self._job)
        # Now, so that all ranks load at the same time.
        self._replicas = _further_ranks(begin)
        load(begin)

    def handle(self, command: Command) -> Answer:
        """The last answer to ``command``; those before it are sent on the way."""
        from equivbench.training.assembly import build_trainer
        from equivbench.training.record import make_record
        from equivbench.training.weights import keep_weights

        self.unsaved = isinstance(command, Slice) or (
            self.unsaved and not isinstance(command, Conclude)
        )
        match command:
            case Begin():
                return Ready()
            case Prepare():
                ranks = None if self._replicas is None else self._replicas.join()
                trainer = self._trainer = build_trainer(self._job, self.give_sign, ranks)
                # Ctrl-C belongs to the orchestrator, which ends turns by SIGTERM.
                signal.signal(signal.SIGTERM, lambda *_: trainer.stop())
                self.hand_in_draft()
                trainer.prepare()
                self.hand_in_draft()
                return trainer.progress()
            case Slice(seconds):
                self.trainer.train_slice(seconds, report=self.say)
                if self._evaluations != self._drafted:
                    self.hand_in_draft()
                return TurnOver(self.trainer.progress())
            case Time(seconds):
                self._timed.append(self.trainer.time_block(seconds))
                return TurnOver(self.trainer.progress())
            case Conclude(others, interrupted):
                aside = self.trainer.machine.work_aside(self._job.device == "cpu")
                if aside is not None:
                    raise FailedError(f"{self._job.label}: {aside}")
                checkpoint, times = self.trainer.save(), self._timed
                record = make_record(
                    self._job, self.trainer, times, others, interrupted=interrupted
                )
                if record.status == "completed":
                    record.weights_sha256 = keep_weights(self.trainer.arm.model)
                return Concluded(record, str(checkpoint))
            case Extend(job):
                self._job = job
                self.trainer.extend(Budget.parse(job.budget))
                self.hand_in_draft()
                return self.trainer.progress()

    @property
    def trainer(self) -> Trainer:
        """The trainer, once prepared."""
        if self._trainer is None:
            raise AssertionError("asked to train before it was prepared")
        return self._trainer

    def say(self, answer: Answer) -> None:
        """Send ``answer``, after any new lines of the trainer for the user.

        Where nobody listens any more, the turn ends.
        """
        self._said = time.monotonic()
        try:
            if self._trainer is not None:
                for text in self._trainer.notes[self._notes_sent :]:
                    send(self._answers, Note(text))
                self._notes_sent = len(self._trainer.notes)
            send(self._answers, answer)
        except BrokenPipeError:
            self.alone = True
            if self._trainer is not None:
                self._trainer.stop()

    def give_sign(self) -> None:
        """Say that an evaluation goes on, now and then."""
        if time.monotonic() - self._said >= _SIGN_SECONDS:
            self.say(Alive())

    def hand_in_draft(self) -> None:
        """Send the record as it would be if the process died from here on."""
        record = self.record_failure("its process died") if self._job.split == "test" else None
        if record is not None:
            self._drafted = self._evaluations
            self.say(Draft(record))

    @property
    def _evaluations(self) -> int:
        facts = self.trainer.facts
        return len(facts.trace) + len(facts.rungs) + (facts.final_raw is not None)

    def lost_rank(self, error: BaseException) -> Failure | None:
        """What is to be said for ``error`` where the end of another rank caused it."""
        if self._replicas is None:
            return None
        from equivbench.execution.replicas import LEAVE_SECONDS
        from equivbench.ranks import LostRankError

        cut_off = isinstance(error, LostRankError | BrokenPipeError)
        return self._replicas.lost(LEAVE_SECONDS / 2 if cut_off else 0.0)

    def close(self) -> None:
        """Let the other ranks leave, if there are any."""
        if self._replicas is not None:
            self._replicas.close()

    def record_failure(self, why: str) -> RunRecord | None:
        """The run as far as it got, as a failed one; None if training had not begun or its state
        tells nothing any more."""
        from equivbench.training.record import make_record

        if self._trainer is None:
            return None
        try:
            return make_record(self._job, self._trainer, [], None, failed=why)
        except Exception:  # noqa: BLE001  the first failure matters, not what it did to the trainer
            traceback.print_exc()
            return None


def _further_ranks(begin: Begin) -> Replicas | None:
    """Those of an arm on several devices, started; None for one device."""
    if not begin.job.replicas:
        return None
    from equivbench.execution.replicas import Replicas

    return Replicas(begin)


def load(begin: Begin) -> None:
    """Import all that the job needs, and keep to its device, cores and threads.

    Raises ``UsageError`` where what registers its pair cannot be imported.
    """
    job = begin.job
    # Before torch starts threads of its own.
    keep_to(job.cores)
    # What registers the pair in the orchestrator's process would be unknown here.
    for module in begin.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"a worker cannot import {module!r}, which registers what {job.pair} needs: {error}"
            ) from error
    if begin.pair is not None and job.pair not in PAIRS.entries():
        PAIRS.add(begin.pair)
    import torch

    importlib.import_module("equivbench.training.assembly")
    torch.set_num_threads(job.threads)
    if job.device.startswith("cuda:"):
        # What a library makes without naming a device goes where the run is.
        torch.cuda.set_device(job.device)
    # Whatever the modules that were imported made it.
    torch.set_default_dtype(torch.float32)


def explain(error: BaseException, job: Job) -> Failure:
    """``error`` as one plain sentence with its exit code; what is unforeseen leaves its traceback
    in the log."""
    if is_out_of_memory(error):
        traceback.print_exception(error)
        said = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        return Failure(
            f"{job.label}: the memory of {job.device} is too small for it ({said}); take a smaller "
            "batch_size in its recipe, or a smaller network",
            FailedError.exit_code,
            broke=True,
            too_large=True,
        )
    if isinstance(error, ModelError):
        return Failure(f"{job.label}: {error}", FailedError.exit_code, broke=True)
    if isinstance(error, EquivbenchError):
        return Failure(str(error), error.exit_code)
    if isinstance(error, OSError) and error.strerror:
        named = f" {error.filename}" if error.filename is not None else ""
        return Failure(
            f"{job.label}: cannot access{named}: {error.strerror}; "
            "check its permissions and the free space",
            FailedError.exit_code,
        )
    traceback.print_exception(error)
    said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    hint = f"; the log {job.state_dir}/{LOG_FILE} says where"
    return Failure(f"{job.label} failed with {said}", FailedError.exit_code, hint, broke=True)


@contextlib.contextmanager
def warnings_told(answers: BinaryIO) -> Iterator[None]:
    """Inside, what equivbench warns of reaches the user, not the log alone; a plug-in that cannot
    be loaded is for the orchestrator to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", EquivbenchWarning)
        log = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EquivbenchWarning) and not issubclass(category, PluginWarning):
                with contextlib.suppress(BrokenPipeError):
                    send(answers, Note(str(message)))
            log(message, category, *where, **more)

        warnings.showwarning = tell
        yield


def serve(commands: BinaryIO, answers: BinaryIO) -> int:
    """Answer commands, of which the first is :class:`Begin`, until the orchestrator closes the pipe
    or is gone; then save what is unsaved and leave."""
    command = receive_command(commands)
    if not isinstance(command, Begin):
        return 0
    job = command.job
    server: Server | None = None
    # The lock is held until this process ends, whatever becomes of the orchestrator.
    with contextlib.ExitStack() as held, warnings_told(answers):
        try:
            held.enter_context(locked(job))
            server = Server(command, answers)
            held.callback(server.close)
            while command is not None:
                server.say(server.handle(command))
                command = None if server.alone else receive_command(commands)
        except BaseException as error:  # noqa: BLE001  it must reach the orchestrator as a sentence
            lost = None if server is None else server.lost_rank(error)
            failure = lost or explain(error, job)
            if server is not None and failure.exit_code == FailedError.exit_code:
                record = server.record_failure(failure.text)
                failure = msgspec.structs.replace(failure, record=record)
            with contextlib.suppress(BrokenPipeError):
                send(answers, failure)
            return 1
        if server.unsaved:
            server.trainer.save()
    return 0


def leave_signals_to_the_orchestrator() -> None:
    """What the wish to stop, or a terminal that is gone, means here it decides; a scheduler tells
    every process of a job. SIGUSR1 writes to the log where each thread is."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)


if __name__ == "__main__":
    leave_signals_to_the_orchestrator()
    sys.exit(serve(*claim_standard_streams()))
