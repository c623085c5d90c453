"""What a request expands to, and which requests are refused before anything is trained."""

from __future__ import annotations

import contextlib
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from factories import make_record
from toy_kernels import registered, right

from equivbench import environment
from equivbench.cli.main import main
from equivbench.errors import FailedError, UsageError
from equivbench.execution.estimates import START_SECONDS, estimated_seconds, wall_seconds
from equivbench.execution.executors import find_executor
from equivbench.execution.plan import Machine, extension, make_plan, resolve_device, this_machine
from equivbench.execution.state import (
    finished_record,
    on_machines,
    open_state,
    read_state,
    remember_record,
)
from equivbench.records.store import write_record
from equivbench.registry import KERNEL_BACKENDS, MODELS, PAIRS, register_kernel_backend
from equivbench.request import QUICK_START_PAIR, RunRequest

NOW = datetime(2026, 11, 23, 16, 14, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))


def planned(request, now=NOW):
    return find_executor(request.executor).resolve(make_plan(request, now))


def jobs(**request):
    return planned(RunRequest(**{"device": "cpu", "threads": 1, **request})).jobs


def test_by_default_both_arms_of_the_quick_start_pair_with_one_seed():
    plan = make_plan(RunRequest(), NOW)
    assert [(job.pair, job.arm, job.seed, job.request.preset) for job in plan.jobs] == [
        (QUICK_START_PAIR, "equivariant", 0, "small"),
        (QUICK_START_PAIR, "augmented", 0, "small"),
    ]
    assert len({job.budget for job in plan.jobs}) == 1


def test_data_that_are_not_there_yet_are_missed_before_anything_is_planned():
    with pytest.raises(FailedError, match="yet; run `equivbench data prepare gfn2-20k`"):
        jobs(dataset="gfn2-20k")


def test_every_pair_meets_every_seed_once_however_often_it_is_named():
    found = jobs(pairs=(QUICK_START_PAIR, QUICK_START_PAIR), seeds=(3, 1, 3))
    assert [(job.seed, job.arm) for job in found] == [
        (3, "equivariant"),
        (3, "augmented"),
        (1, "equivariant"),
        (1, "augmented"),
    ]


def test_a_run_id_says_preset_budget_seed_options_and_its_contest():
    (job, other), again = jobs(budget="60s"), jobs(budget="60s")[0]
    assert job.run_id == other.run_id == f"small-60s-seed0-{job.contest}"
    assert re.fullmatch("20261123T161400Z-[0-9a-f]{8}", job.contest)
    assert job.run_id != again.run_id, "two runs of one second have two names"
    direct = jobs(budget="60s", forces="conservative")[0]
    assert direct.run_id == f"small-60s-seed0-conservative-{direct.contest}"
    assert direct.variant == {"forces": "conservative"}
    larger = jobs(budget="60s", forces="conservative", dataset="gfn2-hotter")[0]
    assert larger.run_id == f"small-60s-seed0-conservative-gfn2-hotter-{larger.contest}"


