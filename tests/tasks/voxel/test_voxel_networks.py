"""The U-Nets: exact under the cube's rotations where declared, also after training, on every
shipped grid size."""

import pytest
import torch

from equivbench.errors import UsageError
from equivbench.symmetry.grids import permute_grid, rotate_grid
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.tasks.voxel.networks import octahedral, steerable, unet

TINY = {"mults": (1, 1), "blocks": (0, 1)}
BUILT = {
    "octahedral": lambda: octahedral.build({"features": 1, **TINY}),
    "steerable": lambda: steerable.build(
        {"copies": (2, 1, 1), "diameter": 3.9, "radial": 2, **TINY}
    ),
    "plain": lambda: unet.build({"channels": 8, "groups": 4, **TINY, "attention": (False, True)}),
}
EXACT = pytest.mark.parametrize("name", ["octahedral", "steerable"])


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return BUILT[name]()


def noise(size: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 8, size, size, size, generator=torch.Generator().manual_seed(0))


GENERATORS = torch.tensor([[[0, -1, 0], [1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, -1], [0, 1, 0]]])
"""Quarter turns about two axes: all 24 rotations are products of these."""


def worst_error(model: torch.nn.Module, size: int, rotations: torch.Tensor | None = None) -> float:
    """The largest |f(g x) - g f(x)| / |f(x)| over ``rotations`` (default: all 24)."""
    x = noise(size)
    with torch.no_grad():
        plainly = model(x)["density"]
        return max(
            float(
                (model(permute_grid(x, g[None]))["density"] - permute_grid(plainly, g[None])).norm()
                / plainly.norm()
            )
            for g in (octahedral_rotations() if rotations is None else rotations)
        )


def train(model: torch.nn.Module, steps: int = 3) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = noise(8, 2)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x)["density"] - x.clamp(min=0)).square().mean().backward()
        optimiser.step()


# Float32 sums over up to some thousand terms in another order: about 1e-6; the bound is the
# issue's.
@EXACT
@pytest.mark.parametrize(
    ("size", "rotations"), [(16, None), pytest.param(24, GENERATORS, marks=pytest.mark.slow)]
)
def test_cube_rotations_are_exact_untrained_and_trained(
    name: str, size: int, rotations: torch.Tensor | None
) -> None:
    model = built(name).eval()
    assert worst_error(model, size, rotations) < 1e-5
    train(model.train())
    assert worst_error(model.eval(), size, rotations) < 1e-5


@pytest.mark.slow
@EXACT
def test_the_published_grid_is_exact_too(name: str) -> None:
    assert worst_error(built(name).eval(), 64, GENERATORS) < 1e-5


def test_the_plain_network_is_not_equivariant() -> None:
    assert worst_error(built("plain").eval(), 16) > 0.1


def test_off_the_cube_the_steerable_network_errs_less_than_the_plain_one() -> None:
    # On fields that the grid resolves and that end well before its faces, where padding would break
    # the symmetry.
    size, rows = 16, 3
    centres = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1)
    at = 2 * torch.randn(
        rows, 8, 1, 1, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    smooth = torch.exp(-((points - at) ** 2).sum(-1) / (2 * 1.5**2))
    rotations = random_rotations(
        rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def error(name: str) -> float:
        model = built(name).eval().double()
        with torch.no_grad():
            expected = rotate_grid(model(smooth)["density"], rotations)
            return float(
                (model(rotate_grid(smooth, rotations))["density"] - expected).norm()
                / expected.norm()
            )

    assert error("steerable") < 0.5 * error("plain")


def test_expanded_filters_follow_the_weights() -> None:
    model = built("octahedral").eval()
    x = noise(8)
    with torch.no_grad():
        before = model(x)["density"]
        for parameter in model.parameters():
            parameter.data = 2 * parameter.data  # as the average of the weights is swapped in
        swapped = model(x)["density"]
        for parameter in model.parameters():
            parameter.data.mul_(0.5)
        back = model.eval()(x)["density"]
    assert not torch.equal(before, swapped)
    assert torch.equal(before, back)


def test_the_published_sizes() -> None:
    # 111.5M, 27.9M and 7.0M, as published for 32, 16 and 8 channels.
    published = {
        "mults": (1, 2, 2, 4),
        "blocks": (2, 2, 2, 2),
        "attention": (False, False, True, True),
    }
    counts = []
    for channels in (32, 16, 8):
        with torch.device("meta"):
            model = unet.build({"channels": channels, "groups": channels, **published})
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
    assert [round(count / 1e6, 1) for count in counts] == [111.5, 27.9, 7.0]


@pytest.mark.parametrize(("size", "levels"), [(6, 3), (9, 2), (4, 3)])
def test_a_grid_too_small_for_the_depth_is_named(size: int, levels: int) -> None:
    model = octahedral.build({"features": 1, "mults": (1,) * levels, "blocks": (0,) * levels})
    with pytest.raises(UsageError, match=rf"{size}\^3 voxels cannot be halved {levels - 1} times"):
        model(noise(size))


def test_levels_must_agree() -> None:
    with pytest.raises(UsageError, match="each level one"):
        unet.build(
            {
                "channels": 8,
                "groups": 4,
                "mults": (1, 1),
                "blocks": (1,),
                "attention": (False, False),
            }
        )
    with pytest.raises(UsageError, match="cannot change the width"):
        octahedral.build({"features": 1, "mults": (2, 1), "blocks": (0, 1)})
    with pytest.raises(UsageError, match="attention"):
        from equivbench.tasks.voxel.networks.unet import UNet

        UNet(octahedral.octahedral_layers(1), (1,), (1,), (True,))
