"""``equivbench analyze``: the analyses, each in a file of its own that is imported when it is
called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from equivbench.cli.lazy import Entry, LazyGroup

ANALYSES = (
    Entry(
        "sweep",
        "Train a pair over size, data, rate, optimizer or augmentation.",
        "equivbench.cli.analyze_sweep",
    ),
    Entry(
        "baselines",
        "Losses against simple predictors, shares at matched losses.",
        "equivbench.cli.analyze_baselines",
    ),
    Entry(
        "samples",
        "Backbones sampled from a flow model, and their structure.",
        "equivbench.studies.flow_samples.command",
    ),
    Entry(
        "handedness",
        "A model's loss on mirror images against that on the samples.",
        "equivbench.studies.handedness.command",
    ),
    Entry(
        "gradients",
        "Gradients of both parts of the error along a run.",
        "equivbench.studies.gradients.command",
    ),
    Entry(
        "landscape",
        "A slice of the loss around trained weights, and its curvature.",
        "equivbench.studies.landscape.command",
    ),
)


class Analyses(LazyGroup):
    """The commands below ``analyze``."""

    table: ClassVar[Mapping[str, Entry]] = {entry.name: entry for entry in ANALYSES}


def register(app: typer.Typer) -> None:
    """Add ``analyze`` to the command line."""
    group = typer.Typer(cls=Analyses, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_group)
    app.add_typer(group, name="analyze")


def _group() -> None:
    """Analyses of pairs, records and trained models."""
