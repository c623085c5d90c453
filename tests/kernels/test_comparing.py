"""Backends against each other: alternation, refusals told apart, and what is kept when something
ends early."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toy_kernels as bad
from toy_ceilings import OPERATIONS, SPEED, pretended
from toy_kernels import TOY, registered, right

from equivbench.environment import allocator_settings
from equivbench.kernels import comparing, measuring
from equivbench.kernels.backend import Kernel
from equivbench.kernels.comparing import BackendPlan, comparisons, order
from equivbench.kernels.operations import costs
from equivbench.records.line_files import KERNEL_FILE

PLAN = BackendPlan(rounds=4, seconds=0.01)


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """A small cache and a pretended machine."""
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 20_000)
    monkeypatch.setattr(comparing, "measure_ceilings", lambda device, dtype: pretended())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_drift_that_is_linear_in_time_cancels(number):
    places = [
        [order(number, turn).index(side) + turn * number for turn in range(4)]
        for side in range(number)
    ]
    assert len({sum(times) for times in places}) == 1


def test_a_sample_says_what_it_is_and_how_far_from_the_floor():
    with registered(mine=right):
        plan = BackendPlan(rounds=3, seconds=0.01, command="a test")
        (found,) = comparisons([TOY], ["mine"], ["backward"], plan)
    (sample,) = found.samples
    assert sample.key == ("toy", "backward", "mine")
    assert (sample.dtype, sample.method, sample.command) == ("float32", "by hand", "a test")
    assert len(sample.rounds) == 3
    assert min(sample.rounds) > 0
    by = ("x", "harmonics", "weights")
    assert set(sample.errors) == {"output", *(f"gradient {name}" for name in by), "tangent"}
    cost = costs(TOY, "backward")
    assert (sample.bytes_fused, sample.bytes_unfused, sample.operations) == (
        cost.bytes_fused,
        cost.bytes_unfused,
        cost.operations,
    )
    assert sample.roofline is not None
    assert (sample.roofline.bytes_read, sample.roofline.bytes_written) == (
        cost.bytes_read,
        cost.bytes_written,
    )
    assert [one.name for one in sample.roofline.bounds] == ["L2 cache bandwidth", "arithmetic"]
    least = max(cost.bytes_fused / SPEED, cost.operations / OPERATIONS)
    assert sample.roofline.fraction == pytest.approx(least / min(sample.rounds), rel=1e-9)
    assert KERNEL_FILE.problems_of(sample) == []
    assert sample.bandwidth == SPEED
    assert sample.allocator == allocator_settings()
    assert sample.environment.threads == 1
    assert sample.device_state == {}


def test_a_wrong_backend_is_refused_and_the_others_are_timed():
    backends = {
        "good": right,
        "wrong": bad.wrong_sign,
        "broken": bad.raises_an_error,
        "once": lambda operation: Kernel(right(operation), "by hand", max_derivatives=1),
    }
    with registered(**backends):
        found = list(
            comparisons(
                [TOY], [*backends, "openequivariance"], ("forward", "double_backward"), PLAN
            )
        )
    kinds = [
        {refusal.backend: refusal.kind for refusal in comparison.refusals} for comparison in found
    ]
    others = {"wrong": "wrong", "broken": "failed", "openequivariance": "absent"}
    assert kinds == [others, others | {"once": "unsupported"}]
    assert [[sample.backend for sample in comparison.samples] for comparison in found] == [
        ["good", "once"],
        ["good"],
    ]
    assert all("wrong on toy" in comparison.refusals[0].reason for comparison in found)


def test_a_backend_that_fails_in_a_round_is_refused_then():
    with registered(good=right, mine=bad.breaks_later):
        (found,) = comparisons([TOY], ["good", "mine"], ["forward"], PLAN)
    assert [sample.backend for sample in found.samples] == ["good"]
    assert [(one.backend, one.kind) for one in found.refusals] == [("mine", "failed")]
    assert "out of order" in found.refusals[0].reason


def test_a_time_below_what_the_machine_can_do_is_no_sample(monkeypatch):
    measured = []

    def slower(device, dtype):
        measured.append(dtype)
        return pretended(1e3)

    monkeypatch.setattr(comparing, "measure_ceilings", slower)
    with registered(good=right, other=right):
        (found,) = comparisons([TOY], ["good", "other"], ["forward"], PLAN)
    assert found.samples == []
    assert [(one.backend, one.kind) for one in found.refusals] == [
        ("good", "failed"),
        ("other", "failed"),
    ]
    assert "good on toy (forward): a call took" in found.refusals[0].reason
    assert measured == [torch.float32] * 2, "once, and once more before anyone is refused"


def test_rounds_until_an_interruption_are_kept_and_nothing_more_is_begun():
    with registered(good=right, mine=bad.interrupted_later):
        found = list(comparisons([TOY, TOY], ["good", "mine"], ["forward", "backward"], PLAN))
    assert len(found) == 1
    assert found[0].interrupted
    assert [sample.backend for sample in found[0].samples] == ["good"]
    assert len(found[0].samples[0].rounds) >= 1


def test_an_interruption_before_any_round_has_nothing_to_keep():
    with registered(mine=bad.interrupted_at_once), pytest.raises(KeyboardInterrupt):
        list(comparisons([TOY], ["mine"], ["forward"], PLAN))


def test_modes_that_a_case_does_not_need_are_left_out():
    with registered(mine=right):
        found = list(
            comparisons([replace(TOY, derivatives=0)], ["mine"], ("forward", "backward"), PLAN)
        )
    assert [comparison.mode for comparison in found] == ["forward"]
