"""The relaxed arms: what is added to the equivariant network, on which scale, and that both
together have its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from chains import inputs as chain_inputs
from molecules import inputs_for, molecules
from torch import Tensor, nn

from equivbench.registry import MODELS, PAIRS, resolve
from equivbench.specs import PRESETS
from equivbench.tasks.relaxed import Relaxed

NAMES = ["forcefield/vector", "flow/frames", "voxel/octahedral"]
EACH = pytest.mark.parametrize("pair", NAMES)


def build(pair: str, arm: str, preset: str = "dev") -> nn.Module:
    spec = PAIRS.get(pair).arm(arm)
    network: nn.Module = resolve(MODELS.get(spec.model).build)(spec.presets[preset].config)
    return network


def random_network(pair: str) -> nn.Module:
    """The dev network with all weights random: what starts at zero would hide what it
    multiplies."""
    torch.manual_seed(3)
    network = build(pair, "relaxed")
    for parameter in network.parameters():
        if not bool(parameter.detach().any()):
            nn.init.normal_(parameter, std=0.1)
    return network.double()


def inputs_of(pair: str, network: nn.Module) -> Mapping[str, Tensor]:
    if pair == "forcefield/vector":
        return inputs_for(network, molecules())
    if pair == "flow/frames":
        return chain_inputs()
    drawn = torch.Generator().manual_seed(0)
    return {"noisy": torch.randn(2, 8, 8, 8, 8, generator=drawn, dtype=torch.float64)}


def relaxed_in(network: nn.Module) -> Relaxed:
    (found,) = (each for each in network.modules() if isinstance(each, Relaxed))
    return found


def outputs_at(
    relaxation: float, network: nn.Module, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    relaxed_in(network).relaxation = relaxation
    with torch.no_grad():
        found: dict[str, Tensor] = network(**inputs)
    return found


@EACH
def test_what_is_added_is_the_pathway_on_the_scale_of_the_relaxation(pair: str) -> None:
    network = random_network(pair)
    inputs = inputs_of(pair, network)
    none, some, more = (outputs_at(each, network, inputs) for each in (0.0, 0.1, 0.3))
    for name, without in none.items():
        # Float64 numbers of order one.
        torch.testing.assert_close(
            3 * (some[name] - without), more[name] - without, rtol=0, atol=1e-12
        )
        assert float((some[name] - without).abs().max()) > 1e-5


@EACH
def test_without_relaxation_it_is_the_equivariant_network(pair: str) -> None:
    network = random_network(pair)
    inputs = inputs_of(pair, network)
    found, relaxed = outputs_at(0.0, network, inputs), relaxed_in(network)
    for parameter in relaxed.free.parameters():
        nn.init.normal_(parameter)
    for name, output in outputs_at(0.0, network, inputs).items():
        assert torch.equal(output, found[name])
    # Twice the equivariant network is not it, so what it gives is seen here.
    relaxed.free = relaxed.equivariant
    twice = outputs_at(1.0, network, inputs)
    assert any(not torch.equal(twice[name], output) for name, output in found.items())


@EACH
@pytest.mark.parametrize("preset", PRESETS)
def test_it_has_the_equivariant_arm_s_parameters_and_recipe(pair: str, preset: str) -> None:
    def parameters(arm: str) -> int:
        # Tables of the cube group are made on the CPU; the largest networks need no memory here.
        with torch.device("cpu" if pair == "voxel/octahedral" else "meta"):
            return sum(each.numel() for each in build(pair, arm, preset).parameters())

    # As near as the pairs' own matches are stated.
    assert abs(parameters("relaxed") / parameters("equivariant") - 1) < 0.15
    relaxed, equivariant = (
        PAIRS.get(pair).arm(arm).presets[preset].recipe for arm in ("relaxed", "equivariant")
    )
    assert (relaxed.learning_rate, relaxed.batch_size) == (
        equivariant.learning_rate,
        equivariant.batch_size,
    )
    assert (relaxed.augmentation, relaxed.tuned_at) == ("haar", None)


def test_both_parts_of_a_molecular_network_see_the_same_neighbours() -> None:
    relaxed = relaxed_in(build("forcefield/vector", "relaxed"))
    assert relaxed.requires == relaxed.equivariant.requires == relaxed.free.requires
