"""The command line as a user's shell sees it: processes of its own, a cache of its own, a plug-in
on the path."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from warm import WarmPopen, children

from equivbench.training.checkpoint import last_checkpoint
from equivbench.training.clock import PARTS
from equivbench.training.heartbeat import _FORM


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
    cold: bool = False
    """Whether every process is a fresh one, with its imports to make."""

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(
            [str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep)
        return {
            **os.environ,
            "PYTHONPATH": path,
            "EQUIVBENCH_CACHE": str(self.folder / "cache"),
            "TOY_ARMS_HURRY": str(self.folder / "hurry"),
            "COLUMNS": "200",
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return self.start_python("-m", "equivbench.cli.main", *arguments, **options)

    def start_python(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return (subprocess.Popen if self.cold else WarmPopen)(
            command,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            **{**pipes, **options},
        )

    def finish(self, process: subprocess.Popen[str]) -> Ran:
        out, err = process.communicate(timeout=900)
        return Ran(process.returncode, out, err)

    def __call__(self, *arguments: str) -> Ran:
        return self.finish(self.start(*arguments))

    def hurry(self) -> None:
        """Let ``toy/slow`` be as fast as the other toys from now on."""
        (self.folder / "hurry").touch()

    def states(self) -> list[Path]:
        """State folders of runs, in the order of their names."""
        return sorted(path for path in (self.folder / "cache" / "runs").glob("*") if path.is_dir())

    def furthest(self) -> int:
        """The step of the run that has got furthest."""
        return max((step_of(folder) for folder in self.states()), default=0)

    def hindmost(self) -> int:
        """The step of the run that has got least far (0: none has begun)."""
        return min((step_of(folder) for folder in self.states()), default=0)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.results.rglob("*seed*.json"))]

    def entry_point(self, module: str, name: str) -> None:
        """Install ``module`` as distribution ``name`` with an entry point in every group."""
        info = self.folder / "site" / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        groups = ("tasks", "models", "pairs")
        (info / "entry_points.txt").write_text(
            "".join(f"[equivbench.{group}]\n{name} = {module}\n" for group in groups)
        )


def with_toys(folder: Path) -> Bench:
    """A bench in ``folder`` with the toy package installed, entry points and all."""
    bench = Bench(folder)
    (folder / "site").mkdir()
    shutil.copy(Path(__file__).with_name("toy_arms.py"), folder / "site" / "toy_arms.py")
    bench.entry_point("toy_arms", "toy-arms")
    return bench


def workers_of(process: subprocess.Popen[str], arm: str, pair: str = "") -> list[psutil.Process]:
    """The worker processes of ``arm`` (of ``pair``) that ``process`` has started and that live."""
    wanted = f"{pair} {arm} "
    started = [pid for pid, words in children(process.pid).items() if wanted in words[-1]]
    return [psutil.Process(pid) for pid in started if lives(pid)]


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended: one may be kept until it is asked for."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def step_of(job_folder: Path) -> int:
    """The step that the heartbeat in a run's state folder is at (0: there is none yet)."""
    beat = _beat(job_folder)
    return 0 if beat is None else int(beat[1])


def lost_at(job_folder: Path) -> float:
    """Seconds of steps (train, data and rungs) that the heartbeat in a state folder holds and its
    last checkpoint does not."""
    beat = _beat(job_folder)
    assert beat is not None
    clock = dict(zip(PARTS, beat[4:], strict=True))
    checkpoint = last_checkpoint(job_folder, [])
    saved = {} if checkpoint is None else checkpoint.facts.clock
    return sum(clock[part] - saved.get(part, 0.0) for part in ("train", "data", "rungs"))


def _beat(job_folder: Path) -> tuple[Any, ...] | None:
    """(owner, step, restarts, lost seconds, parts of the clock ...), whoever the owner is."""
    try:
        return _FORM.unpack_from((job_folder / "heartbeat").read_bytes())
    except (OSError, struct.error):
        return None
