"""A network in a process of its own environment: started, asked, and ended in every case."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from equivbench.environment import last_log_line, worker_environment
from equivbench.errors import FailedError
from equivbench.records.reasons import plain_reason

PROGRAM = Path(__file__).with_name("served.py")
MAGIC = b"equivbench\n"
"""Begins every message, in front of its length in 8 bytes and a .npz archive."""
MOST_BYTES = 2**30
START_SECONDS = 600.0
"""For loading the network; longer where weights are fetched over a slow line."""
ANSWER_SECONDS = 300.0
_LONGEST = 300
"""Most characters of somebody's exception in an error."""
Arrays = Mapping[str, NDArray[Any]]


class NetworkProcess:
    """The program :mod:`equivbench.pretrained.served` in the environment of ``python``, until the
    block is left. Every error is a ``FailedError`` of one sentence. ``threads``: in every library.
    """

    def __init__(
        self,
        python: Path,
        threads: int,
        *,
        start_seconds: float = START_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.name = "the network"
        """What errors call it."""
        self._python = python
        self._environment = worker_environment(threads, "")
        del self._environment["PYTHONPATH"]
        self._start_seconds, self._answer_seconds = start_seconds, answer_seconds
        self._messages: queue.Queue[bytes | str | None] = queue.Queue()

    def __enter__(self) -> NetworkProcess:
        self._folder = Path(tempfile.mkdtemp(prefix="equivbench-"))
        self._log = self._folder / "log.txt"
        try:
            with self._log.open("wb") as log:
                # Whatever a package writes into its working folder goes with the process.
                self._process = subprocess.Popen(
                    [str(self._python), "-I", "-u", str(PROGRAM)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environment,
                    cwd=self._folder,
                    start_new_session=True,
                )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise FailedError(
                f"the environment {self._python.parent.parent.name} is broken "
                f"({error.strerror or error}); remove it from the cache"
            ) from error
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        end_group(self._process)
        # What is left to be written has no reader any more.
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def load(self, name: str, load: Mapping[str, Any]) -> dict[str, Any]:
        """Load the network ``name`` as ``load`` says, in place of the one before; returns what the
        program says of it."""
        self.name = name
        text = np.array(json.dumps(dict(load)))
        found = self._exchange({"load": text}, self._start_seconds)
        about: dict[str, Any] = json.loads(str(found["about"]))
        return about

    def ask(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """What the network answers to ``arrays``."""
        return self._exchange(arrays, self._answer_seconds)

    def _exchange(self, arrays: Arrays, seconds: float) -> dict[str, NDArray[Any]]:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # names are no keywords of it
        data = buffer.getvalue()
        assert self._process.stdin is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            end_group(self._process)

        # Ends a write as well as a wait: its end closes both pipes.
        timer = threading.Timer(seconds, give_up)
        timer.start()
        message: bytes | str | None = None
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.write(MAGIC + len(data).to_bytes(8, "big") + data)
                self._process.stdin.flush()
            message = self._messages.get()
        finally:
            timer.cancel()
        if late.is_set():
            raise FailedError(f"{self.name} gave no answer within {seconds:.0f} s")
        if message is None:
            raise self._ended()
        if isinstance(message, str):
            raise FailedError(f"{self.name} answered with {message}")
        try:
            with np.load(io.BytesIO(message), allow_pickle=False) as found:
                answer = {name: found[name] for name in found.files}
        # What a stranger's process may send is anything.
        except Exception as error:
            raise FailedError(
                f"{self.name} answered with something that is no archive of arrays: "
                f"{plain_reason(error)}"
            ) from error
        if "error" in answer:
            raise FailedError(f"{self.name}: {plain_reason(answer['error'], _LONGEST)}")
        return answer

    def _ended(self) -> FailedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        if code is not None and code < 0:
            return FailedError(f"the process of {self.name} was ended by signal {-code}")
        last = last_log_line(self._log)
        said = f": {plain_reason(last)}" if last else ""
        return FailedError(f"the process of {self.name} ended with code {code}{said}")

    def _read(self, stream: IO[bytes]) -> None:
        """Put every message of ``stream`` into the queue, and None at its end; a text says what
        came instead of one."""
        with stream:
            while True:
                head = stream.read(len(MAGIC) + 8)
                if not head:
                    break
                size = int.from_bytes(head[len(MAGIC) :], "big")
                if not head.startswith(MAGIC) or size > MOST_BYTES:
                    self._messages.put("something that is no message")
                    break
                data = stream.read(size)
                if len(data) < size:
                    break
                self._messages.put(data)
        self._messages.put(None)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process``, which began a session, and all that it started; nothing where they ended."""
    if os.name == "posix":
        # Its group may outlive it, and has its number as long as it does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
