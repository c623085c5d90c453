"""What every network of the flow task must satisfy, read from its declaration and its pair."""

import pytest
import torch
from chains import LENGTHS, PADDED, inputs
from torch import Tensor, nn

from equivbench.registry import resolve
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.flow.declarations import MODELS
from equivbench.tasks.flow.networks.transformer import prior_deviation, prior_mean, prior_velocity
from equivbench.tasks.flow.pairs import PAIRS

SPECS = {spec.name: spec for spec in MODELS}
CONFIGS = {arm.model: arm.presets["dev"].config for pair in PAIRS for arm in pair.arms}
NAMES = sorted(CONFIGS)
EQUIVARIANT = [name for name in NAMES if SPECS[name].symmetry == "so3"]
# float64 rounding through a few layers and sums over 24 residues of nm, far below what any real
# dependence gives.
EXACT = 1e-10
# What is no rounding: a real dependence of a network with random weights.
VISIBLE = 1e-4


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The dev network with all weights random: what starts at zero would hide what it
    multiplies."""
    torch.manual_seed(3)
    model = resolve(SPECS[name].build)(CONFIGS[name])
    for parameter in model.parameters():
        if not bool(parameter.detach().any()):
            nn.init.normal_(parameter, std=0.1)
    return model.to(dtype)


def x1(model: nn.Module, sample: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**sample)["x1"]
    return out


def moved(sample: dict[str, Tensor], matrix: Tensor) -> dict[str, Tensor]:
    return {**sample, **{name: sample[name] @ matrix.T for name in ("x_t", "x_sc")}}


def rotation() -> Tensor:
    return random_rotations(1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[0]


def test_every_model_is_in_a_pair() -> None:
    assert set(SPECS) == set(NAMES)
    assert len(EQUIVARIANT) == 2


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_their_shape_and_precision_and_are_centred(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        sample = inputs(dtype)
        out = x1(build(name, dtype), sample)
        assert out.shape == (len(LENGTHS), PADDED, 3)
        assert out.dtype == dtype
        assert bool((out[~sample["mask"]] == 0).all())
        # Rounding of a sum over at most 24 residues of order 1 nm.
        assert float(out.sum(1).abs().max()) < (1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_equivariant_networks_commute_with_rotations(name: str) -> None:
    model, sample, matrix = build(name), inputs(), rotation()
    assert (
        float((x1(model, moved(sample, matrix)) - x1(model, sample) @ matrix.T).abs().max()) < EXACT
    )


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_equivariant_networks_tell_a_chain_from_its_mirror_image(name: str) -> None:
    model, sample, mirror = (
        build(name),
        inputs(),
        torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)),
    )
    assert (
        float((x1(model, moved(sample, mirror)) - x1(model, sample) @ mirror).abs().max()) > VISIBLE
    )


def test_the_plain_network_is_not_equivariant() -> None:
    model, sample, matrix = build("backbone-transformer"), inputs(), rotation()
    assert (
        float((x1(model, moved(sample, matrix)) - x1(model, sample) @ matrix.T).abs().max())
        > VISIBLE
    )


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_matter_whatever_it_holds_and_how_much_there_is(name: str) -> None:
    model, sample = build(name), inputs()
    out, absent = x1(model, sample), ~sample["mask"]
    filled = {**sample, "residue": sample["residue"].masked_fill(absent, 77)}
    for field in ("x_t", "x_sc"):
        filled[field] = sample[field].masked_fill(absent[..., None], float("nan"))
    assert torch.equal(x1(model, filled), out)
    wider = {
        field: value if field == "t" else torch.cat([value, torch.zeros_like(value[:, :8])], dim=1)
        for field, value in sample.items()
    }
    assert float((x1(model, wider)[:, :PADDED] - out).abs().max()) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_predicted_alike_in_any_batch_and_order(name: str) -> None:
    model, sample = build(name), inputs()
    out, order = x1(model, sample), torch.tensor([2, 0, 1])
    shuffled = x1(model, {field: value[order] for field, value in sample.items()})
    assert float((shuffled - out[order]).abs().max()) < EXACT
    alone = x1(model, {field: value[1:2] for field, value in sample.items()})
    assert float((alone - out[1:2]).abs().max()) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_every_input_matters(name: str) -> None:
    model, sample = build(name), inputs()
    out = x1(model, sample)
    changes = {
        "x_t": 1.1 * sample["x_t"],
        "x_sc": 1.1 * sample["x_sc"],
        "t": sample["t"] * 0.9,
        "residue": 2 * sample["residue"],
    }
    for field, value in changes.items():
        assert float((x1(model, {**sample, field: value}) - out).abs().max()) > VISIBLE, field


@pytest.mark.parametrize("name", NAMES)
def test_at_the_end_of_the_flow_x1_is_x_t(name: str) -> None:
    sample = inputs(times=(1.0, 1.0, 1.0))
    torch.testing.assert_close(x1(build(name), sample), sample["x_t"], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "case", ["collapsed", "straight", "no time", "last instant", "two residues", "one residue"]
)
def test_gradients_are_finite_wherever_chains_and_times_are_extreme(name: str, case: str) -> None:
    sample = inputs(
        torch.float32,
        times={"no time": (0.0,) * 3, "last instant": (1 - 1e-7,) * 3}.get(case, (0.1, 0.5, 0.95)),
    )
    if case == "collapsed":
        sample |= {"x_t": torch.zeros_like(sample["x_t"]), "x_sc": torch.zeros_like(sample["x_sc"])}
    if case == "straight":
        line = torch.arange(PADDED, dtype=torch.float32)[None, :, None] * torch.tensor(
            [0.38, 0.0, 0.0]
        )
        sample |= {"x_t": line.expand(3, -1, -1), "x_sc": line.expand(3, -1, -1)}
    if case.endswith(("residue", "residues")):
        sample["mask"] = torch.arange(PADDED).expand(3, -1) < (1 if case == "one residue" else 2)
    model = build(name, torch.float32)
    for field in ("x_t", "x_sc"):
        sample[field] = sample[field].clone().requires_grad_()
    model(**sample)["x1"].square().sum().backward()
    for gradient in [
        sample["x_t"].grad,
        sample["x_sc"].grad,
        *(parameter.grad for parameter in model.parameters()),
    ]:
        assert gradient is None or bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_gives_the_priors_guess(name: str) -> None:
    torch.manual_seed(0)
    model, sample = resolve(SPECS[name].build)(CONFIGS[name]).double(), inputs()
    guess = prior_mean(sample["x_t"], sample["t"], CONFIGS[name]["data_scale"])
    # One form computes x_t + (1 - t) v, the other the mean: equal to rounding.
    torch.testing.assert_close(x1(model, sample), guess, rtol=0, atol=1e-12)


def test_the_prior_is_the_posterior_of_two_normal_numbers() -> None:
    generator, scale, t = (
        torch.Generator().manual_seed(2),
        0.7,
        torch.tensor([0.35], dtype=torch.float64),
    )
    x0 = torch.randn(1, 400_000, 1, generator=generator, dtype=torch.float64)
    end = scale * torch.randn(1, 400_000, 1, generator=generator, dtype=torch.float64)
    x_t = (1 - t) * x0 + t * end
    slope = float((x_t * (end - x0)).sum() / x_t.square().sum())
    # Standard errors of a regression slope and of a variance from 400,000 draws are about .003.
    assert float(prior_velocity(torch.ones(1, 1, 1).double(), t, scale)) == pytest.approx(
        slope, abs=0.012
    )
    residual = end - x0 - prior_velocity(x_t, t, scale)
    assert float(prior_deviation(t, scale)) == pytest.approx(float(residual.std()), abs=0.012)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_keeps_positions_in_float32(name: str) -> None:
    model, sample = build(name, torch.float32), inputs(torch.float32, times=(0.99, 0.999, 0.9999))
    exact = x1(model, sample)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = x1(model, sample)
    assert reduced.dtype == torch.float32
    # The step from x_t to x1 is (1 - t) times a velocity of order 1 nm with bfloat16's 2^-8, ten
    # layers' worth; positions rounded to bfloat16 would be off by .004 nm at every t.
    bound = (
        0.1 * (1 - sample["t"])[:, None, None] * (1 + (exact - sample["x_t"]).abs().amax() / 1e-2)
    )
    assert bool(((reduced - exact).abs() < bound).all())
