"""The table of a landscape: a row for each property, a column for each part of the error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equivbench.gap.intervals import Quantity
from equivbench.report.gaps import show
from equivbench.report.text import printable
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import ERROR_PARTS, Estimate

COLUMNS = ("", "total", "twirled", "equivariance")

_Text = Callable[[Curvature], str]


def landscape_title(found: Landscape, unit: str) -> str:
    """What was measured on what, in a line."""
    which = "all parameters" if found.layers == "*" else f"parameters {found.layers}"
    return printable(
        f"{found.task}/{found.pair} {found.arm}, {found.run_id}, step {found.step}: {found.weights} weights, {which} "
        f"({found.parameters}), {found.samples} {found.split} samples, {found.rotations} rotations ({found.group}), "
        f"{found.precision}; loss in {unit}; slice along the {found.along} error's extreme eigenvectors, "
        f"radii {found.axes[0][-1]:.3g} and {found.axes[1][-1]:.3g}"
    )


def landscape_rows(found: Landscape) -> list[list[str]]:
    """Rows of :data:`COLUMNS`."""
    return [[label, *(text(found.parts[part]) for part in ERROR_PARTS)] for label, text in _ROWS]


def landscape_notes(found: Landscape) -> list[str]:
    """What is missing and why, once for each reason."""
    places: dict[str, list[str]] = {}
    for path, reason in found.reasons.items():
        places.setdefault(reason, []).append(
            path.removeprefix("parts.").replace(".", ": ", 1).replace("_", " ")
        )
    return [printable(f"{', '.join(paths)}: {reason}") for reason, paths in places.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(_number, values)) or "-"


def _estimate(estimate: Estimate) -> str:
    return show(Quantity(estimate.value, estimate.low, estimate.high))


_ROWS: tuple[tuple[str, _Text], ...] = (
    ("value", lambda part: _number(part.value)),
    ("largest eigenvalues", lambda part: _list(part.largest)),
    ("their vectors on another draw", lambda part: _list(part.largest_again)),
    ("smallest eigenvalues", lambda part: _list(part.smallest)),
    ("their vectors on another draw", lambda part: _list(part.smallest_again)),
    ("residual / largest", lambda part: _number(part.residual)),
    ("trace", lambda part: _estimate(part.trace)),
    ("effective condition", lambda part: _estimate(part.effective_condition)),
    ("curvatures in the slice", lambda part: _list(part.in_plane)),
    ("condition in the slice", lambda part: _number(part.in_plane_condition)),
    ("quadratic fit R2", lambda part: _number(part.quadratic_r2)),
    ("  drawn anew at every point", lambda part: _number(part.fresh_r2)),
    ("roughness of what it leaves (1: noise)", lambda part: _number(part.roughness)),
    ("correlation with another draw", lambda part: _number(part.repeated)),
)
