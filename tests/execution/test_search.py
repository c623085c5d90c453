"""The search for a point that may be taken: it finds the bottom of a bowl, tries both arms equally
often, and takes no point at an edge or beside a cliff."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.errors import FailedError
from equivbench.execution.search import (
    CLIFF,
    SEARCHED,
    GridPoint,
    Search,
    Setup,
    TrialGrid,
    explore,
    width_factors,
)
from equivbench.specs import ArmPreset, ArmSpec, Recipe
from equivbench.tasks.forcefield.pairs import TENSOR_PRODUCT, VECTOR
from equivbench.tasks.voxel.pairs import OCTAHEDRAL

Loss = Callable[[GridPoint], float]
WIDTHS = {step: 2 ** (step / 2) for step in range(-4, 5)}
GRID = TrialGrid(1e-3, 16, WIDTHS)


def searched(
    losses: Mapping[str, Loss],
    first: int = 7,
    extensions: int = 60,
    grid: TrialGrid = GRID,
    **how: bool,
) -> Search:
    """What is found where the loss is what ``losses`` say, by arm."""
    search = Search(dict.fromkeys(losses, grid), **{"one_width": False, **how})
    explore(
        search,
        first,
        extensions,
        lambda points: {arm: losses[arm](point) for arm, point in points.items()},
    )
    return search


def bowl(rate: float, batch: float, width: float, steep: float = 0.1) -> Loss:
    """A loss whose logarithm is quadratic about a point in steps."""

    def loss(point: GridPoint) -> float:
        away = (point.rate / 2 - rate, point.batch - batch, point.width - width)
        return math.exp(steep * sum(each**2 for each in away))

    return loss


def anywhere(seed: int) -> Loss:
    """A loss without rhyme or reason, infinite at every fifth point."""

    def loss(point: GridPoint) -> float:
        drawn = random.Random(f"{seed} {point}")
        return math.inf if drawn.random() < 0.2 else math.exp(drawn.uniform(-0.5, 0.5))

    return loss


bowls = st.tuples(
    st.floats(-3, 3), st.floats(-2.4, 3.4), st.floats(-3.4, 3.4), st.floats(0.02, 0.3)
).map(lambda about: (bowl(*about), about))
landscapes = st.integers(0, 10**6).map(anywhere)


@given(bowls, bowls)
def test_it_finds_the_bottom_of_a_bowl(first, second):
    search = searched({"first": first[0], "second": second[0]})
    for arm, (_, about) in (("first", first), ("second", second)):
        found = search.standing(arm)
        assert search.open_questions(arm) == []
        # Within half a step of the rate, which is refined, or a whole one where there was no point
        # left to; within rounding of the batch and the width.
        away = (found.rate / 2 - about[0], found.batch - about[1], found.width - about[2])
        assert abs(away[0]) <= 0.51
        assert max(map(abs, away[1:])) <= 0.51


@settings(max_examples=50)
@given(bowls, bowls)
def test_one_width_for_both_is_the_best_for_both(first, second):
    losses = {"first": first[0], "second": second[0]}
    search = searched(losses, one_width=True)
    (width,) = {search.standing(arm).width for arm in losses}
    assert search.settled

    # At a bowl's best rate and batch, the logarithm of the loss is that of the width alone.
    def score(width: float) -> float:
        return sum(steep * (width - middle) ** 2 for _, (*_, middle, steep) in (first, second))

    # A bowl's half step of the rate may hide less than this.
    hidden = sum(about[3] for _, about in (first, second)) * 0.27
    assert score(width) <= min(map(score, WIDTHS)) + hidden


@given(landscapes, landscapes, st.integers(7, 20), st.integers(0, 20), st.booleans())
def test_both_arms_are_tried_equally_often_and_never_twice_at_a_point(
    first, second, points, extensions, one_width
):
    asked = []
    losses = {"first": first, "second": second}
    search = Search(dict.fromkeys(losses, GRID), one_width=one_width)

    def measure(points):
        asked.append(points)
        return {arm: losses[arm](point) for arm, point in points.items()}

    explore(search, points, extensions, measure)
    assert all(each.keys() == losses.keys() for each in asked)
    assert points <= len(asked) <= points + extensions
    assert len(asked) == search.points
    for arm in losses:
        assert len({each[arm] for each in asked}) == len(asked)
        assert all(each[arm] in GRID for each in asked)
    assert search.settled or len(asked) == points + extensions


@settings(max_examples=50)
@given(landscapes, landscapes, st.booleans())
def test_what_is_settled_has_measured_neighbours_and_no_cliff(first, second, one_width):
    losses = {"first": first, "second": second}
    search = searched(losses, extensions=25, one_width=one_width)
    for arm, loss in losses.items():
        if search.open_questions(arm):
            continue
        if one_width:
            assert len({search.standing(each).width for each in losses}) == 1
        here, known = search.standing(arm), search.losses[arm]
        for along in GRID.searched:
            for sign in (1, -1):
                side = GRID.neighbour(here, along, sign)
                # Measured, or half a step of the rate off it.
                assert side is None or {side, side.moved(1), side.moved(-1)} & known.keys()
                # A width shared by both arms is a compromise, on either's slope.
                cliff = math.inf if one_width and along == "width" else CLIFF
                assert known.get(side, 0) < cliff * loss(here)


@settings(max_examples=50)
@given(landscapes, landscapes, st.integers(7, 15), st.integers(0, 10))
def test_it_asks_for_the_same_points_again_and_more_extensions_go_on(first, second, points, more):
    losses = {"first": first, "second": second}
    short = searched(losses, points, more)
    long = searched(losses, points, more + 5)
    for arm in losses:
        before, after = list(short.losses[arm].items()), list(long.losses[arm].items())
        assert after[: len(before)] == before


@pytest.mark.parametrize(
    ("slope", "side"),
    [
        ((0.1, 0, 0), "a lower rate"),
        ((-0.1, 0, 0), "a higher rate"),
        ((0, -0.1, 0), "a larger batch"),
    ],
)
def test_an_edge_is_refused_by_name(slope, side):
    def falls(point: GridPoint) -> float:
        curved = 0.01 * sum(point[k] ** 2 for k in range(3) if not slope[k])
        return math.exp(sum(a * b for a, b in zip(slope, point, strict=True)) + curved)

    search = searched({"first": falls, "second": bowl(0, 0, 0)}, extensions=8)
    (why,) = search.open_questions("first")
    assert "edge" in why
    assert side in why
    assert search.open_questions("second") == []


def test_one_width_is_open_until_both_arms_were_tried_at_its_neighbours():
    def narrow_is_best(point: GridPoint) -> float:
        return bowl(0, 0, -1)(point)

    def sought_long(point: GridPoint) -> float:
        return bowl(4, 2, -1, 0.05)(point)

    losses = {"first": narrow_is_best, "second": sought_long}
    search = searched(losses, extensions=0, one_width=True)
    assert {point.width for point in search.losses["second"]} == {0}
    assert "width that both arms share" in search.open_questions("first")[0]
    assert searched(losses, one_width=True).standing("first").width == -1


def test_a_batch_of_one_and_a_network_that_cannot_shrink_are_no_edges():
    small = replace(GRID, batch_size=2, widths={0: 1.0, 1: 2.0})

    def falls(point: GridPoint) -> float:
        return math.exp(0.1 * (point.rate / 2) ** 2 + 0.2 * point.batch + 0.2 * point.width)

    search = searched({"first": falls, "second": falls}, grid=small)
    assert search.settled
    assert small.setup(search.standing("first")) == Setup(1e-3, 1, 1.0)


def test_the_lowest_loss_is_given_up_where_a_step_further_training_diverges():
    def cliff(point: GridPoint) -> float:
        return bowl(1, 0, 0, 0.05)(point) if point.rate <= 2 else math.inf

    search = searched({"first": cliff, "second": cliff})
    assert search.settled
    here, known = search.standing("first"), search.losses["first"]
    assert min(known, key=known.get).rate > here.rate
    assert here.rate == 0
    assert "diverged" in search.cliff_at("first", min(known, key=known.get))


def test_a_valley_with_steep_walls_is_refused():
    search = searched({"first": bowl(0, 0, 0, 1.0), "second": bowl(0, 0, 0)}, extensions=10)
    (why,) = search.open_questions("first")
    assert "beside a cliff" in why
    assert search.standing("second") is not None


def test_a_steep_slope_is_climbed_down():
    search = searched({"first": bowl(3, 0, 0, 0.3), "second": bowl(0, 0, 0)})
    assert search.settled
    assert search.standing("first").rate == 6


def test_where_everything_diverges_rates_fall():
    search = searched({"first": lambda point: math.inf, "second": bowl(0, 0, 0)}, extensions=0)
    assert search.open_questions("first") == ["every trial diverged"]
    assert [point.rate for point in search.losses["first"]] == [0, -2, -4, -6, -8, -10, -12]


@pytest.mark.parametrize("kind", SEARCHED)
def test_what_costs_no_budget_is_not_searched(kind):
    grid = replace(GRID, searched=SEARCHED[kind])
    search = searched({"first": bowl(1, 1, 1), "second": bowl(0, 0, 0)}, grid=grid)
    moved = {
        k for points in search.losses.values() for point in points for k in range(3) if point[k]
    }
    assert moved == set(range(len(SEARCHED[kind])))


def test_a_grid_starts_at_the_recipe_and_doubles():
    grid = TrialGrid(5.66e-3, 20, WIDTHS)
    assert grid.setup(GridPoint()) == Setup(5.66e-3, 20, 1.0)
    assert grid.setup(GridPoint(2, 1, 2)) == Setup(1.13e-2, 40, 2.0)
    assert grid.setup(GridPoint(-1, -2, 0)) == Setup(4e-3, 5, 1.0)
    assert grid.neighbour(GridPoint(0, -4, 0), "batch", -1) is None


def test_factors_on_widths_change_the_network_of_every_arm():
    assert {step: round(factor, 2) for step, factor in list(_factors(VECTOR).items())[:3]} == {
        0: 1.0,
        1: 1.41,
        2: 2.0,
    }
    # One feature of the cube group: no narrower network, and none between one and two features.
    assert list(_factors(OCTAHEDRAL).items())[:3] == [(0, 1.0), (1, 2.0), (2, 2.828)]
    for pair in (VECTOR, OCTAHEDRAL, TENSOR_PRODUCT):
        for arm in pair.contestants:
            config = arm.presets["small"].config
            sizes = [
                {**config, **arm.resized("small", factor)} for factor in _factors(pair).values()
            ]
            assert all(sizes.count(each) == 1 for each in sizes)


def test_an_arm_without_widths_has_one_size():
    preset = ArmPreset({}, Recipe(1e-3, 8, "none"))
    arm = ArmSpec("plain", "model", {"small": preset})
    assert width_factors([arm], "small") == {0: 1.0}


def _factors(pair) -> dict[int, float]:
    return width_factors(pair.contestants, "small")


def limited(loss: Loss, batch: int, width: int) -> Callable[[GridPoint], float | None]:
    """``loss`` on a device whose memory holds no larger batch with a network as wide."""

    def found(point: GridPoint) -> float | None:
        return None if point.batch >= batch and point.width >= width else loss(point)

    return found


@given(
    bowls,
    bowls,
    st.tuples(st.integers(-2, 2), st.integers(-3, 3)),
    st.booleans(),
)
def test_what_does_not_fit_is_tried_smaller_and_costs_no_arm_a_point(first, second, limit, shared):
    losses = {"first": limited(first[0], *limit), "second": second[0]}
    search = searched(losses, one_width=shared)
    tried = search.losses
    assert len(tried["first"]) == len(tried["second"]) == search.points
    for point in tried["first"]:
        assert losses["first"](point) is not None
    for point in search.too_large["first"]:
        assert losses["first"](point) is None
    assert not search.too_large["second"]


def test_the_best_point_at_the_end_of_the_memory_may_be_taken():
    # The bottom lies at larger batches than the memory holds.
    losses = {"first": limited(bowl(0, 3, 0), 2, -9), "second": bowl(0, 0, 0)}
    search = searched(losses)
    assert search.open_questions("first") == []
    assert search.standing("first").batch == 1


@pytest.mark.parametrize("kind", ["steps", "samples", "seconds"])
def test_a_network_that_fits_in_no_way_is_said_to(kind):
    grid = replace(GRID, searched=SEARCHED[kind])
    with pytest.raises(FailedError, match="first does not fit into the memory"):
        searched({"first": lambda point: None, "second": bowl(0, 0, 0)}, grid=grid)
