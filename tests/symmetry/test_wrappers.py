"""The wrappers make a network on raw coordinates equivariant, whatever its weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_task import Clouds, Raw, clouds

from equivbench.errors import ModelError, UsageError
from equivbench.execution.evaluation_cost import wrapper_passes
from equivbench.specs import Field
from equivbench.symmetry.decomposition import decompose
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.types import rotate
from equivbench.symmetry.wrappers import Canonical, Twirl, principal_axes, wrap

TASK = Clouds()


def haar(n: int, seed: int) -> Tensor:
    return random_rotations(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(count: int, seed: int) -> dict[str, Tensor]:
    batch = clouds(count, seed=seed).collate(torch.arange(count))
    return {"z": batch["z"], "pos": batch["pos"].double(), "batch": batch["batch"]}


def wrapped(name: str, seed: int = 0) -> nn.Module:
    return wrap(name, Raw(seed=seed).double(), TASK.fields, TASK.index_field).eval()


def moved_then_back(model: nn.Module, inputs: dict[str, Tensor], rotations: Tensor) -> Tensor:
    outputs = model(**TASK.rotate(inputs, rotations, inputs["batch"]))
    return TASK.rotate(outputs, rotations.transpose(1, 2), inputs["batch"])["pull"]


@pytest.mark.parametrize("name", ["frames", "stochastic-frames", "canonical"])
@given(seed=st.integers(0, 2**31), turn=st.integers(0, 2**31))
def test_frames_make_any_network_equivariant(name: str, seed: int, turn: int) -> None:
    inputs = inputs_of(3, seed)
    moments, skewness = spectra(inputs)
    gap = (moments[:, 1:] - moments[:, :-1]).min() / moments.max()
    # Near a tie the frame itself is ill-conditioned: rounding of 1e-16 turns axes by 1e-16 / gap.
    assume(gap > 1e-3)
    assume(name != "canonical" or skewness[:, :2].abs().min() > 1e-3)
    model = wrapped(name, seed % 7)
    plain = model(**inputs)["pull"]
    # Outputs of size ~1, coordinates ~1, Lipschitz constant below ~10: 1e-16 / 1e-3 x 10 is 1e-12;
    # ten times that.
    torch.testing.assert_close(
        moved_then_back(model, inputs, haar(3, turn)), plain, atol=1e-11, rtol=0
    )


@pytest.mark.parametrize(
    "name", ["frames", "stochastic-frames", "canonical", "twirl-3", "twirl-octahedral"]
)
def test_a_wrapper_takes_the_passes_that_a_plan_counts(name: str) -> None:
    raw, passes = Raw(seed=0).double(), []
    raw.register_forward_pre_hook(
        lambda module, given, named: passes.append(int(named["batch"].max()) + 1), with_kwargs=True
    )
    model = wrap(name, raw, TASK.fields, TASK.index_field)
    found = []
    for training in (True, False):
        passes.clear()
        model.train(training)(**inputs_of(1, seed=0))
        found.append(sum(passes))
    assert tuple(found) == wrapper_passes(name)


def spectra(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    pos = inputs["pos"].reshape(3, -1, 3)
    centred = pos - pos.mean(1, keepdim=True)
    return torch.linalg.eigvalsh(centred.transpose(1, 2) @ centred), principal_axes(
        inputs["pos"], inputs["batch"], 3
    )[1]


@pytest.mark.parametrize("name", ["frames", "stochastic-frames", "canonical"])
def test_a_graph_does_not_see_the_rest_of_its_batch(name: str) -> None:
    inputs, model = inputs_of(3, 0), wrapped(name)
    alone = {key: value[6:12] for key, value in inputs.items()}
    alone["batch"] = torch.zeros(6, dtype=torch.int64)
    # Batched linear algebra may sum in another order: a few eps.
    torch.testing.assert_close(
        model(**alone)["pull"], model(**inputs)["pull"][6:12], atol=1e-13, rtol=0
    )


def test_principal_axes_are_ordered_and_orthonormal() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(40, 3, generator=generator, dtype=torch.float64) * torch.tensor(
        [1.0, 5.0, 0.2]
    )
    axes, skewness = principal_axes(
        torch.cat([points + 7, points]), torch.arange(2).repeat_interleave(40), 2
    )
    assert axes[0, :, 0].abs().argmax() == 1
    torch.testing.assert_close(
        axes.transpose(1, 2) @ axes,
        torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
        atol=1e-14,
        rtol=0,
    )
    # A shift changes nothing but rounding: 40 third powers of numbers up to 15, eps 1e-16.
    torch.testing.assert_close(skewness[0], skewness[1], atol=1e-9, rtol=0)


def test_frames_survive_degenerate_graphs() -> None:
    for points in (torch.zeros(1, 3), torch.tensor([[0.0, 0, 1], [0, 0, -1]]), torch.eye(3)):
        inputs = {
            "z": torch.ones(len(points)),
            "pos": points.double(),
            "batch": torch.zeros(len(points), dtype=torch.int64),
        }
        for name in ("frames", "stochastic-frames", "canonical"):
            model = wrap(name, Raw(points=len(points)).double(), TASK.fields, TASK.index_field)
            assert torch.isfinite(model(**inputs)["pull"]).all()


@pytest.mark.parametrize("name", ["frames", "stochastic-frames", "canonical", "twirl-2"])
def test_an_equivariant_model_is_left_as_it_is(name: str) -> None:
    class Spring(nn.Module):
        requires = {"edge_index": 5.0}

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": -pos * z[:, None], "energy": pos.square().sum(1), "note": torch.ones(1)}

    inputs = inputs_of(2, 0)
    model = wrap(name, Spring(), TASK.fields, TASK.index_field).eval()
    for key, value in Spring()(**inputs).items():
        torch.testing.assert_close(
            model(**inputs)[key], value, atol=1e-13, rtol=0
        )  # a few eps of numbers up to ~10
    assert model.requires == {"edge_index": 5.0}
    assert model(**{**inputs, "pos": inputs["pos"].float()})["pull"].dtype == torch.float32


@pytest.mark.parametrize("n", [1, 4])
def test_twirling_leaves_the_twirled_error_and_an_nth_of_the_equivariance_error(n: int) -> None:
    inputs, target = inputs_of(1, 0), clouds(1).collate(torch.arange(1))["pull"].double()
    model = Raw().double().requires_grad_(False)
    draws = 20_000
    many = {
        "z": inputs["z"].repeat(draws),
        "pos": inputs["pos"].repeat(draws, 1),
        "batch": torch.arange(draws).repeat_interleave(6),
    }
    truth = decompose(moved_then_back(model, many, haar(draws, 1)).reshape(draws, 6, 3), target)
    m, v = float(truth.twirled.sum()), float(truth.equivariance.sum())
    errors = []
    for seed in range(800):
        twirl = Twirl(model, TASK.fields, TASK.index_field, haar(n, 100_000 + seed)).eval()
        errors.append((twirl(**inputs)["pull"] - target).square().sum())
    mean, error = torch.stack(errors).mean(), torch.stack(errors).std() / 800**0.5
    # Five standard errors; those of m and v, from 25 times as many draws, are smaller still.
    assert abs(float(mean) - (m + v / n)) < 5 * float(error)


def test_twirl_is_plain_in_training_and_fixed_in_evaluation() -> None:
    inputs, model = inputs_of(2, 0), Raw().double()
    twirl = wrap("twirl-4", model, TASK.fields, TASK.index_field)
    assert torch.equal(twirl.train()(**inputs)["pull"], model(**inputs)["pull"])
    first = twirl.eval()(**inputs)["pull"]
    assert torch.equal(
        first, wrap("twirl-4", model, TASK.fields, TASK.index_field).eval()(**inputs)["pull"]
    )
    assert not torch.equal(first, model(**inputs)["pull"])
    by_hand = torch.stack(
        [moved_then_back(model, inputs, rotation[None]) for rotation in haar(4, 0)]
    ).mean(0)
    torch.testing.assert_close(first, by_hand, atol=1e-14, rtol=0)  # the same sum in another order


def test_twirling_over_the_cube_group_is_exactly_octahedral() -> None:
    inputs, model = inputs_of(2, 0), wrapped("twirl-octahedral")
    plain = model(**inputs)["pull"]
    for rotation in octahedral_rotations(torch.float64):
        # The same 24 numbers of size ~1 in another order.
        torch.testing.assert_close(
            moved_then_back(model, inputs, rotation[None]), plain, atol=1e-14, rtol=0
        )


def drawn_outputs(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """[outcomes, points, 3]: all that a stochastic wrapper gives for one graph in training."""
    torch.manual_seed(0)
    # That one of four outcomes is missing has the probability 4 (3/4)^64 = 4e-8.
    outputs = torch.stack([model(**inputs)["pull"].detach() for _ in range(64)])
    return torch.unique(outputs, dim=0)


def test_a_frame_drawn_by_chance_is_one_of_four_whose_mean_is_the_average_over_frames() -> None:
    inputs, model = inputs_of(1, 0), wrapped("stochastic-frames")
    outcomes = drawn_outputs(model.train(), inputs)
    assert len(outcomes) == 4
    averaged = wrapped("frames")(**inputs)["pull"]
    # The same four numbers of size ~1 in another order.
    torch.testing.assert_close(outcomes.mean(0), averaged, atol=1e-14, rtol=0)
    assert torch.equal(model.eval()(**inputs)["pull"], averaged)


def test_the_outcomes_of_frames_drawn_by_chance_turn_with_the_graph_as_a_set() -> None:
    inputs, model = inputs_of(1, 0), wrapped("stochastic-frames").train()
    turn = haar(1, 3)
    turned = drawn_outputs(model, TASK.rotate(inputs, turn, inputs["batch"]))
    expected = drawn_outputs(model, inputs) @ turn[0].T
    distances = (turned[:, None] - expected[None]).abs().amax((2, 3))
    # As for frames: rounding over a gap between moments of some 1e-1.
    assert float(distances.min(1).values.max()) < 1e-12
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2, 3]


def test_graphs_of_a_batch_draw_their_frames_one_by_one_and_take_one_pass() -> None:
    inputs, model = inputs_of(8, 0), Raw().double()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    stochastic = wrap("stochastic-frames", model, TASK.fields, TASK.index_field).train()
    torch.manual_seed(1)
    first, second = (stochastic(**inputs)["pull"].reshape(8, -1) for _ in range(2))
    assert len(passes) == 2
    same = (first == second).all(1)
    assert bool(same.any())
    assert not bool(same.all())
    stochastic.eval()(**inputs)
    assert len(passes) == 2 + 4


def test_gradients_reach_the_weights_through_frames() -> None:
    model = wrapped("frames").train()
    model(**inputs_of(2, 0))["pull"].square().sum().backward()
    # A constant vector averages to 0 over the four frames, so the last bias gets no gradient.
    for parameter in list(model.parameters())[:-1]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["twirl", "twirl-0", "twirl-x", "frame", ""])
def test_unknown_wrappers_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not one of"):
        wrap(name, Raw(), TASK.fields, TASK.index_field)


@pytest.mark.parametrize(
    "name", ["twirl-3", "twirl-octahedral", "frames", "stochastic-frames", "canonical"]
)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda out: out, r"returned a Tensor, not a mapping"),
        (
            lambda out: {"pull": out[:1]},
            r"'pull' of shape \(1, 3\), not a row for each of 12 nodes",
        ),
        (lambda out: {"pull": out.sum()}, r"'pull' of shape \(\), not a row for each"),
    ],
)
def test_one_row_is_not_taken_for_that_of_all(
    name: str, make: Callable[[Tensor], object], says: str
) -> None:
    class Short(Raw):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Any:
            return make(super().forward(z, pos, batch)["pull"])

    model = wrap(name, Short().double(), TASK.fields, TASK.index_field).eval()
    with pytest.raises(ModelError, match=says):
        model(**inputs_of(2, 0))


def test_frames_without_points_are_refused() -> None:
    with pytest.raises(UsageError, match="makes up a point cloud"):
        Canonical(Raw(), TASK.fields, TASK.index_field)(z=torch.ones(6))


@pytest.mark.parametrize("name", ["frames", "stochastic-frames", "canonical"])
def test_padded_clouds_have_frames_that_padding_does_not_move(name: str) -> None:
    fields = (Field("x", ("samples", "points", 3), "float64", "1o", "graph", "1", "sample"),)

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x.abs() * x.new_tensor([1.0, 2.0, 3.0])}

    model = wrap(name, Plain(), fields, None).eval()
    x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    plain = model(x=x)["x"]
    turn = haar(4, 2)
    # Outputs of size ~10; four frames of well-separated moments.
    moved = model(x=rotate({"x": x}, fields, turn, None)["x"])
    torch.testing.assert_close(
        rotate(moved, fields, turn.transpose(1, 2), None)["x"], plain, atol=1e-11, rtol=0
    )
    padded = torch.cat([x, x.new_zeros(4, 3, 3)], dim=1)
    torch.testing.assert_close(model(x=padded)["x"][:, :7], plain, atol=1e-11, rtol=0)
