"""Which part of the error drives training: gradients of both parts along a run."""

from equivbench.cli.lazy import CommandEntry

COMMAND = CommandEntry(
    "gradients",
    "Gradients of both parts of the error along a run.",
    "equivbench.studies.gradients.command:gradients",
)
