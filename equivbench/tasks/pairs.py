"""What the pairs that come with equivbench share: how arms are put together from tables of sizes,
and the form of what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equivbench.specs import (
    PRESETS,
    ArmPreset,
    ArmSpec,
    MatchSpec,
    PairPreset,
    PairSpec,
    Recipe,
    TargetLoss,
)

STEP_TIME = "seconds of a training step (forward, backward, optimiser) within 15%"
_SECONDS = ("step", "off_budget", "gradients", "landscape")

Configs = Mapping[str, Mapping[str, Any]]
"""A network's config by preset."""


def sizes(names: str, *rows: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """Configs from one row of values a preset (dev, small, paper), under the same ``names``."""
    return {
        preset: dict(zip(names.split(), row, strict=True))
        for preset, row in zip(PRESETS, rows, strict=True)
    }


def tuning(budget: str, sha256: str) -> dict[str, str]:
    """Of a recipe: the budget of a trial, and the checksum of the log."""
    return {"tuned_at": budget, "tuning_log_sha256": sha256}


def targets(budget: str, commit: str, day: str, **losses: float) -> tuple[TargetLoss, ...]:
    """The target losses of a pair's arms at ``small``, by arm, from records of one campaign."""
    return tuple(
        TargetLoss(name, "small", loss, budget, commit, day) for name, loss in losses.items()
    )


def arm(
    name: str,
    model: str,
    configs: Configs,
    recipes: Mapping[str, Recipe],
    widths: Mapping[str, int | str],
    *,
    wrapper: str | None = None,
    small: Mapping[str, Any] | None = None,
    needs: Mapping[str, str] | None = None,
    **changes: Any,
) -> ArmSpec:
    """An arm with its three presets; ``changes`` are of all presets' recipes, ``small`` of that
    one's. ``needs``: as in :class:`ArmSpec`."""
    presets = {
        preset: ArmPreset(configs[preset], replace(recipe, **changes))
        for preset, recipe in recipes.items()
    }
    presets["small"] = replace(
        presets["small"], recipe=replace(presets["small"].recipe, **(small or {}))
    )
    return ArmSpec(name, model, presets, wrapper, widths, needs or {})


def pair(
    key: str,
    summary: str,
    arms: tuple[ArmSpec, ...],
    presets: Mapping[str, PairPreset],
    what: str,
    target: str,
    *,
    parameters: tuple[tuple[int, ...], ...],
    seconds: tuple[float, ...],
    steps: tuple[float, ...] = (),
    hardware: str = "amd-epyc-f25m17-2t",
    targets: tuple[TargetLoss, ...] = (),
) -> PairSpec:
    """The pair ``task/pair``.

    ``parameters`` has a row a preset and ``steps`` the seconds of a step at ``small`` on
    ``hardware``, in the order of the arms; ``seconds`` are those of ``PairSpec.seconds`` at
    ``small``.
    """
    task, name = key.split("/")
    measured: dict[str, dict[str, float]] = {
        preset: {f"{arm.name} parameters": count for arm, count in zip(arms, counts, strict=False)}
        for preset, counts in zip(PRESETS, parameters, strict=True)
    }
    measured["small"] |= {
        f"{arm.name} step_seconds": step for arm, step in zip(arms, steps, strict=False)
    }
    return PairSpec(
        name=name,
        task=task,
        summary=summary,
        arms=arms,
        matching=MatchSpec(what, target, hardware if steps else None, measured),
        seconds={"small": dict(zip(_SECONDS, seconds, strict=True))},
        presets=presets,
        targets=targets,
    )
