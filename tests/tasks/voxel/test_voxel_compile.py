"""The steerable U-Net, which is made of e3nn's irreps, is traced whole by torch.compile, for
batches of any size, and its gradients stay right."""

import pytest
import torch
from test_voxel_layout import gradients
from test_voxel_networks import TINY, noise

from equivbench.tasks.voxel.networks import steerable


def vectors_and_scalars() -> torch.nn.Module:
    """Further degrees are more passes through the same loops."""
    torch.manual_seed(0)
    return steerable.build({"copies": (2, 1), "diameter": 3.9, "radial": 2, **TINY}).double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "dynamic", "batches"),
    [
        # As a run compiles it, differentiated by autograd.
        ("eager", True, (2, 3)),
        # Differentiated by AOT autograd, without the slow C++ back end; with symbols for all sizes
        # that takes a minute.
        ("aot_eager", False, (2,)),
    ],
)
def test_one_graph_serves_every_batch_with_the_gradients_of_eager(
    backend: str, dynamic: bool, batches: tuple[int, ...]
) -> None:
    torch.compiler.reset()
    frames = 0

    def compiler(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> object:
        nonlocal frames
        frames += 1
        return getattr(torch._dynamo.backends.debugging, backend)(graph, example)

    model, compiled = vectors_and_scalars(), vectors_and_scalars()
    compiled.compile(backend=compiler, dynamic=dynamic, fullgraph=True)
    for rows in batches:
        x = noise(8, rows).double()
        expected, found = gradients(model, x), gradients(compiled, x)
        largest = max(float(each.abs().max()) for each in expected.values())
        for layer, wanted in expected.items():
            # float64, sums in another order.
            torch.testing.assert_close(
                found[layer], wanted, rtol=1e-7, atol=1e-10 * largest, msg=layer
            )
    assert frames == 1
