"""The history of speed and loss: asv's pages stand on the documentation site, and the commits that
they name are those at which something changed."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("asv", reason="asv is in the dev extra")

from asv.step_detect import detect_regressions, detect_steps

ROOT = Path(__file__).parent.parent
SETTINGS: dict[str, Any] = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
THRESHOLDS: dict[str, float] = SETTINGS["regressions_thresholds"]
NAME = "timings.Harness.track_seconds"
COMMITS = 40
SLOWER_FROM = 25
"""The first commit of a series that is slower."""
NOISE = 0.03
"""Standard deviation of the logarithm of one value of asv on a machine that does nothing else."""


def threshold(name: str) -> float:
    """The least change of the benchmark ``name`` that asv reports."""
    return next(value for pattern, value in THRESHOLDS.items() if re.match(pattern, name))


def regressions(values: list[float], name: str) -> list[tuple[Any, ...]]:
    """The changes for the worse that asv finds in ``values``, one a commit: (before, after, ...)"""
    _, _, found = detect_regressions(detect_steps(values), threshold(name))
    return found or []


def series(step: float, noise: float, seed: int) -> list[float]:
    """Seconds that grow by the fraction ``step`` at the commit :data:`SLOWER_FROM`."""
    drawn = random.Random(seed)
    return [
        (1 + step * (commit >= SLOWER_FROM)) * math.exp(noise * drawn.gauss(0, 1))
        for commit in range(COMMITS)
    ]


def test_code_that_did_not_change_raises_no_alarm() -> None:
    alarms = sum(bool(regressions(series(0.0, NOISE, seed), NAME)) for seed in range(150))
    # None in 300 series of other seeds: even a rate of 1% would give five and more once in 50.
    assert alarms < 5


def test_a_third_more_time_is_found_at_its_commit() -> None:
    found = [regressions(series(0.3, NOISE, seed), NAME) for seed in range(100)]
    right = [any(abs(change[1] - SLOWER_FROM) <= 1 for change in changes) for changes in found]
    # 97% of 300 series of other seeds: fewer than 90 of 100 come once in some thousand times.
    assert sum(right) >= 90


def test_a_loss_is_the_same_bits_until_the_code_changes() -> None:
    loss = "pairs.Arms.track_test_loss"
    assert threshold(loss) == 0.01
    ((before, after, *_),) = regressions(series(0.02, 0.0, 0), loss)
    assert (before, after) == (SLOWER_FROM - 1, SLOWER_FROM)
    assert regressions(series(0.005, 0.0, 0), loss) == []


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The configuration of the documentation."""
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(project: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    done = subprocess.run(
        ["git", *who, *words], cwd=project, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with asv's settings and six commits."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "asv.conf.json", folder)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for number in range(6):
        (folder / "code.txt").write_text(str(number), encoding="utf-8")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", str(number))
    return folder


def keep_results(project: Path, seconds: list[float]) -> list[str]:
    """What asv keeps of a benchmark that took ``seconds`` at the commits of ``project``, which are
    returned."""
    commits = git(project, "rev-list", "--reverse", "HEAD").split()
    results = project / SETTINGS["results_dir"]
    machine = {"machine": "toy", "os": "", "arch": "", "cpu": "", "num_cpu": "2", "ram": ""}
    (results / "toy").mkdir(parents=True)

    def write(name: str, content: dict[str, Any], version: int) -> None:
        text = json.dumps({**content, "version": version})
        (results / name).write_text(text, encoding="utf-8")

    benchmark = {
        "name": NAME,
        "code": "",
        "version": "1",
        "params": [],
        "param_names": [],
        "type": "track",
        "unit": "seconds",
        "timeout": 60,
    }
    write("benchmarks.json", {NAME: benchmark}, 2)
    write("toy/machine.json", machine, 1)
    for number, (commit, value) in enumerate(zip(commits, seconds, strict=True)):
        content = {
            "commit_hash": commit,
            "env_name": "toy-env",
            "date": 1_700_000_000_000 + 60_000 * number,
            "params": {**machine, "python": "3.11"},
            "python": "3.11",
            "requirements": {},
            "env_vars": {},
            "result_columns": ["result", "params", "version", "started_at", "duration"],
            "results": {NAME: [[value], [], "1", 1_700_000_000_000, 1.0]},
            "durations": {},
        }
        write(f"toy/{commit[:8]}-toy-env.json", content, 2)
    return commits


def test_the_history_of_what_asv_measured_is_on_the_site(
    site: ModuleType, project: Path, tmp_path: Path
) -> None:
    commits = keep_results(project, [1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
    out = tmp_path / "site" / "history"
    assert site.publish_history(project, out)
    index = json.loads((out / "index.json").read_text(encoding="utf-8"))
    assert list(index["benchmarks"]) == [NAME]
    assert sorted(index["revision_to_hash"].values()) == sorted(commits)
    assert (out / "index.html").is_file()
    # The commit that made it slower is named.
    (change,) = json.loads((out / "regressions.json").read_text(encoding="utf-8"))["regressions"]
    assert change[0] == NAME
    ((_, after, *_),) = change[-1]
    assert index["revision_to_hash"][str(after)] == commits[3]


def test_a_site_without_a_history_says_so(site: ModuleType, project: Path, tmp_path: Path) -> None:
    out = tmp_path / "site" / "history"
    assert not site.publish_history(project, out)
    assert "asv run" in (out / "index.html").read_text(encoding="utf-8")
