"""What a reproduction gathers, how long it says that takes, and that one piece's failure is nobody
else's."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from claim_evidence import curvature, landscape
from factories import make_record
from running import Bench
from waiting import wait_for

from equivbench.environment import machine_key
from equivbench.errors import FailedError, UsageError
from equivbench.execution.estimates import START_SECONDS, PastRuns, wall_seconds
from equivbench.execution.executors import Callback, KeptRecord, RunResult
from equivbench.execution.local import LocalExecutor
from equivbench.execution.plan import RunPlan, make_plan
from equivbench.execution.state import finished_record, open_state, remember_record
from equivbench.records.store import read_record, write_record
from equivbench.registry import PAIRS
from equivbench.request import RunRequest
from equivbench.studies.claims import reproduction
from equivbench.studies.claims.parts import (
    CLAIMS,
    DEFAULT,
    FULL,
    EvidencePart,
    ReproduceRequest,
    chosen_parts,
    read_claims,
)
from equivbench.studies.claims.reproduction import (
    Reproduction,
    gather,
    make_reproduction,
)
from equivbench.studies.landscape.record import LANDSCAPES
from equivbench.training.job import Job

DECLARED = PAIRS.get("forcefield/vector").seconds["small"]
NOW = datetime(2026, 11, 23, 16, 14, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def expand(**options: object) -> Reproduction:
    return make_reproduction(
        ReproduceRequest(**{"device": "cpu", "threads": 1, **options}), now=NOW
    )


def finish(job: Job, status: str = "completed") -> None:
    """As if ``job`` had been run to its end."""
    open_state(job)
    task, pair = job.pair.split("/")
    reason = None if status == "completed" else "the loss is not finite"
    record = make_record(
        arm=job.arm,
        task=task,
        pair=pair,
        seed=job.seed,
        preset=job.request.preset,
        status=status,
        reason=reason,
    )
    remember_record(
        job, write_record(msgspec.structs.replace(record, run_id=job.run_id), job.request.out)
    )


# --- the parts ---


@pytest.mark.parametrize("parts", [DEFAULT, FULL], ids=["default", "full"])
def test_what_an_analysis_needs_is_trained_for_the_same_claims(
    parts: tuple[EvidencePart, ...],
) -> None:
    declared = {part.pair: part for part in parts if part.as_declared}
    for part in parts:
        base = declared[part.pair]
        assert set(part.claims) <= set(base.claims), part.title
        if part.kind != "runs":
            arms = base.arms or [arm.name for arm in PAIRS.get(part.pair).contestants]
            assert set(part.arms) <= set(arms)
    assert {claim for part in parts for claim in part.claims} == set(CLAIMS)


def test_the_whole_holds_every_built_in_pair_and_every_part_of_the_default() -> None:
    trained = {part.pair for part in FULL if part.as_declared}
    assert trained == {
        name for name, entry in PAIRS.entries().items() if entry.origin == "equivbench"
    }
    declared = {"step", "off_budget", "gradients", "landscape"}
    for name in trained:
        assert set(PAIRS.get(name).seconds["small"]) == declared, "what each takes is known"
    for part in DEFAULT:
        alike = [each for each in FULL if (each.kind, each.pair) == (part.kind, part.pair)]
        assert any(set(part.claims) <= set(each.claims) for each in alike), part.title


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_alone_takes_what_serves_it_and_nothing_else(claim: str) -> None:
    chosen = chosen_parts(DEFAULT, [claim])
    assert chosen
    assert all((claim in part.claims) == (part in chosen) for part in DEFAULT)


def test_claims_are_read_in_any_case_and_unknown_ones_refused() -> None:
    assert read_claims("c5, C1,c5") == ("C5", "C1")
    assert ReproduceRequest.of(claims=None).claims == ()
    with pytest.raises(UsageError, match="unknown claim 'C9'; did you mean"):
        read_claims("C9")
    with pytest.raises(UsageError, match="no claims in"):
        read_claims(" , ")


# --- what is there and how long the rest takes ---


def test_lengths_add_up_and_what_is_finished_takes_no_time() -> None:
    before = expand(claims=("C5",), seeds=(0, 1))
    assert [len(piece.todo) for piece in before.pieces] == [4, 4, 4, 4, 4]
    base, *_, quarter = before.pieces
    # Two seeds of two arms: a start each seed, then budget and what comes on top for each run.
    assert base.seconds == pytest.approx(2 * START_SECONDS + 4 * (60 + DECLARED["off_budget"]))
    assert quarter.seconds == base.seconds
    assert before.seconds == pytest.approx(sum(piece.seconds or 0 for piece in before.pieces))
    assert not before.open_ended
    for job in base.jobs:
        finish(job)
    after = expand(claims=("C5",), seeds=(0, 1, 2))
    assert [len(piece.todo) for piece in after.pieces] == [2, 6, 6, 6, 6]
    assert {job.seed for job in after.pieces[0].todo} == {2}


def lasts(past: PastRuns, plan: RunPlan, todo: list[Job] | None = None) -> float | None:
    return wall_seconds(past.of_contests(plan, todo))


def test_runs_that_are_there_say_how_long_the_next_ones_take() -> None:
    key = machine_key("cpu", 1)
    plan = make_plan(
        RunRequest(pairs=("forcefield/vector",), device="cpu", threads=1, budget="500steps"), NOW
    )
    clock = {"train": 90.0, "data": 10.0, "wall": 130.0}
    like = {
        "task": "forcefield",
        "pair": "vector",
        "environment": {"machine_key": key},
        "clock": clock,
        "steps": 1000,
        "dataset": {"name": "gfn2-small"},
        "budget": {"kind": "steps", "limit": 500.0},
    }
    both = [make_record(arm=arm, **like) for arm in ("equivariant", "augmented")]
    known = START_SECONDS + 2 * (500 * DECLARED["step"] + DECLARED["off_budget"])
    assert lasts(PastRuns(plan), plan) == pytest.approx(known), "as on the machine of results/"
    expected = START_SECONDS + 2 * (500 * 0.1 + 30.0)
    assert lasts(PastRuns(plan, both), plan, plan.jobs) == pytest.approx(expected)
    # Of another budget the pace is the same, what comes beyond it is not.
    longer = {**like, "budget": {"kind": "steps", "limit": 1000.0}}
    others = [make_record(arm=arm, **longer) for arm in ("equivariant", "augmented")]
    beyond = START_SECONDS + 2 * (500 * 0.1 + DECLARED["off_budget"])
    assert lasts(PastRuns(plan, others), plan, plan.jobs) == pytest.approx(beyond)
    # Neither another machine nor another size nor a run that was resumed tells anything, nor one on
    # other data.
    for other in (
        {"environment": {"machine_key": "other"}},
        {"preset": "paper"},
        {"variant": {"sweep": "size"}},
        {"restarts": 1},
        {"dataset": {"name": "gfn2-20k"}},
    ):
        others = [make_record(arm=arm, **{**like, **other}) for arm in ("equivariant", "augmented")]
        assert lasts(PastRuns(plan, others), plan, plan.jobs) == pytest.approx(known)
    assert lasts(PastRuns(plan, both), plan, []) == 0


def test_its_command_asks_for_the_same_again() -> None:
    request = ReproduceRequest(
        preset="dev",
        full=True,
        claims=("C1", "C5"),
        budget="20steps",
        seeds=(0, 4),
        threads=2,
        out="a b",
    )
    words = shlex.split(request.command())
    assert words[:2] == ["equivbench", "reproduce"]
    assert "--full" in words
    words.remove("--full")
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--preset": "dev",
        "--budget": "20steps",
        "--threads": "2",
        "--out": "a b",
        "--claims": "C1,C5",
        "--seeds": "0,4",
    }
    assert ReproduceRequest().command() == "equivbench reproduce"


def test_records_keep_commands_that_a_user_can_repeat() -> None:
    for piece in expand(out="elsewhere").pieces:
        if piece.plan is None:
            continue
        for job in piece.jobs:
            words = shlex.split(job.command)
            assert "elsewhere" not in words
            assert (
                ("--snapshots" in words) == job.request.snapshots == (piece.plan.request.snapshots)
            )
            assert words[1] == "run" if not job.labels else words[1:3] == ["analyze", "sweep"]


# --- gathering ---


class Gathering:
    """Stands in for training and analysing: notes what it is asked for, finishes runs, fails where
    told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.called: list[list[str]] = []
        self.fails: set[str] = set()
        self.diverges: set[str] = set()
        self.interrupt_at: str | None = None
        monkeypatch.setattr(reproduction, "find_executor", lambda name: self)
        monkeypatch.setattr(reproduction, "call", self.call)
        monkeypatch.setattr(reproduction, "last_snapshot", lambda record: 50)

    def resolve(self, plan):
        return LocalExecutor().resolve(plan)

    def run(self, plan, callback) -> RunResult:
        result = RunResult()
        for job in plan.jobs:
            if job.pair == self.interrupt_at:
                result.interrupted = True
                return result
            if job.pair in self.fails:
                result.failures.append(f"{job.title} was killed")
                continue
            if finished_record(job) is None:
                self.trained.append(job.title)
                finish(job, "diverged" if job.pair in self.diverges else "completed")
            path = finished_record(job)
            assert path is not None
            result.kept.append(KeptRecord(read_record(path), path, None))
        return result

    def call(self, words, callback) -> None:
        self.called.append(list(words))
        if words[1] == "landscape" and "flow" in words[2]:
            raise FailedError("no memory")


