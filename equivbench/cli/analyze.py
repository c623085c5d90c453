"""``equivbench analyze``: the analyses, each imported when it is called."""

from __future__ import annotations

import typer

from equivbench.cli.lazy import CommandEntry, LazyGroup


class Analyses(LazyGroup):
    """The commands below ``analyze``; those of the studies come by entry point."""

    own = (
        CommandEntry(
            "sweep",
            "Train a pair over size, data, rate, optimizer, augmentation or symmetry loss.",
            "equivbench.cli.sweep:sweep",
        ),
        CommandEntry(
            "baselines",
            "Losses against simple predictors, shares at matched losses.",
            "equivbench.cli.stored:baselines",
        ),
    )
    group = "equivbench.analyses"


app = typer.Typer(cls=Analyses, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def analyze() -> None:
    """Analyses of pairs, records and trained models."""
