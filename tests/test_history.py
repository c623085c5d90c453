"""The history of speed and loss: asv's pages stand on the documentation site, and the commits that
they name are those at which something changed."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asv", reason="asv is in the dev extra")

from asv.step_detect import detect_regressions, detect_steps
from asv_records import KERNELS, LADDER
from history_page import NO_ASV, NO_COMMITS, NOTHING, publish_history
from ladder_lines import ladder_entry
from toy_samples import kernel_samples

from equivbench.gap.ladder_file import keep_entry
from equivbench.records.line_files import KERNEL_FILE
from equivbench.records.schema import Git

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
    """The least change of the benchmark ``name`` that asv reports: the largest that fits."""
    return max(value for pattern, value in THRESHOLDS.items() if re.match(pattern, name))


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


def git(project: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    done = subprocess.run(
        ["git", *who, *words], cwd=project, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """One with asv's settings and six commits, in ``folder``."""
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


class Site:
    """Where the history of a repository was published: what asv measured, and records."""

    def __init__(self, folder: Path) -> None:
        self.project, self.out = repository(folder / "project"), folder / "site" / "history"
        self.commits = keep_results(self.project, [1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
        results = self.project / "results"
        # The steps of the fourth commit take half as long again; a seventh is not in the history.
        steps = dict(zip([*self.commits, "f" * 40], [0.1] * 3 + [0.15] * 3 + [0.2], strict=True))
        self.entries = [ladder_entry(each, seconds) for each, seconds in steps.items()]
        for entry, log in self.entries:
            keep_entry(entry, log, results)
        self.sample = kernel_samples([2e-3], git=Git(commit=self.commits[1], dirty=False))
        KERNEL_FILE.keep([self.sample], results)
        self.history = publish_history(self.project, self.out)
        self.index = self.read("index.json")
        hashes = self.index["revision_to_hash"]
        self.commit_of = {int(revision): commit for revision, commit in hashes.items()}

    def read(self, name: str) -> Any:
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def graph(self, benchmark: str) -> dict[str, float]:
        """The values of a benchmark with one parameter, by commit."""
        (file,) = (self.out / "graphs").rglob(f"machine-*/**/{benchmark}.json")
        points = json.loads(file.read_text(encoding="utf-8"))
        return {self.commit_of[revision]: values[0] for revision, values in points}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("history"))


def test_the_history_is_of_what_asv_measured_and_of_records(site: Site) -> None:
    assert set(site.index["benchmarks"]) == {NAME, LADDER, KERNELS}
    assert sorted(site.commit_of.values()) == sorted(site.commits)
    assert set(site.index["machines"]) == {"toy", "toy-cpu-1t", "toy-cpu-2t"}
    assert (site.out / "index.html").is_file()


def test_its_values_are_those_of_the_records(site: Site) -> None:
    drawn = {str(entry.git.commit): entry.seconds for entry, _ in site.entries[:-1]}
    assert site.graph(LADDER) == drawn
    assert site.graph(KERNELS) == {site.commits[1]: min(site.sample.rounds)}


def test_a_commit_that_is_not_in_it_is_left_out_and_counted(site: Site) -> None:
    assert site.history == (7, 1, None)
    assert "f" * 40 not in site.graph(LADDER)


def test_the_commit_that_made_something_slower_is_named(site: Site) -> None:
    changes = site.read("regressions.json")["regressions"]
    assert {change[0].partition("(")[0] for change in changes} == {NAME, LADDER}
    for change in changes:
        ((_, after, *_),) = change[-1]
        assert site.commit_of[after] == site.commits[3]


def test_results_of_asv_stay_as_they_were(site: Site) -> None:
    kept = site.project / SETTINGS["results_dir"]
    assert list(json.loads((kept / "benchmarks.json").read_text(encoding="utf-8"))) == [
        NAME,
        "version",
    ]
    assert [file.name for file in kept.iterdir() if file.is_dir()] == ["toy"]


@pytest.mark.parametrize("reason", [NO_COMMITS, NO_ASV, NOTHING])
def test_a_site_without_a_history_says_why(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, out = repository(tmp_path / "project"), tmp_path / "site"
    keep_entry(*ladder_entry("f" * 40), project / "results")
    if reason == NO_ASV:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if reason == NO_COMMITS:
        shutil.rmtree(project / ".git")
    assert publish_history(project, out) == (0, int(reason == NOTHING), reason)
    assert reason in (out / "index.html").read_text(encoding="utf-8")
