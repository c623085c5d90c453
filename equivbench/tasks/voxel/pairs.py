"""The voxel-denoising pairs: which arms, at which sizes, and why each is fair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equivbench.specs import ArmPreset, ArmSpec, MatchSpec, PairPreset, PairSpec, Recipe

# VoxMol's rate is 2e-5 over days; an hour needs more. Its dropout of .1 is left out: every
# evaluation is of the same function.
_RECIPES = {
    "dev": Recipe(learning_rate=3e-3, batch_size=4, augmentation="none", warmup_steps=10),
    "small": Recipe(
        learning_rate=4e-3, batch_size=4, augmentation="none", warmup_steps=20, ema=0.99
    ),
    "paper": Recipe(
        learning_rate=2e-4,
        batch_size=32,
        augmentation="none",
        warmup_steps=1000,
        precision="bf16",
        compile=True,
    ),
}


def _arm(
    name: str,
    model: str,
    configs: Mapping[str, Mapping[str, Any]],
    widths: Mapping[str, int | str],
    tuned: Mapping[str, Any],
    **recipe: Any,
) -> ArmSpec:
    """An arm with its three presets; ``recipe`` changes all presets' recipes, ``tuned`` that of
    ``small``."""
    presets = {
        preset: ArmPreset(configs[preset], replace(base, **recipe))
        for preset, base in _RECIPES.items()
    }
    presets["small"] = replace(presets["small"], recipe=replace(presets["small"].recipe, **tuned))
    return ArmSpec(name, model, presets, widths=widths)


_PUBLISHED: dict[str, Any] = {
    "channels": 32,
    "groups": 32,
    "mults": (1, 2, 2, 4),
    "blocks": (2, 2, 2, 2),
    "attention": (False, False, True, True),
}
UNET_SIZES: Mapping[str, Mapping[str, Any]] = {
    "111M": _PUBLISHED,
    "28M": {**_PUBLISHED, "channels": 16, "groups": 16},
    "7M": {**_PUBLISHED, "channels": 8, "groups": 8},
}
"""The published U-Net and its smaller versions; ``paper`` uses 111M."""

_TINY = {"mults": (1, 1), "blocks": (0, 1)}
_SHALLOW = {"mults": (1, 1, 2), "blocks": (0, 1, 1)}
_DEEP = {"mults": (1, 2, 2, 4), "blocks": (2, 2, 2, 2)}
_NO_ATTENTION = {"attention": (False, False, False)}
_PLAIN_DEV = {"channels": 8, "groups": 4, **_TINY, "attention": (False, False)}
_PLAIN_WIDTHS: dict[str, int | str] = {"channels": "groups"}


def _unet(
    name: str,
    small: Mapping[str, Any],
    tuned: Mapping[str, Any],
    dev: Mapping[str, Any] = _PLAIN_DEV,
    paper: Mapping[str, Any] = _PUBLISHED,
) -> ArmSpec:
    """An augmented arm with the ordinary U-Net."""
    configs = {"dev": dev, "small": {**small, **_NO_ATTENTION}, "paper": paper}
    return _arm(name, "unet", configs, _PLAIN_WIDTHS, tuned, augmentation="haar")


# voxel/octahedral
# --------------------------------------------------------------------------------------------------

_OCTAHEDRAL_TUNING = {
    "tuned_at": "600samples",
    "tuning_log_sha256": "9aa60d4c09bce2171392c842df888ddbf406cac62716cee5da044f9a56fc8f06",
}
_OCTAHEDRAL = {
    "dev": {"features": 1, **_TINY},
    "small": {"features": 1, **_SHALLOW},
    "paper": {"features": 1, **_DEEP},
}

OCTAHEDRAL = PairSpec(
    name="octahedral",
    task="voxel",
    summary="3D U-Net of cube-group convolutions against the ordinary one",
    arms=(
        _arm(
            "equivariant",
            "octahedral-unet",
            _OCTAHEDRAL,
            {"features": 1},
            {"learning_rate": 5e-4, **_OCTAHEDRAL_TUNING},
        ),
        _unet(
            "augmented",
            {"channels": 16, "groups": 8, "mults": (1, 2, 2), "blocks": (0, 2, 1)},
            {"learning_rate": 1e-3, **_OCTAHEDRAL_TUNING},
        ),
        _unet(
            "parameter-matched",
            {"channels": 5, "groups": 5, **_SHALLOW},
            {"learning_rate": 1e-3},
            dev={**_PLAIN_DEV, "channels": 5, "groups": 5},
            paper={**_PUBLISHED, "channels": 5, "groups": 5},
        ),
    ),
    matching=MatchSpec(
        what=(
            "One skeleton, VoxMol's: residual blocks joined across the levels of a U-Net. The "
            "equivariant arm holds 24 copies "
            "of each feature, one for each rotation of the cube, and shares its filters among "
            "them; its strided filters are "
            "even, so that they lie symmetrically in the grid. The augmented arm spends the same "
            "seconds a step on ordinary "
            "filters. The third arm, parameter-matched, is the ordinary U-Net with as few "
            "parameters. `paper` is the published "
            "U-Net, with attention, which the equivariant arm does not have."
        ),
        target="seconds of a training step (forward, backward, optimiser) within 15%",
        hardware="amd-epyc-f25m17-2t",
        measured={
            "dev": {
                "equivariant parameters": 11425,
                "augmented parameters": 30608,
                "parameter-matched parameters": 12848,
            },
            "small": {
                "equivariant parameters": 36896,
                "augmented parameters": 1486376,
                "parameter-matched parameters": 38673,
                "equivariant step_seconds": 0.164,
                "augmented step_seconds": 0.152,
            },
            "paper": {
                "equivariant parameters": 2501369,
                "augmented parameters": 111520424,
                "parameter-matched parameters": 2731268,
            },
        },
    ),
    seconds={"small": {"step": 0.16, "off_budget": 75.0, "gradients": 30.0, "landscape": 160.0}},
    presets={
        "dev": PairPreset(
            dataset="conformers-16",
            budget="40steps",
            evaluations=3,
            rotations=24,
            test_samples=4,
            group="octahedral",
        ),
        "small": PairPreset(
            dataset="conformers-small",
            budget="60s",
            evaluations=6,
            rotations=24,
            test_samples=20,
            group="octahedral",
        ),
        "paper": PairPreset(
            dataset="conformers-10k",
            budget="1h",
            evaluations=12,
            rotations=24,
            test_samples=128,
            group="octahedral",
            evaluated_at_once=16,
        ),
    },
)

# voxel/steerable
# --------------------------------------------------------------------------------------------------

_STEERABLE_TUNING = {
    "tuned_at": "600samples",
    "tuning_log_sha256": "71f0ac0d95fb358b2b881d5464832ee271a88952de81a0b4b49570dc9cb2a867",
}

STEERABLE = PairSpec(
    name="steerable",
    task="voxel",
    summary="3D U-Net of e3nn's steerable voxel convolutions against the ordinary one",
    arms=(
        _arm(
            "equivariant",
            "steerable-unet",
            {
                "dev": {"copies": (4, 2), "diameter": 3.9, "radial": 2, **_TINY},
                "small": {"copies": (8, 3, 1), "diameter": 3.9, "radial": 3, **_SHALLOW},
                "paper": {"copies": (8, 4, 2), "diameter": 5.0, "radial": 3, **_DEEP},
            },
            {"copies": 1},
            {"learning_rate": 6.4e-2, **_STEERABLE_TUNING},
        ),
        _unet(
            "augmented",
            {"channels": 24, "groups": 8, "mults": (1, 2, 2), "blocks": (0, 1, 1)},
            {"learning_rate": 1e-3, **_STEERABLE_TUNING},
        ),
    ),
    matching=MatchSpec(
        what=(
            "One skeleton, VoxMol's. The equivariant arm's features are irreps up to l = 2 and its "
            "filters radial functions "
            "times spherical harmonics, equivariant under SO(3) as far as the grid resolves them "
            "and exactly under the "
            "cube's rotations; it resamples by Fourier series, so that its levels fold no "
            "frequency back. The augmented arm "
            "spends the same seconds a step on ordinary filters. `paper` is the published U-Net, "
            "with attention, which the "
            "equivariant arm does not have."
        ),
        target="seconds of a training step (forward, backward, optimiser) within 15%",
        hardware="amd-epyc-f25m17-2t",
        measured={
            "dev": {"equivariant parameters": 1618, "augmented parameters": 30608},
            "small": {
                "equivariant parameters": 27450,
                "augmented parameters": 3020264,
                "equivariant step_seconds": 0.238,
                "augmented step_seconds": 0.222,
            },
            "paper": {"equivariant parameters": 2835522, "augmented parameters": 111520424},
        },
    ),
    seconds={"small": {"step": 0.24, "off_budget": 54.0, "gradients": 75.0, "landscape": 160.0}},
    presets={
        "dev": PairPreset(
            dataset="conformers-16",
            budget="40steps",
            evaluations=3,
            rotations=2,
            test_samples=8,
            group="so3",
        ),
        "small": PairPreset(
            dataset="conformers-small",
            budget="60s",
            evaluations=6,
            rotations=2,
            test_samples=64,
            group="so3",
        ),
        "paper": PairPreset(
            dataset="conformers-10k",
            budget="1h",
            evaluations=12,
            rotations=4,
            test_samples=256,
            group="so3",
            evaluated_at_once=16,
        ),
    },
)

PAIRS: tuple[PairSpec, ...] = (OCTAHEDRAL, STEERABLE)
