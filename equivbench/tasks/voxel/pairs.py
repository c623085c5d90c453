"""The voxel-denoising pairs: which arms, at which sizes, and why each is fair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.specs import PRESETS, ArmSpec, Group, PairPreset, PairSpec, Recipe
from equivbench.tasks.pairs import STEP_TIME, Configs, arm, pair, sizes, targets, tuning

# VoxMol's rate is 2e-5 over days; an hour needs more. Its dropout of .1 is left out: every
# evaluation is of the same function.
_RECIPES = {
    "dev": Recipe(3e-3, 4, "none", warmup_steps=10),
    "small": Recipe(4e-3, 4, "none", warmup_steps=20, ema=0.99),
    "paper": Recipe(2e-4, 32, "none", warmup_steps=1000, precision="bf16", compile=True),
}
_LEVELS: dict[str, Any] = {"mults": (1, 1, 2), "blocks": (0, 1, 1)}
_DEEP: dict[str, Any] = {"mults": (1, 2, 2, 4), "blocks": (2, 2, 2, 2)}
_SKELETON = {"dev": {"mults": (1, 1), "blocks": (0, 1)}, "small": _LEVELS, "paper": _DEEP}
_ATTENTION = {
    "dev": (False, False),
    "small": (False, False, False),
    "paper": (False, False, True, True),
}


def _presets(
    group: Group,
    rotations: tuple[int, int, int],
    test_samples: tuple[int, int, int],
    part_samples: tuple[int, int, int],
    baselines: tuple[Mapping[str, float], Mapping[str, float]],
) -> dict[str, PairPreset]:
    """What the arms share, with rotations and test samples by preset (dev, small, paper), and the
    baselines of ``dev`` and ``small``."""
    shared: tuple[dict[str, Any], ...] = (
        {"dataset": "conformers-16", "budget": "40steps", "rungs": 2, "baselines": baselines[0]},
        {"dataset": "conformers-small", "budget": "60s", "baselines": baselines[1]},
        {"dataset": "conformers-10k", "budget": "1h", "evaluated_at_once": 16},
    )
    return {
        preset: PairPreset(
            **each, rotations=turns, test_samples=whole, part_samples=part, group=group
        )
        for preset, each, turns, whole, part in zip(
            PRESETS, shared, rotations, test_samples, part_samples, strict=True
        )
    }


def _on_skeleton(configs: Configs, small: Mapping[str, Any] | None = None) -> Configs:
    """``configs`` of layers with the levels of the U-Net, at ``small`` perhaps others."""
    levels = {**_SKELETON, "small": small or _LEVELS}
    return {preset: {**config, **levels[preset]} for preset, config in configs.items()}


def _unet(
    name: str,
    configs: Configs,
    small: Mapping[str, Any] | None,
    tuned: Mapping[str, Any],
    symmetry_loss: float = 0.0,
) -> ArmSpec:
    """An augmented arm with the ordinary U-Net, at ``paper`` the published one."""
    configs = {
        preset: {**config, "attention": _ATTENTION[preset]}
        for preset, config in _on_skeleton(configs, small).items()
    }
    tuned = {"learning_rate": 1e-3, **tuned}
    widths: dict[str, int | str] = {"channels": "groups"}
    return arm(
        name,
        "unet",
        configs,
        _RECIPES,
        widths,
        small=tuned,
        augmentation="haar",
        symmetry_loss=symmetry_loss,
    )


_OCTAHEDRAL_TUNING = tuning(
    "60s", "28c54c5bde5a93b322327d7f76b9177010f578594b6ab6ea0217f19692aa132c"
)
_STEERABLE_TUNING = tuning(
    "600samples", "71f0ac0d95fb358b2b881d5464832ee271a88952de81a0b4b49570dc9cb2a867"
)

_WIDE = sizes("channels groups", (8, 4), (16, 8), (32, 32))
_WIDE_LEVELS = {"mults": (1, 2, 2), "blocks": (0, 2, 1)}
"""At ``small``."""

_FREE = sizes(
    "features free_channels free_mults relaxation",
    (1, 1, (1, 1), 0.1),
    (1, 2, (1, 1, 1), 0.1),
    (1, 3, (1, 2, 2, 2), 0.1),
)

OCTAHEDRAL = pair(
    "voxel/octahedral",
    "3D U-Net of cube-group convolutions against the ordinary one",
    (
        arm(
            "equivariant",
            "octahedral-unet",
            _on_skeleton(sizes("features", (1,), (1,), (1,))),
            _RECIPES,
            {"features": 1},
            small={"learning_rate": 4e-3, "batch_size": 2, **_OCTAHEDRAL_TUNING},
        ),
        _unet(
            "augmented",
            _WIDE,
            _WIDE_LEVELS,
            {"learning_rate": 2e-3, "batch_size": 2, **_OCTAHEDRAL_TUNING},
        ),
        _unet(
            "parameter-matched",
            sizes("channels groups", (5, 5), (5, 5), (5, 5)),
            None,
            {"learning_rate": 2e-3, "batch_size": 2},
        ),
        _unet(
            "symmetry-loss",
            _WIDE,
            _WIDE_LEVELS,
            {"learning_rate": 2e-3, "batch_size": 2},
            # The objective is the board metric.
            symmetry_loss=1.0,
        ),
        arm(
            "relaxed",
            "relaxed-octahedral-unet",
            _on_skeleton(_FREE),
            _RECIPES,
            {"features": 1, "free_channels": 1},
            small={"learning_rate": 4e-3, "batch_size": 2},
            augmentation="haar",
        ),
    ),
    _presets(
        "octahedral",
        (4, 4, 24),
        (8, 64, 128),
        (4, 16, 64),
        (
            {"zero": 0.0006588893113736021, "linear": 0.0005979504351802255},
            {"zero": 0.00034178965351066697, "linear": 0.00031982322564986495},
        ),
    ),
    "One skeleton, VoxMol's: residual blocks joined across the levels of a U-Net. The equivariant "
    "arm holds 24 copies of each feature, one for each rotation of the cube, and shares its "
    "filters among them; its strided filters are even, so that they lie symmetrically in the grid. "
    "The augmented arm spends the same seconds a step on ordinary filters. The third arm, "
    "parameter-matched, is the ordinary U-Net with as few parameters. `paper` is the published "
    "U-Net, with attention, which the equivariant arm does not have.",
    STEP_TIME,
    parameters=((11425, 30608, 12848), (36896, 1486376, 38673), (2501369, 111520424, 2731268)),
    steps=(0.055, 0.0482),
    hardware="amd-epyc-f26m2-2t",
    seconds=(0.055, 50.0, 30.0, 160.0),
    targets=targets(
        "60s",
        "fbdb5010811493e1935274979fb58a696921a421",
        "2026-11-30",
        equivariant=0.00019583,
        augmented=0.00017722,
    ),
)

STEERABLE = pair(
    "voxel/steerable",
    "3D U-Net of e3nn's steerable voxel convolutions against the ordinary one",
    (
        arm(
            "equivariant",
            "steerable-unet",
            _on_skeleton(
                sizes(
                    "copies diameter radial",
                    ((4, 2), 3.9, 2),
                    ((8, 3, 1), 3.9, 3),
                    ((8, 4, 2), 5.0, 3),
                )
            ),
            _RECIPES,
            {"copies": 1},
            small={"learning_rate": 6.4e-2, **_STEERABLE_TUNING},
        ),
        _unet(
            "augmented",
            sizes("channels groups", (8, 4), (24, 8), (32, 32)),
            {"mults": (1, 2, 2), "blocks": (0, 1, 1)},
            _STEERABLE_TUNING,
        ),
    ),
    _presets(
        "so3",
        (2, 2, 4),
        (8, 64, 256),
        (4, 16, 64),
        (
            {"zero": 0.0006527491556351272, "linear": 0.0005949124154489198},
            {"zero": 0.0003419314064393522, "linear": 0.0003201443515718885},
        ),
    ),
    "One skeleton, VoxMol's. The equivariant arm's features are irreps up to l = 2 and its filters "
    "radial functions times spherical harmonics, equivariant under SO(3) as far as the grid "
    "resolves them and exactly under the cube's rotations; it resamples by Fourier series, so that "
    "its levels fold no frequency back. The augmented arm spends the same seconds a step on "
    "ordinary filters. `paper` is the published U-Net, with attention, which the equivariant arm "
    "does not have.",
    STEP_TIME,
    parameters=((1618, 30608), (27450, 3020264), (2835522, 111520424)),
    steps=(0.238, 0.222),
    seconds=(0.24, 54.0, 75.0, 160.0),
)

PAIRS: tuple[PairSpec, ...] = (OCTAHEDRAL, STEERABLE)
