"""What a pair, an arm and a recipe are. Pure data: declaring one imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Preset = Literal["dev", "small", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Augmentation = Literal["none", "haar"]
Precision = Literal["float32", "tf32", "bf16"]
Optimizer = Literal["adamw", "adam", "nadam", "radam", "adamax", "rmsprop", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)


@dataclass(frozen=True)
class Recipe:
    """How an arm is trained: by default AdamW; linear warm-up then a constant rate, EMA min(ema,
    (1+n)/(10+n))."""

    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    weight_decay: float = 0.01
    warmup_steps: int = 50
    clip_norm: float | None = 10.0
    ema: float = 0.999
    precision: Precision = "float32"
    compile: bool = False
    optimizer: Optimizer = "adamw"
    """What each does: :mod:`equivbench.training.optimiser`."""
    augmentation_fraction: float = 1.0
    """Probability with which a sample of a batch is rotated, where the recipe augments."""
    tuned_at: str | None = None
    """The budget per trial at which ``equivbench tune`` chose rate and batch size, e.g.
    ``"20s"``."""
    tuning_log_sha256: str | None = None


@dataclass(frozen=True)
class ArmPreset:
    """An arm at one size: the model's config and its recipe."""

    config: Mapping[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Arm:
    """A model and how it gets its symmetry.

    ``wrapper`` is None, or ``twirl-N`` (average over N rotations when evaluated), ``frames`` or
    ``canonical`` (:mod:`equivbench.symmetry.wrappers`).
    """

    name: str
    model: str
    presets: Mapping[str, ArmPreset]
    wrapper: str | None = None
    widths: Mapping[str, int | str] = field(default_factory=dict)
    """The config's widths, which a size sweep multiplies, each with what it must stay a multiple
    of: a number, or the name of another config key (``{"width": "heads"}``). A width may be a
    number or a list of them."""


@dataclass(frozen=True)
class MatchStatement:
    """Why the pair is fair: what the arms share, what is equalised, and what was measured where."""

    what: str
    target: str
    hardware: str | None = None
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By preset: ``"ARM parameters"``, and where step times are matched ``"ARM step_seconds"`` on
    ``hardware``."""


@dataclass(frozen=True)
class PairPreset:
    """What both arms share at one preset."""

    dataset: str
    budget: str
    """Default budget per arm, as ``--budget`` takes it."""
    evaluations: int = 12
    """Log-spaced evaluations over the budget, the last at its end."""
    rotations: int = 4
    """Haar draws per test sample in each evaluation."""
    test_samples: int | None = None
    """Test samples evaluated (a fixed spread over all test groups); None is all."""
    group: Literal["so3", "octahedral"] | None = None
    """The group of the equivariance error; None is the task's own."""
    evaluated_at_once: int | None = None
    """Samples in a forward pass of an evaluation; None: 16 on a CPU, 256 on a GPU."""


@dataclass(frozen=True)
class Pair:
    """Two arms (or more) of one task under one statement of what is matched."""

    name: str
    task: str
    summary: str
    arms: tuple[Arm, ...]
    """The first two are the contestants, trained by default; further ones are trained when asked
    for by name."""
    matching: MatchStatement
    presets: Mapping[str, PairPreset]

    @property
    def contestants(self) -> tuple[Arm, ...]:
        """The two arms that the pair compares; further arms (frames, ...) are there to be asked for
        by name."""
        return self.arms[:2]

    def arm(self, name: str) -> Arm:
        """The arm called ``name``; raises ``UsageError`` with the close matches."""
        from equivbench.errors import unknown_name

        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_name(f"arm of {self.task}/{self.name}", name, [arm.name for arm in self.arms])

    def with_model(
        self,
        model: str,
        *,
        name: str,
        arm: str = "augmented",
        config: Mapping[str, Any] | None = None,
    ) -> Pair:
        """The pair ``name``: the same contest, with the registered ``model`` (and its ``config``)
        in place of that of ``arm``.

        Recipe, data, budget and presets stay; what was matched was matched for the other model, so
        nothing is said to be.
        """
        replaced = self.arm(arm)
        presets = {
            size: replace(preset, config=dict(config or {}))
            for size, preset in replaced.presets.items()
        }
        mine = Arm(replaced.name, model, presets, replaced.wrapper)
        statement = MatchStatement(
            f"The {arm} arm of {self.task}/{self.name} with another model, {model}.", "nothing"
        )
        arms = tuple(mine if each is replaced else each for each in self.contestants)
        return replace(
            self, name=name, summary=f"{model} in {self.name}", arms=arms, matching=statement
        )


def simple_pair(
    name: str,
    *,
    dataset: str,
    equivariant: str,
    augmented: str,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    budget: str = "60s",
) -> Pair:
    """A pair of two registered models, ``name`` as ``task/pair``, with one recipe for both, as
    presets ``dev`` and ``small``.

    A start: before its gap means anything, `equivbench tune` both arms and state what is matched.
    """

    def arm(label: str, model: str, augmentation: Augmentation) -> Arm:
        preset = ArmPreset({}, Recipe(learning_rate, batch_size, augmentation))
        return Arm(label, model, {"dev": preset, "small": preset})

    task, _, short = name.partition("/")
    return Pair(
        name=short,
        task=task,
        summary=f"{equivariant} against {augmented}",
        arms=(arm("equivariant", equivariant, "none"), arm("augmented", augmented, "haar")),
        matching=MatchStatement("Nothing is matched yet.", "nothing"),
        presets={
            "dev": PairPreset(dataset, "200steps", evaluations=4),
            "small": PairPreset(dataset, budget),
        },
    )
