"""One side of ``check --interleave`` as the command sees it: a fresh process that is asked."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from equivbench.environment import last_log_line, worker_environment
from equivbench.errors import FailedError
from equivbench.gate.protocol import Hello, Question, Reply

PATIENCE = 600.0
"""Seconds after which a side that does not answer is taken to hang."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Reply).decode


class Process:
    """A fresh process that imports the package from ``tree``."""

    def __init__(self, tree: Path, only: Sequence[str]) -> None:
        self._tree = tree
        self._log = tree.parent / f"{tree.name}.log"
        arguments = [word for pattern in only for word in ("--only", pattern)]
        with open(self._log, "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "equivbench.gate.side", *arguments],
                cwd=tree,
                env=worker_environment(1, str(tree)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            hello = self.receive()
            assert isinstance(hello, Hello), "a side begins by saying what it has"
            self.hello = hello
            if Path(self.hello.package) != (tree / "equivbench").resolve():
                raise FailedError(
                    f"the process of the {tree.name} imported {self.hello.package}, not its own "
                    "tree; install equivbench editable"
                )
        except BaseException:
            self.end()
            raise

    def ask(self, command: Question) -> Reply:
        """The answer to ``command``; raises ``FailedError`` where the process is gone or hangs."""
        self.send(command)
        return self.receive()

    def send(self, command: Question) -> None:
        """Ask, and let :meth:`receive` wait for the answer; raises the same."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_encode(command) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def receive(self) -> Reply:
        """The next answer; raises the same."""
        stdout = self._process.stdout
        assert stdout is not None
        # One line an answer, so that nothing is left in the buffer between two of them.
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            answered = selector.select(PATIENCE)
        if not answered:
            raise FailedError(
                f"the process of the {self._tree.name} did not answer within {PATIENCE:g} s"
            )
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        answer: Reply = _decode(line)
        return answer

    def _died(self) -> FailedError:
        code = self._process.wait()
        return FailedError(
            f"the process of the {self._tree.name} ended with code {code}: "
            f"{last_log_line(self._log) or 'it said nothing'}"
        )

    def end(self) -> None:
        """End the process with whatever it started."""
        for stream in (self._process.stdin, self._process.stdout):
            # What was written to a process that is gone cannot be flushed.
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
