"""A toy package with entry points, installed in a folder of its own, and the command line run with it on the path."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Bench:
    """``equivbench`` as a user's shell sees it: its own results folder, cache and plug-in."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return {**os.environ, "PYTHONPATH": path, "EQUIVBENCH_CACHE": str(self.folder / "cache"), "COLUMNS": "200"}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "equivbench.cli.main", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, start_new_session=True, **{**pipes, **options})

    def finish(self, process: subprocess.Popen[str]) -> Ran:
        out, err = process.communicate(timeout=300)
        return Ran(process.returncode, out, err)

    def __call__(self, *arguments: str) -> Ran:
        return self.finish(self.start(*arguments))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.results.rglob("*seed*.json"))]

    def entry_point(self, module: str, name: str) -> None:
        """Install ``module`` as distribution ``name`` with an entry point in every group."""
        info = self.folder / "site" / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        groups = ("tasks", "models", "pairs")
        (info / "entry_points.txt").write_text("".join(f"[equivbench.{group}]\n{name} = {module}\n" for group in groups))


def workers_of(process: subprocess.Popen[str], arm: str) -> list[psutil.Process]:
    """The worker processes of ``arm`` below ``process``."""
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if f" {arm} " in child.cmdline()[-1]]
    except (psutil.NoSuchProcess, IndexError):
        return []


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Return when ``condition`` holds; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with the toy package installed."""
    bench = Bench(tmp_path)
    (tmp_path / "site").mkdir()
    shutil.copy(Path(__file__).with_name("toy_arms.py"), tmp_path / "site" / "toy_arms.py")
    bench.entry_point("toy_arms", "toy-arms")
    return bench


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