def test_an_analysis_of_some_weights_is_none_of_others(gathering: Gathering) -> None:
    asked = {"claims": ("C3",), "seeds": (0,), "out": "results"}
    gather(expand(**asked), Callback(), lambda text: None)
    (path,) = Path("results").glob("*/forcefield/vector/augmented/*.json")
    run = read_record(path)
    curvatures = (curvature(5.0), curvature(50.0))
    made = [
        landscape(run, *curvatures, step=run.steps - 1),
        landscape(run, *curvatures, weights="ema", layers="head*"),
    ]
    LANDSCAPES.keep(made, Path("results"))
    left = {
        piece.part.weights: len(piece.todo)
        for piece in expand(**asked).pieces
        if (piece.part.kind, piece.part.pair) == ("landscape", "forcefield/vector")
    }
    assert left == {"annealed": 1, "raw": 0, "ema": 1}


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> Gathering:
    return Gathering(monkeypatch)


def test_every_piece_is_gathered_once_and_analyses_follow_their_runs(gathering: Gathering) -> None:
    said: list[str] = []
    outcome = gather(expand(seeds=(0,)), Callback(), said.append)
    assert len(gathering.trained) == 2 + 2 + 2 + 2 + 1 + 2 + 1
    which = {
        "gradients": 2 * [[], ["--weights", "ema"]],
        # Annealed, raw, averaged.
        "landscape": 3 * [[], ["--step", "50"], ["--step", "50", "--weights", "ema"]],
    }
    assert [(words[:2], words[3:-4]) for words in gathering.called] == [
        (["analyze", kind], options) for kind, each in which.items() for options in each
    ]
    for words in gathering.called:
        assert words[-4:] == ["--device", "cpu", "--out", "results"]
        assert not Path(words[2]).is_absolute(), "a recorded command names no machine's folders"
        assert Path(words[2]).is_file()
    assert [text.split(":")[0] for text in said] == [f"{k} of 20" for k in range(1, 21)]
    assert outcome.failures == [
        f"landscape of flow/vector-head, augmented, first seed, {weights} weights: no memory"
        for weights in ("annealed", "raw", "ema")
    ]
    gathering.trained.clear()
    gather(expand(seeds=(0,)), Callback(), said.append)
    assert gathering.trained == [], "what is finished is not repeated"


