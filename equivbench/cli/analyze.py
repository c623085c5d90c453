"""``equivbench analyze``: the analyses, each in a file of its own that is imported when it is
called."""

from __future__ import annotations

import typer

from equivbench.cli.lazy import CommandEntry, LazyGroup

ANALYSES = (
    CommandEntry(
        "sweep",
        "Train a pair over size, data, rate, optimizer or augmentation.",
        "equivbench.cli.analyze_sweep",
    ),
    CommandEntry(
        "baselines",
        "Losses against simple predictors, shares at matched losses.",
        "equivbench.cli.analyze_baselines",
    ),
)
"""The analyses of the core; those of the studies come by entry point."""


class Analyses(LazyGroup):
    """The commands below ``analyze``."""

    own = ANALYSES
    group = "equivbench.analyses"


def register(app: typer.Typer) -> None:
    """Add ``analyze`` to the command line."""
    group = typer.Typer(cls=Analyses, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_group)
    app.add_typer(group, name="analyze")


def _group() -> None:
    """Analyses of pairs, records and trained models."""