def test_runs_share_state_exactly_if_they_are_the_same_run():
    base = {"budget": "60s", "out": "here"}
    same = jobs(**base)[0].state_dir
    assert jobs(**base, resume=True)[0].state_dir == same
    assert jobs(**base, forces="direct")[0].state_dir == same
    assert jobs(**{**base, "budget": "1min"})[0].state_dir == same
    others = [
        {"seeds": (1,)},
        {"budget": "61s"},
        {"out": "there"},
        {"threads": 2},
        {"preset": "dev"},
        {"forces": "conservative"},
        {"dataset": "gfn2-hotter"},
    ]
    folders = {jobs(**{**base, **other})[0].state_dir for other in others} | {  # type: ignore[dict-item]
        same,
        jobs(**base)[1].state_dir,
    }
    assert len(folders) == len(others) + 2


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"pairs": ("forcefield/vectr",)}, "forcefield/vector"),
        ({"arms": ("equivarant",)}, "equivariant"),
        ({"preset": "smal"}, "small"),
        ({"dataset": "gfn2-smal"}, "gfn2-small"),
        ({"dataset": "ca-small"}, "the task flow; forcefield/vector takes one of .*gfn2-20k"),
        (
            {"dataset": "crystals"},
            r"a test set, .*; forcefield/vector takes one of (?!.*crystals).*gfn2-20k",
        ),
        ({"kernels": "troch"}, "torch"),
        (
            {"kernels": "fused", "pairs": ("forcefield/tied-head",)},
            "no chosen arm of forcefield/tied-head",
        ),
        (
            {"kernels": "fused", "pairs": ("forcefield/tensor-product",), "arms": ("augmented",)},
            "no chosen arm",
        ),
        (
            {"kernels": "e3nn"},
            "e3nn: painn of forcefield/vector .* 'painn-message'; choose among torch, fused",
        ),
        (
            {"kernels": "sphericart", "pairs": ("forcefield/tensor-product",)},
            "sphericart does not do 'convolution'; choose among",
        ),
        (
            {
                "kernels": "e3nn-compiled",
                "pairs": ("forcefield/tensor-product",),
                "forces": "conservative",
            },
            "--kernels e3nn-compiled: e3nn-compiled has no second derivatives",
        ),
        ({"forces": "conservativ"}, "conservative"),
        (
            {"forces": "conservative", "pairs": ("forcefield/vector", "voxel/octahedral")},
            "--forces is no option of voxel; leave it out",
        ),
        ({"precision": "bf61"}, "bf16"),
        ({"arms": ("equigrad",)}, "'equigrad' is for conservative forces .* --forces conservative"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"budget": "0s"}, "positive"),
        ({"budget": "-5steps"}, "budget"),
        ({"budget": "nans"}, "budget"),
        ({"budget": "1e9h"}, "30 days"),
        ({"budget": "sixty"}, "60s"),
        ({"seeds": ()}, "seed"),
        ({"seeds": (-1,)}, "seed"),
        ({"seeds": (2**31,)}, "seed"),
        ({"extend": 1.0}, "extend"),
        ({"extend": float("nan")}, "extend"),
        ({"rungs": -1}, "--rungs must be between 0 and 20"),
        ({"rungs": 21}, "--rungs must be between 0 and 20"),
        ({"extend": 2.0, "arms": ("equivariant",)}, "two arms"),
        ({"budget": "29h", "extend": 1000.0}, "30 days"),
        ({"threads": 0}, "threads"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_that_names_it(request_, says):
    with pytest.raises(UsageError, match=says):
        planned(RunRequest(**{"device": "cpu", **request_}))


@pytest.mark.usefixtures("processor_with_bfloat16")
def test_a_precision_goes_to_every_arm_and_sets_the_runs_apart():
    for job in jobs(budget="60s", precision="bf16", forces="conservative"):
        assert job.run_id == f"small-60s-seed0-conservative-bf16-{job.contest}"
        assert (job.recipe, job.labels) == ({"precision": "bf16"}, {"precision": "bf16"})
    # The preset's own is named, and changes nothing.
    for job in jobs(budget="60s", precision="float32"):
        assert job.run_id == f"small-60s-seed0-float32-{job.contest}"
        assert (job.recipe, job.labels) == ({}, {})


@pytest.mark.parametrize(
    ("flags", "precision", "says"),
    [
        ("fpu avx512f avx512_bf16", "bf16", None),
        ("fp asimd bf16", "bf16", None),
        ("fpu avx2", "bf16", "no arithmetic in bfloat16"),
        ("fpu avx2", "float32", None),
        (None, "bf16", None),
        ("fpu avx512_bf16", "tf32", "arithmetic of GPUs"),
    ],
)
def test_a_processor_is_asked_for_arithmetic_that_it_has(monkeypatch, flags, precision, says):
    monkeypatch.setattr(environment, "_cpuinfo", lambda key: flags if key == "flags" else None)
    request = RunRequest(device="cpu", threads=1, precision=precision)
    if says is None:
        assert this_machine(request).device == "cpu"
    else:
        with pytest.raises(FailedError, match=f"--precision {precision}: .*{says}"):
            this_machine(request)


def test_a_record_says_what_was_run_and_not_where_it_went():
    assert (
        jobs(budget="60s", out="/somebody/results")[0].command
        == "equivbench run --budget 60s --device cpu --threads 1"
    )


def test_a_plan_names_the_smaller_budgets_that_are_measured_on_the_way():
    def rungs(**request):
        (contest,) = make_plan(RunRequest(**request), NOW).contests
        return [each.text for each in contest.rungs]

    assert rungs(budget="8steps", rungs=2) == ["2steps", "4steps"]
    assert rungs(budget="8steps", rungs=20) == ["1steps", "2steps", "4steps"]
    assert rungs(budget="8s", rungs=0) == []
    assert len(rungs()) == PAIRS.get(QUICK_START_PAIR).presets["small"].rungs


def test_a_kernel_backend_goes_to_the_arms_that_take_one_and_into_the_run_id():
    tensor_product = {"pairs": ("forcefield/tensor-product",), "budget": "60s"}
    equivariant, augmented = jobs(**tensor_product, kernels="fused")
    assert (equivariant.kernels, augmented.kernels) == ("fused", None)
    assert equivariant.run_id == f"small-60s-seed0-fused-{equivariant.contest}"
    plain, torch = jobs(**tensor_product), jobs(**tensor_product, kernels="torch")
    assert [job.state_dir for job in torch] == [job.state_dir for job in plain]
    assert equivariant.state_dir != plain[0].state_dir


def test_a_kernel_backend_goes_to_both_arms_where_both_take_one():
    both = jobs(pairs=(QUICK_START_PAIR,), budget="60s", kernels="fused")
    assert [job.kernels for job in both] == ["fused", "fused"]


def test_a_kernel_backend_that_cannot_be_here_is_a_failure_that_says_why():
    with pytest.raises(FailedError, match="openequivariance runs on cuda only"):
        jobs(pairs=("forcefield/tensor-product",), kernels="openequivariance")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_backend_without_the_operations_of_a_network_is_refused_before_anything_is_written(
    dry, tmp_path, capsys
):
    out = tmp_path / "results"
    with pytest.raises(SystemExit) as stop:
        main(["run", QUICK_START_PAIR, "--kernels", "e3nn", "--out", str(out), *dry])
    assert stop.value.code == 2
    assert "--kernels e3nn" in capsys.readouterr().err
    assert not out.exists()


TAKING_KERNELS = [
    name
    for name, entry in PAIRS.without_plugins().items()
    if any(MODELS.get(arm.model).kernels for arm in entry.value.contestants)
]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", KERNEL_BACKENDS.without_plugins())
@pytest.mark.parametrize("pair", TAKING_KERNELS)
def test_what_a_backend_does_on_that_kind_of_device_is_known_as_a_run_is_planned(
    monkeypatch, pair, name, kind
):
    """Of every operation that a network takes, on every backend."""
    # There may be no such device here.
    monkeypatch.setattr("equivbench.execution.plan.machine_key", lambda *_: "toy")
    backend = KERNEL_BACKENDS.get(name)
    taken = {
        operation
        for arm in PAIRS.get(pair).contestants
        if MODELS.get(arm.model).kernels
        for operation in MODELS.get(arm.model).operations
    }
    anywhere = taken <= set(backend.operations)
    # One that is for no such device is refused with another sentence, by who has the machine.
    there = taken <= backend.operations_on(kind) if kind in backend.devices else anywhere

    for device in (kind, "auto"):
        says = f"--kernels {name}: .*; (choose among|none here)"
        refused = contextlib.nullcontext() if there else pytest.raises(UsageError, match=says)
        with refused:
            plan = make_plan(RunRequest(pairs=(pair,), kernels=name, device=device), NOW)
            on_machines(plan, [Machine(kind, 1)])


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_backend_that_lacks_an_operation_on_a_gpu_is_refused_before_anything_is_written(
    dry, tmp_path, capsys
):
    out = tmp_path / "results"
    register = register_kernel_backend(
        "mine",
        summary="for a test",
        operations=["painn-message"],
        cpu_operations=["painn-message"],
    )
    asked = ["run", QUICK_START_PAIR, "--kernels", "mine", "--device", "cuda", "--out", str(out)]
    with registered():
        register(lambda: None)
        with pytest.raises(SystemExit) as stop:
            main([*asked, *dry])
        assert [job.kernels for job in jobs(kernels="mine")] == ["mine", "mine"]
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "mine does not do 'painn-message' on a GPU; choose among torch" in said
    assert not out.exists()


def test_a_backend_that_does_not_say_what_it_does_is_left_to_the_network():
    with registered(mine=right):
        assert [job.kernels for job in jobs(kernels="mine")] == ["mine", "mine"]


def test_seeds_of_the_command_line():
    def chosen(seeds, n_seeds):
        return RunRequest.of(seeds=seeds, n_seeds=n_seeds).chosen_seeds

    assert chosen(None, None) == (0,)
    assert chosen("2,0,1", None) == (2, 0, 1)
    assert chosen("0-5", None) == (0, 1, 2, 3, 4, 5)
    assert chosen("7,0-2", None) == (7, 0, 1, 2)
    assert chosen(None, 3) == (0, 1, 2)
    for seeds, count in (("0", 2), ("a", None), ("", None), (None, 0), (None, -1), ("2-1", None)):
        with pytest.raises(UsageError):
            chosen(seeds, count)


def test_the_resume_command_asks_for_the_same_plan():
    request = RunRequest(
        pairs=(QUICK_START_PAIR,),
        budget="60s",
        seeds=(0, 2),
        threads=1,
        forces="conservative",
        extend=4,
        out="a b",
    )
    words = shlex.split(request.resuming().command())
    assert words[:3] == ["equivbench", "run", QUICK_START_PAIR]
    assert words[-1] == "--resume"
    assert words[words.index("--seeds") + 1] == "0,2"
    assert words[words.index("--out") + 1] == "a b"
    assert words[words.index("--extend") + 1] == "4"


def test_an_extension_is_a_run_of_its_own_from_the_same_state():
    job = jobs(budget="60s")[0]
    longer = extension(job, 2.5)
    assert (longer.budget, longer.extends, longer.request.resume) == ("150s", "60s", True)
    assert longer.run_id == job.run_id + "-extended-150s"
    assert longer.state_dir == job.state_dir


def test_a_resumed_job_takes_over_its_run_and_contest_and_a_fresh_one_starts_over(tmp_path):
    first = jobs()[0]
    open_state(first)
    (Path(first.state_dir) / "weights").write_text("x")
    (Path(first.state_dir) / "weights.123.partial").write_text(
        "left by a kill in the middle of a write"
    )
    next_year = datetime(2027, 1, 1, tzinfo=UTC)
    later = planned(RunRequest(device="cpu", threads=1, resume=True), next_year).jobs[0]
    begun = (first.run_id, first.created, first.contest)
    assert (later.run_id, later.created, later.contest) == begun
    open_state(later)
    assert (Path(first.state_dir) / "weights").exists()
    assert not list(Path(first.state_dir).glob("*.partial"))
    fresh = planned(RunRequest(device="cpu", threads=1), next_year).jobs[0]
    open_state(fresh)
    assert not (Path(first.state_dir) / "weights").exists()
    assert read_state(fresh.state_dir).run_id == fresh.run_id != first.run_id
    assert read_state(fresh.state_dir).contest == fresh.contest != first.contest


def test_only_a_record_that_came_to_its_end_and_is_still_there_counts_as_finished(tmp_path):
    job = jobs()[0]
    open_state(job)
    assert finished_record(job) is None
    interrupted = write_record(
        make_record(status="interrupted", reason="stopped"), tmp_path / "interrupted"
    )
    remember_record(job, interrupted)
    assert finished_record(job) is None
    path = write_record(make_record(), tmp_path / "completed")
    remember_record(job, path)
    assert finished_record(job) == path
    path.write_bytes(path.read_bytes()[:100])
    assert finished_record(job) is None
    path.unlink()
    assert finished_record(job) is None


def test_the_estimate_knows_seconds_and_what_pairs_declare(tmp_path):
    def of(**request):
        return estimated_seconds(make_plan(RunRequest(**request, out=str(tmp_path)), NOW))

    assert of(budget="60s") > 120
    assert of(budget="60steps", preset="dev") is None
    declared = PAIRS.get("forcefield/vector").seconds["small"]
    each = 1000 * declared["step"] + declared["off_budget"]
    assert of(budget="1000steps", device="cpu", threads=1) == pytest.approx(
        START_SECONDS + 2 * each
    )


def test_contests_are_taken_one_after_the_other_by_as_many_workers_as_there_are():
    assert wall_seconds([10.0, 20.0, 30.0]) == 60.0
    assert wall_seconds([10.0, 20.0, 30.0], 2) == 40.0
    assert wall_seconds([10.0, 20.0, 30.0], 9) == 30.0
    # Of device seconds several devices take as many at a time.
    assert wall_seconds([10.0, 20.0, 30.0], 2, 4) == 10.0
    assert wall_seconds([10.0, None], 2) is None
    assert wall_seconds([]) == 0.0


def test_a_machine_without_a_driver_runs_on_its_cpu(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    if not Path("/dev/nvidiactl").exists():
        assert resolve_device("auto") == "cpu"
