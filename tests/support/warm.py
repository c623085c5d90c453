"""Processes that start in milliseconds: forked from one that has imported torch and equivbench.

A fresh process of equivbench that trains spends four CPU seconds on imports, and the tests start
hundreds. :class:`WarmPopen` is a :class:`subprocess.Popen` whose child is forked from a template
process, made once, and sees the arguments, environment, folder, pipes and signals that a fresh one
would; so do the processes that it starts in turn. What tests ask of a start itself (its time, what
it imports, variables that native libraries read when they load) needs a fresh process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_ADDRESS = "EQUIVBENCH_TEST_TEMPLATE"
"""Environment variable with the template's socket, by which processes that it made find it."""
_PRELOADED = (
    "torch._dynamo",
    "equivbench.cli.main",
    "equivbench.execution.local",
    "equivbench.execution.worker",
    "equivbench.training.assembly",
    "equivbench.training.record",
    "equivbench.tasks.forcefield.networks.nequip",
    "equivbench.tasks.voxel.networks.steerable",
    "equivbench.gap.efficiency",
)
_NUMBER = struct.Struct("!i")
_ORDINARY = subprocess.Popen
"""The class itself, wherever :class:`WarmPopen` takes its place."""


class WarmPopen(subprocess.Popen[Any]):
    """``python [-P] (-m MODULE | -c CODE | SCRIPT) ...``, forked from the template.

    Any other command, and one with ``pass_fds`` or ``preexec_fn``, is an ordinary process.
    """

    _ended: socket.socket | None = None
    """Where the template says how the child ended."""
    _close_pipe_fds: Callable[..., None]
    _handle_exitstatus: Callable[[int], None]

    def _execute_child(self, *given: Any) -> None:
        """Ask the template for the process; the arguments are those that Popen hands on."""
        args, _, preexec_fn, _, pass_fds, cwd, env = given[:7]
        if not isinstance(args, list) or args[0] != sys.executable or preexec_fn or pass_fds:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        pipes = given[10:16]
        ends = [
            number if end == -1 else end
            for number, end in enumerate((pipes[0], pipes[3], pipes[5]))
        ]
        request = {
            "args": [str(each) for each in args[1:]],
            "cwd": str(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": bool(given[21]),
            "parent": os.getpid(),
        }
        content = json.dumps(request).encode()
        self._ended = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ended.connect(_template())
        socket.send_fds(self._ended, [_NUMBER.pack(len(content))], ends)
        self._ended.sendall(content)
        (self.pid,) = _NUMBER.unpack(self._ended.recv(4, socket.MSG_WAITALL))
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """(pid, status) as waitpid gives them; (0, 0) while it runs."""
        if self._ended is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        try:
            flags = socket.MSG_DONTWAIT if wait_flags == os.WNOHANG else socket.MSG_WAITALL
            content = self._ended.recv(4, flags)
        except BlockingIOError:
            return 0, 0
        self._ended.close()
        return self.pid, _NUMBER.unpack(content)[0] if content else signal.SIGKILL

    def _internal_poll(self, *given: Any, **options: Any) -> int | None:
        if self._ended is None:
            return super()._internal_poll(*given, **options)  # type: ignore[misc, no-any-return]
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid == self.pid:
                self._handle_exitstatus(status)
        return self.returncode


def children(parent: int) -> dict[int, list[str]]:
    """The arguments of the processes that process ``parent`` asked for, by their ids; they may have
    ended."""
    started = {}
    # One that is being written still has another name.
    written = (each for each in Path(_template()).parent.iterdir() if each.name.isdigit())
    for path in written:
        request = json.loads(path.read_text())
        if request["parent"] == parent:
            started[int(path.name)] = request["args"]
    return started


@cache
def _template() -> str:
    """The address of the template: that of the process which made this one, or of a new one."""
    if _ADDRESS in os.environ:
        return os.environ[_ADDRESS]
    folder = tempfile.TemporaryDirectory(prefix="warm")
    address = f"{folder.name}/template"
    process = _ORDINARY(
        [sys.executable, "-P", __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(folder.cleanup)
    atexit.register(process.wait)
    atexit.register(process.kill)
    assert process.stdout is not None
    if not process.stdout.read(1):
        raise RuntimeError("the template process ended before it was ready")
    return address


def serve(address: str) -> NoReturn:
    """Fork a process for each request, and tell who asked how it ended."""
    for name in _PRELOADED:
        importlib.import_module(name)
    # As many timing rounds as ever, but short ones, and of forward passes a round of each kind: no
    # test asks how fast a toy is.
    vars(sys.modules["equivbench.execution.contest"])["_timing_seconds"] = lambda job: 0.02
    vars(sys.modules["equivbench.training.record"])["make_record"].__kwdefaults__.update(
        inference_seconds=0.02
    )
    gc.collect()
    gc.freeze()
    path = list(sys.path)
    running: dict[int, socket.socket] = {}
    signal.signal(signal.SIGCHLD, lambda *_: None)
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    selector = selectors.DefaultSelector()
    for end in (listener, woken, 0):
        selector.register(end, selectors.EVENT_READ)
    os.write(1, b"!")
    while True:
        ready = [key.fileobj for key, _ in selector.select()]
        if 0 in ready:
            os._exit(0)  # who made the template is gone
        if listener in ready:
            asker, _ = listener.accept()
            length, ends, _, _ = socket.recv_fds(asker, _NUMBER.size, 3)
            content = asker.recv(_NUMBER.unpack(length)[0], socket.MSG_WAITALL)
            pid = os.fork()
            if not pid:
                selector.close()
                for owned in (listener, wake, woken, asker, *running.values()):
                    owned.close()
                _become(json.loads(content), list(ends), path, address)
            for descriptor in ends:
                os.close(descriptor)
            Path(address).with_name(f"{pid}.new").write_bytes(content)
            os.rename(Path(address).with_name(f"{pid}.new"), Path(address).with_name(str(pid)))
            asker.sendall(_NUMBER.pack(pid))
            running[pid] = asker
        if woken in ready:
            woken.recv(4096)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                asker = running.pop(pid)
                with contextlib.suppress(OSError):  # who asked for it may have ended before it
                    asker.sendall(_NUMBER.pack(status))
                asker.close()


def _become(request: dict[str, Any], ends: list[int], path: list[str], address: str) -> NoReturn:
    """Be the process that ``request`` describes, to its end."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["session"]:
            os.setsid()
        for number, end in enumerate(ends):
            os.dup2(end, number)
        for end in ends:
            os.close(end)
        os.environ.clear()
        os.environ.update({**request["env"], _ADDRESS: address})
        os.chdir(request["cwd"])
        # Streams on the new descriptors, as an interpreter makes them when it starts.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        # What begins itself anew begins as this process, and not as the template.
        sys.orig_argv = [sys.executable, *request["args"]]
        _run(request["args"], path)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  as the interpreter does with what nobody caught
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 120
        os._exit(code & 255)


def _run(arguments: list[str], path: list[str]) -> None:
    """Run the module, code or script that the arguments of an interpreter name."""
    safe = arguments[0] == "-P"
    kind, *arguments = arguments[1:] if safe else arguments
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*added, *path]
    importlib.invalidate_caches()
    # What it starts in turn is forked likewise.
    subprocess.Popen = WarmPopen  # type: ignore[misc]
    # A module that the template has imported is run again, as the main one.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    if kind in ("-c", "-m"):
        what, *arguments = arguments
        if not safe:
            sys.path.insert(0, "" if kind == "-c" else os.getcwd())
    if kind == "-c":
        sys.argv = ["-c", *arguments]
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(what, "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *arguments]
        if not safe:
            sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
