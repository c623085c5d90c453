"""Between input and output the grids of a U-Net lie in memory with their channels innermost, and
what it computes is what it computes on grids that lie as usual."""

from collections.abc import Callable

import pytest
import torch
from test_voxel_networks import BUILT, built, noise
from torch import Tensor, nn

from equivbench.kernels.backends.plain.grids import CubeLayer, cube_bank, cube_places
from equivbench.kernels.operations.cube_convolution import ORDER
from equivbench.tasks.voxel.networks.unet import VoxelLinear

KEPT = ["octahedral", "plain"]
"""The steerable network's Fourier series give grids in the usual layout, its layers take both."""


def innermost(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {name: each for name, each in model.named_modules() if not list(each.children())}


@pytest.mark.parametrize("name", KEPT)
def test_no_layer_falls_out_of_the_layout_and_no_gradient_does(name: str) -> None:
    seen: dict[str, list[bool]] = {}

    def note(layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], made: object) -> None:
            found = [
                each for each in (*given, made) if isinstance(each, Tensor) and each.dim() == 5
            ]
            seen.setdefault(layer, []).extend(innermost(each) for each in found)
            # Gradients by some of a joined grid's channels have gaps, but the same order.
            if isinstance(made, Tensor) and made.dim() == 5 and not layer.startswith("out.2"):
                made.register_hook(lambda gradient: seen[layer].append(gradient.stride(1) == 1))

        return hook

    model = built(name)
    for layer, module in leaves(model).items():
        module.register_forward_hook(note(layer))
    density = model(noise(8, 2))["density"]
    assert density.is_contiguous()
    density.square().sum().backward()
    assert len(seen) > 10
    assert {layer: found for layer, found in seen.items() if not all(found)} == {}
    # As checkpoints, optimisers and sums over ranks take them.
    assert all(each.is_contiguous() for each in model.parameters())


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of a random combination of the outputs by all weights, and the outputs themselves."""
    model.zero_grad()
    out = model(x)["density"]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    (out * weights).sum().backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters()}
    return {"density": out.detach(), **found}


@pytest.mark.parametrize("name", sorted(BUILT))
@pytest.mark.parametrize(
    # A sum of some thousand terms in another order, through some ten layers.
    ("dtype", "allowed"),
    [(torch.float64, 1e-11), (torch.float32, 2e-4)],
)
def test_it_is_the_function_of_grids_that_lie_as_usual(
    name: str, dtype: torch.dtype, allowed: float
) -> None:
    model, x = built(name).to(dtype), noise(8, 2).to(dtype)
    found = gradients(model, x)

    def usual(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(each.contiguous() for each in given)

    for module in leaves(model).values():
        module.register_forward_pre_hook(usual)
    expected = gradients(model, x)
    assert found.keys() == expected.keys()
    # A bias before a normalisation has a gradient of 0, and rounding.
    largest = max(float(each.norm()) for name, each in expected.items() if name != "density")
    for layer, wanted in expected.items():
        size = max(float(wanted.norm()), 1e-2 * largest)
        assert float((found[layer] - wanted).norm()) < allowed * size, layer


def test_a_linear_map_of_voxels_is_the_convolution_of_one_voxel() -> None:
    torch.manual_seed(0)
    layer, x = VoxelLinear(8, 5).double(), noise(4, 2).double()
    expected = nn.functional.conv3d(x, layer.weight, layer.bias)
    for given in (x, x.contiguous(memory_format=torch.channels_last_3d)):
        # Sums of eight terms of order one in another order.
        torch.testing.assert_close(layer(given), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["lift", "group", "project"])
def test_a_bank_holds_each_filter_turned_for_each_copy(kind: CubeLayer) -> None:
    """bank(g out, h in) at s is w(out, in) at (g^-1 h, g^-1 s); a grid has no copies."""
    first, second, kernel = 2, 3, 3
    copies = ORDER if kind == "group" else 1
    weight = torch.randn(first, second, copies * kernel**3)
    place = cube_places(kernel, copies)
    bank = cube_bank(weight, place, kernel, kind)
    assert innermost(bank)
    filters = weight[:, :, place].unflatten(-1, (kernel,) * 3)
    if kind == "lift":  # [out, in, g, ...]
        expected = filters.transpose(1, 2).flatten(0, 1)
    elif kind == "project":  # [out, in, h, ...]
        expected = filters.flatten(1, 2)
    else:  # [out, in, g, h, ...]
        expected = filters.transpose(1, 2).flatten(0, 1).flatten(1, 2)
    assert torch.equal(bank, expected)
