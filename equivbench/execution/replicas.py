"""The further ranks of an arm, as its worker, the first of them, has them: a process each, which is
told over its stdin what to do. One that ends by itself ends the run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from equivbench.errors import FailedError
from equivbench.execution.messages import Begin, Failure, receive_answer, send
from equivbench.execution.workers import hangs_after, signal_name, stopped_process
from equivbench.training.acts import Act, Join
from equivbench.training.job import Job

if TYPE_CHECKING:
    from equivbench.ranks import Ranks

HOST = "127.0.0.1"
"""Where the ranks of an arm meet: all are processes of one machine."""
LEAVE_SECONDS = 5.0
"""How long a rank gets to leave by itself once another one is gone, or nothing more is to be
done."""
_LOOK_SECONDS = 0.2


class Replicas:
    """The processes of the ranks from 1 on of the job of ``begin``, which they are given.

    They end when their stdin closes, so that they cannot outlive this process. Where one ends
    before, this process must not wait for it for ever: it is told by an error of what it does with
    the other ranks, and if that does not happen, ended (exit code 3, the reason in its log).
    """

    def __init__(self, begin: Begin) -> None:
        self._job = begin.job
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._lost: Failure | None = None
        count = len(self._job.replicas) + 1
        os.environ.update(_variables(0, count))
        self._processes = [_start(self._job, number, count) for number in range(1, count)]
        self.tell(begin)
        threading.Thread(target=self._watch, name="replicas", daemon=True).start()

    def join(self) -> Ranks:
        """Meet them: all ranks, of which this process is the first. They build the arm from here
        on.

        Raises :class:`equivbench.ranks.LostRankError` where one does not come.
        """
        import torch

        from equivbench.ranks import Ranks, meeting_place

        names = [self._job.device, *(place.device for place in self._job.replicas)]
        store = meeting_place(HOST, len(names))
        os.environ["MASTER_PORT"] = str(store.port)
        self.tell(Join(store.port))
        devices = [torch.device(name) for name in names]
        return Ranks.joined(store, 0, devices, hangs_after(), self.tell)

    def tell(self, act: Begin | Act) -> None:
        """Have each of them do ``act`` next; raises ``BrokenPipeError`` where one is gone."""
        for process in self._processes:
            send(cast(BinaryIO, process.stdin), act)

    def lost(self, patience: float) -> Failure | None:
        """Why one of them ended, if one has, or does within ``patience`` seconds. Whoever asks ends
        the run."""
        self._closing.set()
        until = time.monotonic() + patience
        while True:
            lost = self._look()
            if lost is not None or time.monotonic() >= until:
                return lost
            time.sleep(0.05)

    def close(self) -> None:
        """Let them leave, and wait until they have."""
        self._closing.set()
        for process in self._processes:
            # Closing flushes what it never read.
            with contextlib.suppress(OSError):
                cast(BinaryIO, process.stdin).close()
        for process in self._processes:
            # One that is stopped does not leave.
            patience = 0.0 if stopped_process(process.pid) is not None else 2 * LEAVE_SECONDS
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            cast(BinaryIO, process.stdout).close()

    def _look(self) -> Failure | None:
        with self._lock:
            ended = enumerate(self._processes, 1)
            found = (self._end_of(number) for number, each in ended if each.poll() is not None)
            self._lost = self._lost or next(found, None)
            return self._lost

    def _end_of(self, number: int) -> Failure:
        """What one that has ended said, or how it ended."""
        process = self._processes[number - 1]
        with contextlib.suppress(msgspec.MsgspecError):
            said = receive_answer(cast(BinaryIO, process.stdout))
            if isinstance(said, Failure):
                return said
        code = process.returncode
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
        place = self._job.replicas[number - 1].name
        return Failure(
            f"rank {number} of {self._job.label}, on {place}, {how}", FailedError.exit_code
        )

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            lost = self._look()
            # This process finds out by itself, unless it waits: for its device, or to be told what
            # to do.
            if lost is not None and not self._closing.wait(LEAVE_SECONDS):
                sys.stderr.write(f"{lost.text}\n")
                sys.stderr.flush()
                os._exit(lost.exit_code)


def _start(job: Job, number: int, count: int) -> subprocess.Popen[bytes]:
    title = f"{job.label} rank {number}"
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "equivbench.execution.replica", title],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_variables(number, count)},
        )
    except OSError as error:
        raise FailedError(f"cannot start {title}: {error.strerror}") from error


def _variables(number: int, count: int) -> dict[str, str]:
    """The environment variables of a rank, as torchrun sets them: libraries read them."""
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": HOST,
    }