def test_a_piece_that_fails_leaves_the_others_alone(gathering: Gathering) -> None:
    gathering.fails.add("voxel/steerable")
    gathering.diverges.add("forcefield/tied-head")
    outcome = gather(expand(seeds=(0,)), Callback(), lambda text: None)
    assert len(gathering.trained) == 2 + 2 + 2 + 1 + 2 + 1
    assert Counter((words[1], words[2].split("/")[-4]) for words in gathering.called) == {
        ("gradients", "forcefield"): 2,
        ("landscape", "forcefield"): 3,
        ("landscape", "flow"): 3,
    }
    assert sum("was killed" in text for text in outcome.failures) == 2
    assert any(
        "voxel/steerable augmented seed 0 has no finished run to analyse" in text
        for text in outcome.failures
    )
    both = [text for text in outcome.failures if "tied-head" in text]
    (diverged,) = [text for text in both if "augmented" in text]
    assert len(both) == 2
    assert "forcefield/tied-head augmented seed 0 diverged: the loss is not finite" in diverged
    again = gather(expand(seeds=(0,)), Callback(), lambda text: None)
    assert diverged in again.failures, "a run that diverged is said every time"


def test_after_an_interruption_nothing_more_begins(gathering: Gathering) -> None:
    gathering.interrupt_at = "flow/vector-head"
    outcome = gather(expand(seeds=(0,)), Callback(), lambda text: None)
    assert outcome.interrupted
    assert {title.split()[0] for title in gathering.trained} == {"forcefield/vector"}
    assert gathering.called == []


