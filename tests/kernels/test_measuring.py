"""What is timed is right, or it is refused: every kind of wrong kernel, every time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
import torch
import toy_kernels as bad
from toy_kernels import MANY_EDGES, TOY, registered, right

from equivbench.errors import FailedError, UsageError
from equivbench.kernels import measuring
from equivbench.kernels.backend import Kernel, UnsupportedError
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.measuring import AbsentError, Prepared, prepare
from equivbench.kernels.timing import Timer
from equivbench.specs import MODES

CACHE = 20_000
"""Bytes that tests take for the cache: a few slots of the toy pass it."""


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: CACHE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [right, bad.transposed])
def test_a_right_kernel_is_timed_in_any_layout(mode, kernel):
    with registered(mine=kernel):
        prepared = prepare(TOY, mode, "mine")
    assert prepared.round(0.02) > 0
    by = ("x", "harmonics", "weights")
    names = ["output", *(f"gradient {name}" for name in by)]
    names += [f"second {name}" for name in (*by, "cotangent")]
    count = {"forward": 1, "backward": 4, "double_backward": 8}[mode]
    assert list(prepared.errors) == names[:count] + ["tangent"] * (mode != "forward")
    # Sums of 60 products in float32 against float64, for some thousand numbers.
    assert max(prepared.errors.values()) < 2e-6
    assert prepared.compile_seconds == 0.0


def test_in_float64_errors_are_those_of_float64():
    with registered(mine=right):
        assert (
            max(prepare(TOY, "double_backward", "mine", dtype=torch.float64).errors.values())
            < 1e-14
        )


WRONG_EVERYWHERE = (
    bad.wrong_sign,
    bad.dropped_edge,
    bad.contiguous_only,
    bad.remembers_by_address,
    bad.writes_into_inputs,
    bad.writes_into_indices,
    bad.asynchronous,
    bad.lazy,
    bad.not_a_number,
    bad.rounded,
)
WRONG_GRADIENTS = (
    bad.skipped_backward,
    bad.zero_backward,
    bad.no_backward_at_all,
    bad.contiguous_cotangent_only,
)
WRONG_SECONDS = (bad.zero_second_derivative,)
WRONG_TANGENTS = (bad.zero_tangent, bad.no_tangent)


@pytest.mark.parametrize(
    ("mode", "kernel"),
    [
        *itertools.product(MODES, WRONG_EVERYWHERE),
        *itertools.product(MODES[1:], WRONG_GRADIENTS),
        *itertools.product(MODES[2:], WRONG_SECONDS),
        *itertools.product(MODES[1:], WRONG_TANGENTS),
        ("forward", bad.first_output),
        ("forward", bad.other_precision),
        ("forward", bad.wrong_shape),
    ],
)
def test_a_wrong_kernel_is_refused(mode, kernel):
    with (
        registered(mine=kernel),
        pytest.raises(
            WrongKernelError, match=rf"mine on toy \({mode}\) is wrong and not timed: \w"
        ),
    ):
        prepare(TOY, mode, "mine")


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize(
    "kernel", [bad.first_output, bad.other_precision, bad.wrong_shape, bad.raises_an_error]
)
def test_a_kernel_that_autograd_stumbles_over_is_refused(mode, kernel):
    with registered(mine=kernel), pytest.raises(FailedError, match=rf"mine on toy \({mode}\)"):
        prepare(TOY, mode, "mine")


def test_a_gradient_that_cannot_be_differentiated_is_refused():
    with registered(mine=bad.missing_second_derivative):
        prepare(TOY, "backward", "mine")
        with pytest.raises(FailedError, match="double_backward"):
            prepare(TOY, "double_backward", "mine")


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_kernel_without_a_rule_for_forward_mode_is_timed_all_the_same(mode):
    with registered(mine=bad.no_forward_mode):
        prepared = prepare(TOY, mode, "mine")
    assert "tangent" not in prepared.errors


@pytest.mark.parametrize("mode", MODES)
def test_one_dropped_edge_of_ten_thousand_is_seen(mode):
    with registered(mine=bad.dropped_edge), pytest.raises(WrongKernelError):
        prepare(
            MANY_EDGES, mode, "mine", dtype=torch.bfloat16 if mode == "forward" else torch.float32
        )


def turns_bad(calls: int) -> Callable[..., Callable[..., torch.Tensor]]:
    """Right for so many calls, then half of it."""

    def change(operation):
        run, count = right(operation), itertools.count()
        return lambda inputs: run(inputs) * (1.0 if next(count) < calls else 0.5)

    return change


def test_results_of_timed_calls_are_checked_too():
    with registered(mine=turns_bad(12)):
        prepared = prepare(TOY, "forward", "mine")
        with pytest.raises(WrongKernelError, match="output is off by"):
            for _ in range(3):
                prepared.round(0.02)


def test_results_of_calls_under_another_clock_are_checked_too():
    with registered(mine=turns_bad(12)):
        prepared = prepare(TOY, "forward", "mine")
        for _ in range(12):
            prepared.once()
        with pytest.raises(
            WrongKernelError,
            match=r"^mine on toy \(forward\) is wrong and not timed: output is off by",
        ):
            prepared.verify()


def test_calls_rotate_past_the_cache_and_meet_new_numbers():
    seen: list[tuple[int, float]] = []

    def watched(operation):
        run = right(operation)

        def noted(inputs):
            seen.append((inputs["weights"].data_ptr(), float(inputs["weights"][0, 0])))
            return run(inputs)

        return noted

    with registered(mine=watched):
        prepared = prepare(TOY, "forward", "mine")
        seen.clear()
        rounds = 0
        # A busy machine has time for a few calls a round only.
        while len(seen) < 40:
            prepared.round(0.02)
            rounds += 1
    numbers: dict[int, list[float]] = {}
    for address, number in seen:
        numbers.setdefault(address, []).append(number)
    own = 4 * (12 * TOY.operation.source_size + 60 * (4 + TOY.operation.weight_size))  # type: ignore[attr-defined]
    assert len(numbers) * own >= 2 * CACHE
    # The one check a round, off the clock, is of an instance drawn at random, which may be the one
    # that was there.
    again = sum(
        before == after
        for visits in numbers.values()
        for before, after in itertools.pairwise(visits)
    )
    assert again <= rounds, "the same memory held the same numbers"
    addresses = [address for address, _ in seen]
    assert len(set(addresses[: len(numbers)])) == len(numbers), (
        "a slot came again before all the others"
    )


class Scripted:
    """A clock by which every call takes ``seconds``; it counts the calls."""

    def __init__(self, seconds: float) -> None:
        self.each, self.samples = seconds, 0

    def seconds(self, work):
        work()
        self.samples += 1
        return self.each

    def reduce(self, samples):
        return min(samples)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted], Prepared]:
    def prepared(clock: Scripted) -> Prepared:
        monkeypatch.setattr(measuring, "Timer", lambda device: clock)
        with registered(mine=right):
            return prepare(TOY, "forward", "mine")

    return prepared


def test_a_round_lasts_as_long_as_asked(timed):
    clock = Scripted(0.02)
    prepared = timed(clock)
    before = clock.samples
    assert prepared.calls == 1
    assert prepared.round(0.1) == pytest.approx(0.02)
    # Sums of 0.02 may stay a rounding error below 0.1.
    assert clock.samples - before in (5, 6)


def test_short_calls_are_looped_to_ten_milliseconds(timed):
    prepared = timed(Scripted(1e-3))
    assert prepared.calls >= 10


def test_a_clock_that_stands_still_is_an_error_not_an_infinite_speed(timed):
    with pytest.raises(FailedError, match="clock"):
        timed(Scripted(0.0)).round()


def test_a_round_is_the_least_sample_on_a_cpu_and_the_tenth_percentile_on_a_gpu():
    samples = [float(number) for number in range(20, 0, -1)]
    assert Timer(torch.device("cpu")).reduce(samples) == 1.0
    assert Timer(torch.device("cuda")).reduce(samples) == 3.0
    assert Timer(torch.device("cuda")).reduce([4.0]) == 4.0


def test_who_is_not_here_or_cannot_is_told_apart():
    with pytest.raises(UsageError, match="did you mean torch"):
        prepare(TOY, "forward", "torhc")
    with pytest.raises(AbsentError, match="openequivariance"):
        prepare(TOY, "forward", "openequivariance")
    with registered(mine=lambda operation: Kernel(right(operation), "by hand", max_derivatives=1)):
        prepare(TOY, "backward", "mine")
        with pytest.raises(UnsupportedError, match="double_backward"):
            prepare(TOY, "double_backward", "mine")
    with registered(mine=right), pytest.raises(UsageError, match="int8"):
        prepare(TOY, "forward", "mine", dtype=torch.int8)


def test_compile_seconds_are_counted_where_a_kernel_compiles_only():
    with registered(mine=lambda operation: Kernel(right(operation), "by hand", compiles=True)):
        assert prepare(TOY, "forward", "mine").compile_seconds >= 0.0


def test_no_compiler_finds_what_an_earlier_process_kept(monkeypatch):
    caches = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    for name in caches:
        monkeypatch.setenv(name, "kept")
    seen = []

    def compiling(operation):
        run = right(operation)

        def looks(inputs):
            seen.append([os.environ[name] for name in caches])
            return run(inputs)

        return Kernel(looks, "by hand", compiles=True)

    with registered(mine=compiling):
        prepare(TOY, "forward", "mine")
    assert "kept" not in seen[0]
    assert [os.environ[name] for name in caches] == ["kept", "kept"]
