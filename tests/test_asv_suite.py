"""The asv suite: its settings are ones that asv knows, and no benchmark falls into one of asv's
traps (see docs/trackers.md)."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import asv_records
import pytest
from factories import make_record, make_run, make_test

pytest.importorskip("asv", reason="asv is in the dev extra")
pytest.importorskip("asv_runner", reason="asv_runner is in the dev extra")

from asv.config import Config
from asv.environment import iter_matrix
from asv_runner._aux import SpecificImporter
from asv_runner.discovery import disc_benchmarks

from equivbench.environment import KEPT_MEMORY
from equivbench.gap.efficiency import efficiency_gap

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "benchmarks"
SETTINGS: dict[str, Any] = json.loads((ROOT / "asv.conf.json").read_text())
READ_ELSEWHERE = {"version", "build_cache_size"}
"""Settings that asv reads without declaring them in its Config."""


@pytest.fixture(scope="module")
def suite() -> Iterator[ModuleType]:
    """The package ``benchmarks``, found as asv finds it: by its folder, with nothing else of the
    repository on the path."""
    importer = SpecificImporter("benchmarks", str(ROOT))
    before = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "benchmarks"
    }
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, importer)
    yield importlib.import_module("benchmarks")
    sys.meta_path.remove(importer)
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture(scope="module")
def benchmarks(suite: ModuleType) -> list[Any]:
    """Every benchmark that asv finds."""
    return list(disc_benchmarks(str(SUITE)))


# --- asv.conf.json ---


def test_asv_knows_every_setting() -> None:
    # asv takes a misspelt key without a word and goes on with its default.
    assert set(SETTINGS) <= set(vars(Config())) | READ_ELSEWHERE
    assert set(SETTINGS["matrix"]) <= {"req", "env", "env_nobuild"}
    for pattern, threshold in SETTINGS["regressions_thresholds"].items():
        re.compile(pattern)
        assert 0 < threshold < 1


def test_there_is_one_environment() -> None:
    config = Config.from_json(SETTINGS)
    assert len(list(iter_matrix(config.environment_type, config.pythons, config))) == 1


def test_kernels_are_timed_with_the_memory_of_a_run() -> None:
    wanted = {name: [value] for name, value in KEPT_MEMORY.items()}
    assert SETTINGS["matrix"]["env_nobuild"] == wanted


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings, and /proc")
@pytest.mark.parametrize(("act", "kept"), [("setup_cache", True), ("discover", False)])
def test_so_they_are_in_an_environment_that_asv_sets_nothing_for(
    act: str, kept: bool, tmp_path: Path
) -> None:
    runner = tmp_path / "benchmark.py"
    runner.write_text(
        f"import json, sys\nsys.path.insert(0, {str(ROOT)!r})\nimport benchmarks\n"
        "from equivbench.environment import allocator_settings\n"
        "print(json.dumps([sys.argv[1:], allocator_settings()]))\n",
        encoding="utf-8",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, str(runner), act, "two words"],
        capture_output=True,
        text=True,
        env=clean,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == [[act, "two words"], KEPT_MEMORY if kept else {}]


def test_a_commit_brings_its_own_wheel_and_nothing_else() -> None:
    # asv's defaults would build and reinstall torch for every commit.
    for command in (*SETTINGS["build_command"], *SETTINGS["install_command"]):
        assert "--no-deps" in command


def test_the_environment_holds_what_the_package_needs_at_the_tested_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {
        re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in project["dependencies"]
    }
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    pins = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    required = {
        name.removeprefix("pip+"): versions for name, versions in SETTINGS["matrix"]["req"].items()
    }
    assert needed <= set(required)
    assert required == {name: [pins[name]] for name in required}


# --- every benchmark
# --------------------------------------------------------------------------------------------------


def test_every_module_is_found(benchmarks: list[Any]) -> None:
    # A file whose import fails, or whose methods are misnamed, would vanish without a trace.
    scripts = {"__init__", "harness_overhead", "tracked"}
    assert {benchmark.name.split(".")[0] for benchmark in benchmarks} == {
        file.stem for file in SUITE.glob("*.py")
    } - scripts


def test_identity_and_time_limits_are_set_by_hand(benchmarks: list[Any]) -> None:
    for benchmark in benchmarks:
        # Otherwise the source text is the identity, and a changed comment starts a new history.
        assert benchmark.version_alts == (), benchmark.name
        assert len(benchmark.version) < 10, benchmark.name
        if benchmark.setup_cache_key is not None:
            assert benchmark.setup_cache_timeout is not None, (
                f"{benchmark.name}: asv's own limit of setup_cache is too short"
            )
        if benchmark.type == "track":
            assert benchmark.unit != "unit", benchmark.name


def test_what_only_reads_the_cache_starts_fast() -> None:
    # asv starts a process for every value: importing torch in each would cost more than all
    # measurements.
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import benchmarks.kernels, benchmarks.pairs, benchmarks.timings
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- benchmarks/kernels.py
# --------------------------------------------------------------------------------------------


@pytest.fixture
def kernels(suite: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.kernels")


def test_every_operation_is_timed_where_it_is_provided(kernels: ModuleType) -> None:
    import torch

    from equivbench.errors import UsageError
    from equivbench.kernels.backend import UnsupportedError, backend

    assert {one.operation.name for one in kernels.QUICK} == {
        one.operation.name for one in kernels.CASES
    }
    device = torch.device("cpu")
    # Of each operation the first case: who provides it does not go by its sizes.
    for one in {each.operation.name: each for each in reversed(kernels.QUICK)}.values():
        for name in kernels.PROVIDED:
            provider = backend(name)
            if provider.missing(device) is not None:
                continue
            try:
                provided = bool(provider.build(one.operation, dtype=torch.float32, device=device))
            except (UnsupportedError, UsageError):
                provided = False
            assert provided == (name in kernels.backends_of(one)), (
                f"benchmarks/kernels.py, PROVIDED: {one.name} on {name}"
            )


def test_what_is_compared_has_the_derivatives_of_e3nn(kernels: ModuleType) -> None:
    import torch

    from equivbench.kernels.backend import backend

    device = torch.device("cpu")
    for one in kernels.QUICK:
        if kernels.REFERENCE not in kernels.backends_of(one):
            continue
        kernel = backend(kernels.REFERENCE).build(one.operation, dtype=torch.float32, device=device)
        derivatives = min(one.derivatives, kernel.max_derivatives)
        assert len(kernels.modes_of(one)) == derivatives + 1, one.name


def test_an_absent_backend_is_skipped_and_a_wrong_one_fails(kernels: ModuleType) -> None:
    one, other = kernels.COMPARED[:2]
    values = {one: {"of_reference": 0.5}, other: "absent: no compiler"}
    benchmark = kernels.AgainstE3nn()
    benchmark.setup(values, one)
    assert benchmark.track_time_ratio(values, one) == 0.5
    with pytest.raises(NotImplementedError, match="no compiler"):
        benchmark.setup(values, other)
    values[other] = "it is wrong and not timed"
    benchmark.setup(values, other)
    with pytest.raises(RuntimeError, match="wrong and not timed"):
        benchmark.track_time_ratio(values, other)


def test_ratios_and_refusals_of_a_comparison(kernels: ModuleType) -> None:
    comparing = importlib.import_module("equivbench.kernels.comparing")
    one = kernels.QUICK[0]
    comparison = comparing.BackendComparison(one, "forward")
    times = {kernels.REFERENCE: [2.0, 2.0, 4.0], "torch": [1.0, 3.0, 1.0]}
    comparison.samples += [
        SimpleNamespace(backend=name, rounds=rounds) for name, rounds in times.items()
    ]
    comparison.refusals += [
        comparing.Refusal(one.name, "forward", "wrong", "wrong", "wrong is wrong"),
        comparing.Refusal(one.name, "forward", "gone", "absent", "gone is not here"),
        comparing.Refusal(
            one.name, "forward", "narrow", "unsupported", "narrow has no convolution"
        ),
    ]
    assert kernels.values_of(comparison) == {
        f"{one.name}/forward/torch": {"of_reference": 0.5},
        f"{one.name}/forward/wrong": "wrong is wrong",
        f"{one.name}/forward/gone": "absent: gone is not here",
    }
    comparison.samples[1].rounds[:] = [math.nan] * 3
    with pytest.raises(ValueError, match="no positive number"):
        kernels.values_of(comparison)
    del comparison.samples[0]
    assert "not timed" in kernels.values_of(comparison)[f"{one.name}/forward/torch"]


# --- benchmarks/timings.py
# ------------------------------------------------------------------------------------------


@pytest.fixture
def timings(suite: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.timings")


def test_the_list_is_the_gates(timings: ModuleType) -> None:
    from equivbench.gate.benchmarks import benchmarks

    tracked = [
        name
        for kind in (timings.Harness, timings.Kernels, timings.Training)
        for name in kind.params
    ]
    assert sorted(tracked) == sorted(each.name for each in benchmarks() if not each.control)


def test_each_kind_is_measured_by_itself(benchmarks: list[Any]) -> None:
    # asv tells a setup_cache by the line that it is on: one that was inherited would be shared.
    keys = {
        benchmark.name.split(".")[1]: benchmark.setup_cache_key
        for benchmark in benchmarks
        if benchmark.name.startswith("timings.")
    }
    assert len(set(keys.values())) == len(keys) == 3


def test_a_benchmark_that_is_broken_or_absent_hides_no_other(timings: ModuleType) -> None:
    from equivbench.gate.benchmarks import AbsentBenchmark, Benchmark, Workload

    def of(result: float | Exception) -> Any:
        def build() -> Workload:
            if isinstance(result, Exception):
                raise result
            return Workload(lambda: None, timer=lambda: result)

        return build

    values = timings.timed(
        [
            Benchmark("right", of(0.5)),
            Benchmark("absent", of(AbsentBenchmark("no compiler"))),
            Benchmark("broken", of(ValueError("no data"))),
            Benchmark("impossible", of(math.nan)),
        ]
    )
    assert values["right"] == {"seconds": 0.5}
    assert values["absent"] == "absent: no compiler"
    assert values["broken"] == "ValueError: no data"
    assert "no positive number" in values["impossible"]
    with pytest.raises(NotImplementedError):
        timings.Harness().setup(values, "absent")
    with pytest.raises(RuntimeError, match="no data"):
        timings.Harness().track_seconds(values, "broken")


# --- benchmarks/pairs.py
# ----------------------------------------------------------------------------------------------

PAIR = "forcefield/vector"


@pytest.fixture
def pairs(suite: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.pairs")


def run_of(arm: str, total: float, seconds: float, share: float) -> Any:
    return make_record(
        task="forcefield",
        pair="vector",
        arm=arm,
        recipe={"batch_size": 4},
        throughput={"step_seconds": {"p10": seconds, "p50": 2 * seconds, "p90": 3 * seconds}},
        final=make_test(total, share),
    )


def values_of_both(pairs: ModuleType) -> Any:
    records = [run_of("equivariant", 0.5, 0.8, -1e-15), run_of("augmented", 2.0, 0.2, 0.25)]
    return {f"{PAIR}/{record.arm}": pairs.values_of(record) for record in records}


def test_a_record_becomes_positive_floats(pairs: ModuleType) -> None:
    values = values_of_both(pairs)
    arms, contests = pairs.Arms(), pairs.Pairs()
    assert arms.track_test_loss(values, f"{PAIR}/equivariant") == 0.5
    assert arms.track_seconds_per_sample(values, f"{PAIR}/augmented") == 0.2 / 4
    assert arms.track_equivariance_error(values, f"{PAIR}/augmented") == 0.25
    # What rounding leaves of an exact symmetry, below zero by chance here, is shown as the floor.
    assert arms.track_equivariance_error(values, f"{PAIR}/equivariant") == pairs.EQUIVARIANCE_FLOOR
    assert contests.track_loss_ratio(values, PAIR) == 0.25
    assert contests.track_step_time_ratio(values, PAIR) == 4.0


@pytest.mark.parametrize("total", [math.nan, math.inf, 0.0, -1.0])
def test_an_impossible_value_is_an_error(pairs: ModuleType, total: float) -> None:
    with pytest.raises(ValueError, match="test_loss of forcefield/vector/augmented"):
        pairs.values_of(run_of("augmented", total, 0.2, 0.25))


def test_a_run_without_an_end_is_an_error(pairs: ModuleType) -> None:
    record = make_record(arm="augmented", status="diverged", reason="the loss is nan", final=None)
    with pytest.raises(ValueError, match="is diverged: the loss is nan"):
        pairs.values_of(record)


@pytest.mark.slow
def test_a_pair_is_trained_and_tracked(
    pairs: ModuleType, monkeypatch: pytest.MonkeyPatch, warm_workers: None
) -> None:
    monkeypatch.setenv(
        "EQUIVBENCH_CACHE", "elsewhere"
    )  # `measured` sets one of its own; this puts the old one back
    values = pairs.measured(PAIR)
    arms, rungs = (
        [f"{PAIR}/{each}" for each in names]
        for names in (("equivariant", "augmented"), pairs.PARTS)
    )
    assert values.keys() == {f"{PAIR}/tie", *arms, *rungs}
    assert pairs.Pairs().track_loss_ratio(values, PAIR) > 0
    assert pairs.Ties().track_steps_at_break_even(values, f"{PAIR}/tie") > 0
    assert all(pairs.Rungs().track_loss_ratio(values, each) > 0 for each in rungs)
    # The target lies between the losses of half and of the whole budget when it was set.
    assert all(15 < pairs.Targets().track_steps_to_target(values, each) <= 60 for each in arms)
    assert (
        pairs.Arms().track_equivariance_error(values, f"{PAIR}/equivariant")
        == pairs.EQUIVARIANCE_FLOOR
    )


def test_the_arms_are_compared_at_rungs_and_where_they_tie(pairs: ModuleType) -> None:
    # Losses 8 n^-1/2 and 16 n^-1/2 after n of 64 steps: the first is down at the second's end,
    # 2, after a quarter of them; its steps take twice as long.
    records = [
        make_run(
            arm,
            lambda step, scale=scale: scale * step**-0.5,
            [16, 32, 64],
            tau=tau,
            limit=64,
            task="forcefield",
            pair="vector",
            budget={"kind": "steps", "spent": 64, "overshoot": 0},
        )
        for arm, scale, tau in (("equivariant", 8.0, 0.2), ("augmented", 16.0, 0.1))
    ]
    values = pairs.compared(PAIR, records)
    ties, tie = pairs.Ties(), f"{PAIR}/tie"
    assert ties.track_steps_at_break_even(values, tie) == pytest.approx(0.25)
    assert ties.track_time_at_break_even(values, tie) == pytest.approx(0.5)
    for part in pairs.PARTS:
        assert pairs.Rungs().track_loss_ratio(values, f"{PAIR}/{part}") == pytest.approx(0.5)
    # The other way round the augmented arm is in front, and the number is one over its own.
    swapped = {"equivariant": "augmented", "augmented": "equivariant"}
    for record in records:
        record.arm = swapped[record.arm]
    turned = pairs.compared(PAIR, records)
    assert ties.track_steps_at_break_even(turned, tie) == pytest.approx(4.0)
    assert ties.track_time_at_break_even(turned, tie) == pytest.approx(2.0)
    ties.setup(turned, tie)
    # What is made of records beside it is the same.
    (gap,) = efficiency_gap(records)
    both = (gap.sample_efficiency, gap.sample_efficiency_augmented)
    assert asv_records.tie(*both) == ties.track_steps_at_break_even(turned, tie)
    assert asv_records.tie(*both[::-1]) == pytest.approx(0.25)
    # Where one is below all of the other there is nothing to track, which is no failure.
    far = [
        records[0],
        make_run("augmented", lambda step: 99.0, [16, 32, 64], tau=0.1, task="forcefield"),
    ]
    far[0].arm, far[1].pair, far[1].budget = "equivariant", "vector", far[0].budget
    with pytest.raises(NotImplementedError, match="below all rungs"):
        ties.setup(pairs.compared(PAIR, far), tie)
    (gap,) = efficiency_gap(far)
    assert asv_records.tie(gap.sample_efficiency, gap.sample_efficiency_augmented) is None


def test_the_steps_to_a_target_follow_from_the_rungs(
    pairs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_run(
        "augmented",
        lambda step: 8 * step**-0.5,
        [16, 32, 64],
        tau=0.1,
        task="forcefield",
        pair="vector",
    )
    name = f"{PAIR}/augmented"
    monkeypatch.setitem(pairs.TARGETS, name, 8 * 40**-0.5)
    values = {name: pairs.values_of(record)}
    assert pairs.Targets().track_steps_to_target(values, name) == pytest.approx(40.0)
    monkeypatch.setitem(pairs.TARGETS, name, 8 * 65**-0.5)
    values = {name: pairs.values_of(record)}
    with pytest.raises(RuntimeError, match=r"steps_to_target of .* was not measured"):
        pairs.Targets().track_steps_to_target(values, name)
    assert pairs.Arms().track_test_loss(values, name) == 1.0


def test_a_pair_that_was_not_measured_fails_alone(pairs: ModuleType) -> None:
    values = values_of_both(pairs)
    values["flow/frames/equivariant"] = values["flow/frames/augmented"] = "no data"
    with pytest.raises(RuntimeError, match="no data"):
        pairs.Arms().track_test_loss(values, "flow/frames/augmented")
    with pytest.raises(RuntimeError, match="no data"):
        pairs.Pairs().track_loss_ratio(values, "flow/frames")
    assert pairs.Pairs().track_loss_ratio(values, PAIR) > 0
