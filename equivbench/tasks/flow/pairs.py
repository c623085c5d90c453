"""The flow-matching pairs: which arms, at which sizes, and why each is fair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.specs import ArmSpec, PairPreset, PairSpec, Recipe
from equivbench.tasks.pairs import STEP_TIME, Configs, arm, pair, sizes, targets, tuning

_PRESETS = {
    "dev": PairPreset(
        "ca-crops-64",
        "40steps",
        rungs=2,
        rotations=2,
        test_samples=8,
        part_samples=4,
        evaluated_at_once=16,
        baselines={
            "zero": 1.7852303667153284,
            "linear": 0.003414348748644287,
            "isotropic": 0.007427185054613886,
        },
    ),
    "small": PairPreset(
        "ca-crops-64",
        "60s",
        rotations=2,
        test_samples=48,
        part_samples=12,
        evaluated_at_once=16,
        baselines={
            "zero": 1.9586624947483466,
            "linear": 0.0034803881512065512,
            "isotropic": 0.007613605705302629,
        },
        baselines_on={
            "ca-windows-64": {
                "zero": 1.6909416254670144,
                "linear": 0.0033445043566473665,
                "isotropic": 0.007137676717724713,
            }
        },
    ),
    "paper": PairPreset("ca-folder", "1h", rotations=2, test_samples=192, part_samples=16),
}

# Published: Adam 1e-4, batch 4, about a million rows. An hour is a small part of that, hence a
# higher rate and larger batch.
_RECIPES = {
    "dev": Recipe(2e-3, 4, "none", warmup_steps=10),
    "small": Recipe(3e-3, 16, "none"),
    "paper": Recipe(
        2e-4, 16, "none", weight_decay=0.0, warmup_steps=1000, precision="bf16", compile=True
    ),
}

_PLAIN = sizes(
    "dim layers heads expansion pair time bins data_scale",
    (32, 2, 2, 2, 8, 16, 8, 0.8),
    (96, 4, 4, 2, 16, 64, 16, 0.8),
    (512, 10, 8, 4, 256, 512, 30, 1.0),
)
_VECTORS = sizes("vectors products", (4, 4), (2, 4), (32, 32))
_POINTS = sizes("scalars query_points value_points", (8, 2, 4), (12, 3, 4), (64, 8, 16))
_RELAXED = sizes("dim free_dim relaxation", (26, 12, 0.1), (80, 32, 0.1), (448, 192, 0.1))
"""Widths in place of those of the network in frames, whose parameters both networks then have."""
_WIDTHS: dict[str, int | str] = {"dim": "heads", "pair": 1}


def _arms(
    model: str, extra: Configs, rates: tuple[float, float], tuned: Mapping[str, Any]
) -> tuple[ArmSpec, ArmSpec]:
    """An equivariant network of the plain one's sizes with its own ``extra`` entries, and the plain
    one; ``rates`` are the tuned learning rates of the two."""
    configs = {preset: {**plain, **extra[preset]} for preset, plain in _PLAIN.items()}
    mine, plain_ones = ({"learning_rate": rate, **tuned} for rate in rates)
    return (
        arm("equivariant", model, configs, _RECIPES, _WIDTHS, small=mine),
        _plain_arm("augmented", plain_ones, augmentation="haar"),
    )


def _plain_arm(
    name: str, small: Mapping[str, Any], wrapper: str | None = None, **changes: Any
) -> ArmSpec:
    """An arm with the plain network; the rest as in :func:`equivbench.tasks.pairs.arm`."""
    return arm(
        name,
        "backbone-transformer",
        _PLAIN,
        _RECIPES,
        _WIDTHS,
        wrapper=wrapper,
        small=small,
        **changes,
    )


VECTOR_HEAD = pair(
    "flow/vector-head",
    "pair-biased transformer on invariants with an SO(3) vector head, against the same transformer "
    "on raw coordinates",
    _arms(
        "vector-head",
        _VECTORS,
        (6e-3, 3e-3),
        tuning("3200samples", "61b079f80a3474184cf7abe5701184bd7dfe968b619db1132440dd1b85d3e3c7"),
    ),
    _PRESETS,
    "One trunk, layer for layer: the same pair features, biases, attention and transitions. The "
    "augmented arm reads x_t and x_sc as six numbers a residue and writes three; the equivariant "
    "arm reads distances, angles and signed volumes and writes sums of attended vectors and cross "
    "products. It is equivariant under rotations and not under mirrors, as proteins ask. Both "
    "predict the velocity about the same Gaussian prior.",
    f"the trunk; {STEP_TIME}",
    parameters=((37546, 33863), (584526, 577459), (61534578, 61185619)),
    steps=(0.108, 0.0967),
    seconds=(0.092, 34.0, 75.0, 115.0),
)

_UNTUNED = {"learning_rate": 1.2e-2}
"""Of the further arms with the plain network, which have the augmented one's rate."""

FRAMES = pair(
    "flow/frames",
    "invariant point attention between frames of CA triplets, against a pair-biased transformer on "
    "raw coordinates",
    (
        *_arms(
            "backbone-frames",
            _POINTS,
            (6e-3, 1.2e-2),
            tuning("60s", "b922abd2c5a8c6c382ca79fc6fb1a5fecda30a8f36d225c53d5bf13450c83894"),
        ),
        *(
            _plain_arm(wrapper, _UNTUNED, wrapper)
            for wrapper in ("frames", "stochastic-frames", "canonical")
        ),
        # The weight that a batch's samples have in the objective is of that order.
        _plain_arm("symmetry-loss", _UNTUNED, augmentation="haar", symmetry_loss=100.0),
        arm(
            "relaxed",
            "relaxed-frames",
            {
                preset: {**plain, **_POINTS[preset], **_RELAXED[preset]}
                for preset, plain in _PLAIN.items()
            },
            _RECIPES,
            {**_WIDTHS, "free_dim": "heads"},
            small={"learning_rate": 6e-3},
            augmentation="haar",
        ),
    ),
    _PRESETS,
    "What each side would run given the same device-seconds a step: attention over points in local "
    "frames with the velocity read in them, against plain attention on coordinates. Same width, "
    "depth, pair features, transitions, prior, batch size and objective; parameters are stated, "
    "not matched.",
    STEP_TIME,
    parameters=((33835, 33863), (539939, 577459), (65123491, 61185619)),
    steps=(0.106, 0.0967),
    seconds=(0.098, 43.0, 70.0, 160.0),
    targets=targets(
        "60s",
        "c8e579e88f863cc0f2b2e9159df619ccbee239f1",
        "2026-11-30",
        equivariant=0.0028936,
        augmented=0.0031625,
    ),
)

PAIRS: tuple[PairSpec, ...] = (VECTOR_HEAD, FRAMES)
