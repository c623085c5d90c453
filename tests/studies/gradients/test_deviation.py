"""Symmetry-breaking parameters against their projection: the three-row head, whose equivariance
error has a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from equivbench.registry import DATASETS, resolve
from equivbench.studies.gradients.measuring import deviation, part_gradients
from equivbench.studies.run import FixedLoss
from equivbench.tasks.forcefield.networks.escaip import EScAIP, build_tied, build_untied
from equivbench.tasks.forcefield.networks.graph import neighbourhood
from equivbench.tasks.forcefield.pairs import TIED_HEAD
from equivbench.tasks.forcefield.task import ForceField

DEV = TIED_HEAD.arms[0].presets["dev"].config
HEAD = "direction.rows.weight"


def apart(by: float) -> EScAIP:
    """The three-row head in float64, its rows ``by`` times as far from their mean as they were
    drawn."""
    torch.manual_seed(0)
    model = build_untied(DEV).double()
    rows = model.direction.rows.weight
    with torch.no_grad():
        mean = rows.mean(0, keepdim=True)
        rows.copy_(mean + by * (rows - mean))
    return model


def cube_loss(model: nn.Module, **options) -> FixedLoss:
    """Four molecules under the whole cube group, whose averages of second-rank tensors are those
    over SO(3)."""
    split = resolve(DATASETS.get("gfn2-small").factory)().load().test
    settings = {
        "samples": 4,
        "rotations": 24,
        "group": "octahedral",
        "precision": "float64",
        **options,
    }
    return FixedLoss(ForceField(), split, requires=model.requires, **settings)


def closed_form(model: EScAIP, inputs: dict[str, Tensor]) -> Tensor:
    """V = mean_i m_i^2 / 3 sum_c |sum_j (s_ijc - mean_c s_ij) w_ij d_ij|^2 for f_i = m_i sum_j s_ij
    (*) w_ij d_ij."""
    seen: dict[str, Tensor] = {}
    model.direction.register_forward_hook(lambda module, given, out: seen.update(s=out))
    model.magnitude.register_forward_hook(lambda module, given, out: seen.update(m=out))
    model(**inputs)
    near = neighbourhood(inputs["pos"], inputs["edge_index"], model.cutoff, model.places)
    uneven = seen["s"] - seen["s"].mean(-1, keepdim=True)
    pulls = torch.einsum("ajc,aj,ajx->acx", uneven, near.weight, near.direction)
    return (seen["m"].square().squeeze(-1) / 3 * pulls.square().sum((1, 2))).mean()


def test_the_equivariance_error_of_the_head_is_the_square_of_the_deviation() -> None:
    tied = apart(0.0)
    loss = cube_loss(tied)
    chunk = loss.chunks[0]
    with torch.no_grad():
        symmetric = loss.parts(tied, chunk)
        found = {by: loss.parts(apart(by), chunk) for by in (0.5, 1.0)}
        expected = closed_form(apart(1.0), dict(next(iter(chunk.draws)).inputs))
    # Rounding of 24 float64 evaluations of a deep network.
    assert found[1.0].equivariance.item() == pytest.approx(
        4 * found[0.5].equivariance.item(), rel=1e-9
    )
    assert found[1.0].equivariance.item() == pytest.approx(expected.item(), rel=1e-9)
    for parts in found.values():
        assert parts.twirled.item() == pytest.approx(symmetric.twirled.item(), rel=1e-9)
    assert symmetric.equivariance.item() < 1e-20 * symmetric.twirled.item()


def test_the_deviation_is_the_squared_distance_of_the_rows_from_their_mean_over_their_norm() -> (
    None
):
    rows = apart(1.0).direction.rows.weight.detach()
    mean = rows.mean(0, keepdim=True)
    uneven, even = float((rows - mean).square().sum()), 3 * float(mean.square().sum())
    for by in (0.0, 0.5, 1.0):
        # The two parts are orthogonal.
        assert deviation(apart(by)) == pytest.approx(
            by**2 * uneven / (by**2 * uneven + even), rel=1e-12, abs=1e-30
        )


def test_the_projection_is_idempotent_and_orthogonal() -> None:
    model = apart(1.0)
    rows, projected = (
        model.direction.rows.weight.detach().clone(),
        model.symmetric_projection()[HEAD].detach().clone(),
    )
    torch.testing.assert_close(
        ((rows - projected) * projected).sum(), torch.zeros((), dtype=torch.float64)
    )
    with torch.no_grad():
        model.direction.rows.weight.copy_(projected)
    torch.testing.assert_close(model.symmetric_projection()[HEAD].detach(), projected)
    assert deviation(model) == pytest.approx(0, abs=1e-30)


def test_one_row_has_nothing_to_deviate_by_and_a_model_without_a_projection_no_deviation() -> None:
    assert deviation(build_tied(DEV)) == 0
    assert deviation(nn.Linear(3, 3)) is None


def test_a_wrapper_need_not_pass_the_projection_on_and_parameters_can_be_left_out() -> None:
    model = apart(1.0)
    assert deviation(nn.Sequential(nn.Identity(), model)) == deviation(model)
    assert deviation(nn.Sequential(nn.Identity(), model), {f"1.{HEAD}"}) is None


def test_a_head_that_conservative_forces_replace_breaks_no_symmetry() -> None:
    model = ForceField().adapt(apart(1.0), {"forces": "conservative"})
    loss = cube_loss(model, samples=2, chunks=2, rotations=2)
    unused = part_gradients(model, loss).unused
    assert any(name.endswith(HEAD) for name in unused)
    assert deviation(model) is not None
    assert deviation(model, unused) is None