def test_a_results_folder_that_cannot_be_written_is_said_before_anything_starts(
    gathering: Gathering,
) -> None:
    Path("file").write_text("")
    with pytest.raises(FailedError, match="cannot be written"):
        gather(expand(out="file/results"), Callback(), lambda text: None)
    assert gathering.trained == []


# --- the real thing, with a toy ---

GATHER = """
from dataclasses import asdict
import json, sys
from equivbench.studies.claims.parts import EvidencePart
from equivbench.studies.claims.reproduction import ReproduceRequest, gather, make_reproduction
from equivbench.execution.executors import Callback
parts = [
    EvidencePart(("C6",), "toy/slow"),
    EvidencePart(("C2",), "toy/plain", ("augmented",), axis="data", values=("0.5",)),
    EvidencePart(("C6",), "toy/slow", ("augmented",), "gradients", weights="raw"),
]
request = ReproduceRequest(preset="dev", budget="400steps", seeds=(0,), device="cpu", threads=1)
before = make_reproduction(request, parts)
outcome = gather(before, Callback(), lambda text: None)
after = make_reproduction(request, parts)
outcome.failures += gather(after, Callback(), lambda text: None).failures
todo = [[len(piece.todo) for piece in each.pieces] for each in (before, after)]
print(json.dumps({"todo": todo, "seconds": [each.seconds for each in (before, after)], **asdict(outcome)}))
"""


@pytest.mark.slow
def test_what_was_killed_goes_on_where_it_was_and_nothing_is_done_twice(bench: Bench) -> None:
    first = bench.start_python("-c", GATHER)
    # Both arms have passed an evaluation, which keeps a snapshot, and the pair's 400 steps are not
    # done.
    wait_for(lambda: bench.hindmost() > 100)
    first.kill()
    first.communicate()
    bench.hurry()
    assert bench.records() == []
    ran = bench.finish(bench.start_python("-c", GATHER))
    assert ran.code == 0, ran.err
    said = json.loads(ran.out.splitlines()[-1])
    assert said["todo"] == [[2, 1, 1], [0, 0, 0]]
    assert said["failures"] == []
    assert not said["interrupted"]
    assert said["seconds"][1] == 0, "what is finished takes no time"
    records = bench.records()
    assert sorted((record["pair"], record["restarts"]) for record in records) == [
        ("plain", 0),
        ("slow", 1),
        ("slow", 1),
    ]
    (analysis,) = bench.results.glob("*/gradients.jsonl")
    (line,) = [
        json.loads(text) for text in analysis.read_text().splitlines()
    ]  # one, though it was gathered twice
    assert [point["step"] for point in line["points"]] == [
        point["step"] for point in records[-1]["trace"]
    ]
    assert str(bench.folder) not in analysis.read_text(), "no machine's folders"
