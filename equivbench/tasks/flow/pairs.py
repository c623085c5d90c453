"""The flow-matching pairs: which arms, at which sizes, and why each is fair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equivbench.specs import ArmPreset, ArmSpec, MatchSpec, PairPreset, PairSpec, Recipe

_PRESETS = {
    "dev": PairPreset(
        dataset="ca-crops-64",
        budget="40steps",
        evaluations=3,
        rotations=2,
        test_samples=8,
        evaluated_at_once=16,
    ),
    "small": PairPreset(
        dataset="ca-crops-64",
        budget="60s",
        evaluations=7,
        rotations=2,
        test_samples=68,
        evaluated_at_once=16,
    ),
    "paper": PairPreset(dataset="ca-folder", budget="1h", evaluations=12, rotations=4),
}

# Published: Adam 1e-4, batch 4, about a million rows. An hour is a small part of that, hence a
# higher rate and larger batch.
_RECIPES = {
    "dev": Recipe(learning_rate=2e-3, batch_size=4, augmentation="none", warmup_steps=10),
    "small": Recipe(learning_rate=3e-3, batch_size=16, augmentation="none"),
    "paper": Recipe(
        learning_rate=2e-4,
        batch_size=16,
        augmentation="none",
        weight_decay=0.0,
        warmup_steps=1000,
        precision="bf16",
        compile=True,
    ),
}

_PLAIN: dict[str, dict[str, Any]] = {
    "dev": {
        "dim": 32,
        "layers": 2,
        "heads": 2,
        "expansion": 2,
        "pair": 8,
        "time": 16,
        "bins": 8,
        "data_scale": 0.8,
    },
    "small": {
        "dim": 96,
        "layers": 4,
        "heads": 4,
        "expansion": 2,
        "pair": 16,
        "time": 64,
        "bins": 16,
        "data_scale": 0.8,
    },
    "paper": {
        "dim": 512,
        "layers": 10,
        "heads": 8,
        "expansion": 4,
        "pair": 256,
        "time": 512,
        "bins": 30,
        "data_scale": 1.0,
    },
}
_VECTORS: dict[str, dict[str, int]] = {
    "dev": {"vectors": 4, "products": 4},
    "small": {"vectors": 2, "products": 4},
    "paper": {"vectors": 32, "products": 32},
}
_POINTS: dict[str, dict[str, int]] = {
    "dev": {"scalars": 8, "query_points": 2, "value_points": 4},
    "small": {"scalars": 12, "query_points": 3, "value_points": 4},
    "paper": {"scalars": 64, "query_points": 8, "value_points": 16},
}
_WIDTHS: dict[str, int | str] = {"dim": "heads", "pair": 1}


def _arm(
    name: str,
    model: str,
    extra: Mapping[str, Mapping[str, int]],
    tuned: Mapping[str, Any],
    **recipe: Any,
) -> ArmSpec:
    """An arm of the plain network's sizes with its own ``extra`` entries.

    ``recipe`` changes all presets' recipes, ``tuned`` that of ``small``.
    """
    presets = {
        preset: ArmPreset({**_PLAIN[preset], **extra.get(preset, {})}, replace(base, **recipe))
        for preset, base in _RECIPES.items()
    }
    presets["small"] = replace(presets["small"], recipe=replace(presets["small"].recipe, **tuned))
    return ArmSpec(name, model, presets, widths=_WIDTHS)


def _augmented(tuned: Mapping[str, Any]) -> ArmSpec:
    return _arm("augmented", "backbone-transformer", {}, tuned, augmentation="haar")


_VECTOR_HEAD_TUNING = {
    "tuned_at": "3200samples",
    "tuning_log_sha256": "61b079f80a3474184cf7abe5701184bd7dfe968b619db1132440dd1b85d3e3c7",
}
_FRAMES_TUNING = {
    "tuned_at": "3200samples",
    "tuning_log_sha256": "fac05700ca54bf1455d6fe97241db3594ab2d24566927d3d4b6ad7a65e6cc34a",
}

VECTOR_HEAD = PairSpec(
    name="vector-head",
    task="flow",
    summary="pair-biased transformer on invariants with an SO(3) vector head, against the same "
    "transformer on raw coordinates",
    arms=(
        _arm(
            "equivariant", "vector-head", _VECTORS, {"learning_rate": 6e-3, **_VECTOR_HEAD_TUNING}
        ),
        _augmented({"learning_rate": 3e-3, **_VECTOR_HEAD_TUNING}),
    ),
    matching=MatchSpec(
        what=(
            "One trunk, layer for layer: the same pair features, biases, attention and "
            "transitions. The augmented arm reads "
            "x_t and x_sc as six numbers a residue and writes three; the equivariant arm reads "
            "distances, angles and signed "
            "volumes and writes sums of attended vectors and cross products. It is equivariant "
            "under rotations and not under "
            "mirrors, as proteins ask. Both predict the velocity about the same Gaussian prior."
        ),
        target="the trunk; seconds of a training step (forward, backward, optimiser) within 15%",
        hardware="amd-epyc-f25m17-2t",
        measured={
            "dev": {"equivariant parameters": 37546, "augmented parameters": 33863},
            "small": {
                "equivariant parameters": 584526,
                "augmented parameters": 577459,
                "equivariant step_seconds": 0.108,
                "augmented step_seconds": 0.0967,
            },
            "paper": {"equivariant parameters": 61534578, "augmented parameters": 61185619},
        },
    ),
    seconds={"small": {"step": 0.092, "off_budget": 34.0, "gradients": 75.0, "landscape": 115.0}},
    presets=_PRESETS,
)

FRAMES = PairSpec(
    name="frames",
    task="flow",
    summary="invariant point attention between frames of CA triplets, against a pair-biased "
    "transformer on raw coordinates",
    arms=(
        _arm(
            "equivariant", "backbone-frames", _POINTS, {"learning_rate": 1.2e-2, **_FRAMES_TUNING}
        ),
        _augmented({"learning_rate": 3e-3, **_FRAMES_TUNING}),
    ),
    matching=MatchSpec(
        what=(
            "What each side would run given the same device-seconds a step: attention over points "
            "in local frames with the "
            "velocity read in them, against plain attention on coordinates. Same width, depth, "
            "pair features, transitions, "
            "prior, batch size and objective; parameters are stated, not matched."
        ),
        target="seconds of a training step (forward, backward, optimiser) within 15%",
        hardware="amd-epyc-f25m17-2t",
        measured={
            "dev": {"equivariant parameters": 33835, "augmented parameters": 33863},
            "small": {
                "equivariant parameters": 539939,
                "augmented parameters": 577459,
                "equivariant step_seconds": 0.106,
                "augmented step_seconds": 0.0967,
            },
            "paper": {"equivariant parameters": 65123491, "augmented parameters": 61185619},
        },
    ),
    seconds={"small": {"step": 0.088, "off_budget": 33.0, "gradients": 70.0, "landscape": 160.0}},
    presets=_PRESETS,
)

PAIRS: tuple[PairSpec, ...] = (VECTOR_HEAD, FRAMES)
