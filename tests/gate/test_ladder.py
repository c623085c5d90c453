"""Entries of ladders measured in a toy repository, whose package writes the records that its commit
holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_run
from ladder_lines import SPREAD, STEPS

from equivbench.cli.main import main
from equivbench.environment import environment
from equivbench.errors import FailedError, InterruptedRunError, UsageError
from equivbench.execution import subcommand
from equivbench.execution.executors import Callback
from equivbench.gap.ladder_file import LADDER_FILE, keep_entry
from equivbench.gate.ladder import measure_entry
from equivbench.gate.ladder_plan import EntryPlan, plans_of
from equivbench.gate.ladder_request import LadderRequest
from equivbench.records.ladder import LadderEntry
from equivbench.records.submission import review
from equivbench.registry import PAIRS

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

PAIR = "forcefield/vector"
TARGET = PAIRS.get(PAIR).target("equivariant", "small").loss
WHERE = environment("cpu", 2)
PROGRAM = '''
"""Writes the record of a seed that lies beside it, as a run would, and notes that it was asked."""
import json, subprocess, sys
from pathlib import Path

words = sys.argv[1:]
assert words[:2] == ["run", "forcefield/vector"], words
given = dict(zip(words[2::2], words[3::2], strict=True))
tree = Path(__file__).resolve().parents[1]
with open(Path("NOTES").read_text("utf-8"), "a", encoding="utf-8") as notes:
    notes.write(tree.name[0] + given["--seeds"] + " ")
git = ["git", "-C", str(tree), "rev-parse", "HEAD"]
commit = subprocess.run(git, capture_output=True, check=True, encoding="utf-8").stdout.strip()
record = json.loads((tree / "equivbench" / "records.json").read_text("utf-8"))[given["--seeds"]]
record["git"] = {"commit": commit, "dirty": False, "tree": None}
record["model"]["kernels"] = given.get("--kernels", "torch")
EXTRA
file = Path(given["--out"], "machine", "record.json")
file.parent.mkdir(parents=True)
file.write_text(json.dumps(record), "utf-8")
'''


class ToyRepository:
    """A git repository whose package makes runs of the pair at once; the loss is down at the target
    after 400 steps."""

    def __init__(self, root: Path, notes: Path) -> None:
        self.root, self._notes = root, notes
        notes.touch()
        self.git("init", "--quiet")
        (root / "equivbench").mkdir()
        (root / "equivbench" / "__init__.py").touch()
        (root / "pyproject.toml").touch()
        (root / "NOTES").write_text(str(notes), encoding="utf-8")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(self.root), *identity, *arguments],
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout

    @property
    def asked(self) -> list[str]:
        """Which runs were made, in order: ``m0`` is seed 0 of the measured commit, ``b0`` that of
        the one below."""
        return self._notes.read_text(encoding="utf-8").split()

    def commit(self, tau: float, says: str = "A change.", extra: str = "", shift: int = 0) -> str:
        """Commit a package whose steps take ``tau`` seconds, and which does ``extra`` before it
        writes a ``record``."""
        records = {
            seed: make_run(
                "equivariant",
                lambda step: 20.0 * TARGET * step**-0.5,
                STEPS,
                tau=tau * SPREAD[(seed + shift) % len(SPREAD)],
                limit=STEPS[-1] * tau * SPREAD[(seed + shift) % len(SPREAD)],
                seed=seed,
                task="forcefield",
                pair="vector",
                environment=WHERE,
                model={"kernels": "torch"},
            )
            for seed in range(6)
        }
        package = self.root / "equivbench"
        program = PROGRAM.replace("EXTRA", extra)
        (package / "__main__.py").write_text(program, encoding="utf-8")
        (package / "records.json").write_bytes(msgspec.json.encode(records))
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", says)
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    return ToyRepository(root, tmp_path / "notes")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"


def asked_for(out: Path, **given: Any) -> EntryPlan:
    facts = {"arm": "equivariant", "device": "cpu", "threads": 2, "out": out, **given}
    (plan,) = plans_of(LadderRequest.of(pair=PAIR, **facts))
    return plan


def climb(out: Path, **given: Any) -> LadderEntry:
    """Measure an entry and keep it."""
    entry, log = measure_entry(asked_for(out, **given), lambda text: None, Callback())
    keep_entry(entry, log, out)
    return entry


def test_a_faster_commit_is_measured_beside_the_one_below(
    repository: ToyRepository, out: Path
) -> None:
    first = repository.commit(0.1, "The first.")
    start = climb(out)
    assert repository.asked == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert (start.git.commit, start.against, start.change) == (first, None, "The first.")
    assert start.reasons["p"] == "it is the first entry of its ladder"
    assert [each.steps for each in start.times] == pytest.approx([400.0] * 6)
    second = repository.commit(0.05, shift=1)
    plan = asked_for(out, why="Half of a step.")
    assert (plan.measured, plan.against) == ((second, "torch"), (first, "torch"))
    assert plan.runs == 12
    faster = climb(out, why="Half of a step.")
    assert " ".join(repository.asked[6:]) == "m0 b0 b1 m1 m2 b2 b3 m3 m4 b4 b5 m5"
    assert (faster.git.commit, faster.against) == (second, first)
    assert faster.speed_up == pytest.approx(2.0)
    assert faster.p < 1e-6
    assert faster.change == "Half of a step."
    told = LadderRequest.of_command(faster.command)
    assert (told.commit, told.against, told.arms) == (second, first, ("equivariant",))
    # The next one is compared with it, whatever is checked out.
    repository.commit(0.05)
    assert asked_for(out).against == (second, "torch")
    assert [report.problems for report in review([out])] == [[]] * 3
    assert repository.git("worktree", "list").count("\n") == 1


def test_another_backend_of_one_commit_is_measured_beside_the_first(
    repository: ToyRepository, out: Path
) -> None:
    only = repository.commit(0.1)
    climb(out)
    plan = asked_for(out, kernels="fused")
    assert (plan.measured, plan.against) == ((only, "fused"), (only, "torch"))
    entry = climb(out, kernels="fused")
    assert (entry.kernels, entry.against, entry.against_kernels) == ("fused", only, "torch")
    assert entry.speed_up == pytest.approx(1.0)
    told = LadderRequest.of_command(entry.command)
    assert (told.kernels, told.against) == ("fused", f"{only}@torch")
    plan = asked_for(out, kernels="fused", against=told.against)
    assert (plan.measured, plan.against) == ((only, "fused"), (only, "torch"))
    # No faster, so the entry below is still the first, on its own backend.
    assert asked_for(out, kernels="fused").against == (only, "torch")
    assert asked_for(out, kernels="fused", against=only).against == (only, "torch")
    assert [report.problems for report in review([out])] == [[]] * 3
    # What runs on another backend than it was asked to is no measurement of that.
    repository.commit(0.05, extra="record['model']['kernels'] = 'torch'")
    with pytest.raises(FailedError, match="ran on torch, not on fused"):
        climb(out, kernels="fused", against="none")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("sys.exit('error: No such option: --arm')", "failed: No such option: --arm"),
        ("record['dataset']['sha256'] = '1' * 64", "its data set is toy-set (111111111111), not"),
        ("record['rules_version'] = 1", "its rules version is 1, not 2"),
        ("record['environment']['machine_key'] = 'x'", "its machine is x, not"),
        ("record['schema_version'] = 1", "has schema version 1"),
        ("record['git']['commit'] = None", "imported an installed package"),
    ],
)
def test_a_commit_below_that_compares_with_nothing_is_a_reason(
    repository: ToyRepository, out: Path, extra: str, says: str
) -> None:
    old = repository.commit(0.1, extra=extra)
    repository.commit(0.05)
    entry = climb(out, against=old)
    assert (entry.against, entry.p, entry.against_times) == (None, None, [])
    assert entry.reasons["p"] == entry.reasons["against"]
    assert entry.reasons["p"].startswith(f"{old[:12]} is not compared: ")
    assert says in entry.reasons["p"]
    # It is not asked again once it has failed.
    assert sum(each.startswith("b") for each in repository.asked) == 1
    assert [report.problems for report in review([out])] == [[]] * 2


def test_a_commit_that_cannot_be_run_leaves_the_ladder_as_it_was(
    repository: ToyRepository, out: Path
) -> None:
    repository.commit(0.1)
    climb(out)
    repository.commit(0.05, extra="sys.exit('error: it diverged')")
    with pytest.raises(FailedError, match="failed: it diverged"):
        climb(out)
    (file,) = out.glob("*/ladder.jsonl")
    assert len(LADDER_FILE.read(file)) == 1
    assert repository.git("worktree", "list").count("\n") == 1


def test_a_disturbed_run_is_made_once_more(repository: ToyRepository, out: Path) -> None:
    busy = (
        "asked = Path(Path('NOTES').read_text('utf-8')).read_text('utf-8').split()\n"
        "if asked.count(asked[-1]) < LIMIT:\n"
        "    record['machine_share']['steal'] = 0.5\n"
    )
    repository.commit(0.1, extra=busy.replace("LIMIT", "2"))
    entry = climb(out, seeds="0-1")
    assert repository.asked == ["m0", "m0", "m1", "m1"]
    assert len(entry.times) == 2
    repository.commit(0.1, extra=busy.replace("LIMIT", "9"))
    with pytest.raises(FailedError, match=r"seed 0 of \w+: .*hypervisor.*; measure on a quiet"):
        climb(out, against="none", seeds="0-1")


def test_an_interruption_leaves_the_ladder_as_it_was(
    repository: ToyRepository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(0.1)
    real: Callable[..., None] = subcommand.call

    def interrupted(*arguments: Any) -> None:
        if len(repository.asked) == 2:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(subcommand, "call", interrupted)
    with pytest.raises(InterruptedRunError, match="after 2 of 6 runs; the ladder is as it was"):
        climb(out)
    assert not out.exists()
    assert repository.git("worktree", "list").count("\n") == 1


def test_what_makes_no_sense_is_said_before_anything_is_run(
    repository: ToyRepository, out: Path
) -> None:
    first = repository.commit(0.1)
    climb(out)
    for given, says in (
        ({"arm": "frames"}, "has no target loss at small"),
        ({"arm": "nobody"}, "unknown arm"),
        ({"preset": "dev"}, "has no target loss at dev"),
        ({"budget": "100steps"}, "in seconds"),
        ({"seeds": "0,0"}, "each seed once"),
        ({"commit": "nowhere"}, "no revision"),
        ({"against": "nowhere"}, "no revision"),
        ({"against": first}, "compared with itself"),
        ({}, "on top of the ladder"),
        ({"kernels": "fusd"}, "unknown kernel backend 'fusd'"),
        ({"why": "  "}, "one sentence"),
        ({"why": "x" * 301}, "one sentence"),
    ):
        with pytest.raises(UsageError, match=says):
            asked_for(out, **given)
    (repository.root / "pyproject.toml").write_text("changed", encoding="utf-8")
    with pytest.raises(UsageError, match=r"uncommitted changes.*--commit"):
        asked_for(out, against="none")
    # A commit that is named is measured as it is.
    assert asked_for(out, against="none", commit=first).not_compared.startswith("it was asked")


def test_a_commit_below_that_is_not_here_is_a_reason(repository: ToyRepository, out: Path) -> None:
    repository.commit(0.1)
    entry, log = measure_entry(asked_for(out), lambda text: None, Callback())
    entry.git.commit = "f" * 40
    keep_entry(entry, log, out)
    repository.commit(0.05)
    assert "ffffffffffff, is not in this repository" in asked_for(out).not_compared


def test_the_command_appends_and_shows_the_ladder(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    first = repository.commit(0.1, "The first.")
    words = ["ladder", PAIR, "--arm", "equivariant", "--device", "cpu", "--threads", "2"]

    def run(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        return stop.value.code, *capsys.readouterr()

    code, shown, _ = run("--dry-run", "--json")
    (planned,) = json.loads(shown)
    assert (code, planned["runs"], planned["least"]) == (0, 6, 720.0)
    assert not (repository.root / "results").exists()
    code, shown, said = run()
    assert code == 0
    assert "first" in shown
    assert f"forcefield/vector equivariant: seed 0 of {first[:12]} (1 of 6)" in said
    repository.commit(0.05)
    code, shown, _ = run("--json", "--why", "Half of a step.", "--seeds", "0-2")
    (entry,) = json.loads(shown)
    assert (code, entry["against"], len(entry["times"])) == (0, first, 3)
    code, _, said = run("--budget", "5steps")
    assert (code, said.count("\n")) == (2, 1)
