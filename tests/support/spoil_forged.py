"""Records forged with some care: several fields changed together, so that only a comparison with
the world tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Plain = dict[str, Any]


def _scale_loss(record: Plain, factor: float) -> None:
    """The result ``factor`` times as large, in every place where it stands."""
    for test in (record["rungs"][-1]["test"], record["final"]):
        for name in ("total", "twirled", "equivariance", "over_best_untrained"):
            test[name] *= factor
        test["explained"] = 1.0
        if test["groups"] is not None:
            for name in ("total", "equivariance"):
                test["groups"][name] = [value * factor for value in test["groups"][name]]


def _negative_share(record: Plain) -> None:
    test = record["trace"][0]["test"]
    test["share"], test["equivariance"], test["twirled"] = (
        -0.1,
        -0.1 * test["total"],
        1.1 * test["total"],
    )
    if test["groups"] is not None:
        test["groups"]["equivariance"] = [-0.1 * abs(value) for value in test["groups"]["total"]]


def _fast(record: Plain) -> None:
    """Fifty times the speed, consistently in what is timed."""
    record["throughput"]["samples_per_second"] *= 50
    record["throughput"]["blocks"] = [value / 50 for value in record["throughput"]["blocks"]]
    for name in ("p10", "p50", "p90"):
        record["throughput"]["step_seconds"][name] /= 50


def _twice_the_samples(record: Plain) -> None:
    for point in (*record["trace"], *record["rungs"]):
        point["samples"] *= 2
    record["samples"] *= 2
    record["epochs"] *= 2


def _says_verified(record: Plain) -> None:
    record["model"].update(symmetry="so3", symmetry_verified=True)
    record["final"].update(share=0.04, floor=1e-10)
    test = record["final"]
    test["equivariance"], test["twirled"] = 0.04 * test["total"], 0.96 * test["total"]


def _none_verified(record: Plain) -> None:
    record["model"].update(symmetry="none", symmetry_verified=True)


def _another_seed(record: Plain) -> None:
    record["seed"] += 41
    record["run_id"] = record["run_id"].replace(
        f"seed{record['seed'] - 41}-", f"seed{record['seed']}-"
    )


def _compiled_for_nothing(record: Plain) -> None:
    record["recipe"]["compile"] = "inductor"
    record["clock"]["wall"] -= record["clock"]["compile"]
    record["clock"]["compile"] = 0.0


def _short(record: Plain) -> None:
    record["budget"].update(limit=record["budget"]["limit"] * 2, overshoot=0.0)


def _late_end(record: Plain) -> None:
    record["rungs"][-1]["train_seconds"] *= 2


FORGED: dict[str, tuple[str, Callable[[Plain], None]]] = {
    "loss below the labels' rounding": (
        "rounding of the stored labels",
        lambda record: _scale_loss(record, 1e-17),
    ),
    "negative share, consistently": ("a mean of squares", _negative_share),
    "fifty times the speed": ("throughput x time", _fast),
    "twice the samples": ("do not fit", _twice_the_samples),
    "verified without being so": ("is said to hold", _says_verified),
    "none declared and verified": ("no symmetry is declared", _none_verified),
    "the same losses as another file": ("place does not fit", _another_seed),
    "compiled in no time": ("clock.compile is zero", _compiled_for_nothing),
    "half a budget called whole": ("are spent", _short),
    "a curve that ends late": ("the last evaluation began", _late_end),
}
