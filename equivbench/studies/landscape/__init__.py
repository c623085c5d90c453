"""The loss landscape of both parts of the error around trained weights."""

from equivbench.cli.lazy import CommandEntry

COMMAND = CommandEntry(
    "landscape",
    "A slice of the loss around trained weights, and its curvature.",
    "equivbench.studies.landscape.command:landscape",
)
