"""Every network compiles whole, for batches of any size, and its gradients stay right."""

import pytest
import torch
from molecules import alone, inputs_for, molecules
from test_forcefield_networks import NAMES, build

from equivbench.tasks.forcefield.conservative import ConservativeForces

# Forces as a gradient are one wrapper for all: of a cheap network, of e3nn's harmonics and of
# Wigner matrices. It traces the whole of them, so that they are not compiled once more without it,
# and differentiates all but the head of direct forces. escaip differs from escaip-tied in the
# number of rows of one matrix only.
CONSERVATIVE = ["painn", "nequip", "esen"]
DIRECT = [name for name in NAMES if name not in ("escaip", *CONSERVATIVE)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "conservative"),
    [*((name, False) for name in DIRECT), *((name, True) for name in CONSERVATIVE)],
    ids=[
        *(f"{name}-direct" for name in DIRECT),
        *(f"{name}-conservative" for name in CONSERVATIVE),
    ],
)
def test_one_graph_serves_every_batch_with_the_gradients_of_eager(
    name: str, conservative: bool
) -> None:
    """Traced by torch.compile and differentiated by AOT autograd, without the slow C++ back end."""
    torch.compiler.reset()
    network = build(name)
    model = ConservativeForces(network) if conservative else network
    frames = first = 0

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> object:
        nonlocal frames
        frames += 1
        return torch._dynamo.backends.debugging.aot_eager(graph, example)

    compiled = build(name)
    compiled_model = ConservativeForces(compiled) if conservative else compiled
    compiled_model.compile(backend=backend, dynamic=True, fullgraph=True)
    for sample in (molecules(), molecules(seed=1), alone_pair()):
        inputs = inputs_for(network, sample)
        for one in (model, compiled_model):
            one.zero_grad()
            out = one(**inputs)
            (out["forces"].square().sum() + out["energy"].square().sum()).backward()
        for (key, expected), found in zip(
            network.named_parameters(), compiled.parameters(), strict=True
        ):
            if expected.grad is None:
                assert found.grad is None, key
                continue
            # float64, sums in another order.
            torch.testing.assert_close(found.grad, expected.grad, atol=1e-9, rtol=1e-7, msg=key)
        first = first or frames
    assert 0 < first == frames  # later batches, of other sizes, brought no graph of their own


def alone_pair() -> dict[str, torch.Tensor]:
    """Two molecules: another number of molecules, atoms and edges."""
    sample = molecules(seed=2)
    first, second = alone(sample, 0), alone(sample, 1)
    second["batch"] = second["batch"] + 1
    return {key: torch.cat([first[key], second[key]]) for key in first}
