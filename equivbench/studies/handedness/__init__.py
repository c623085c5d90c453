"""Whether a trained flow model tells left from right."""

from equivbench.cli.lazy import CommandEntry

COMMAND = CommandEntry(
    "handedness",
    "A model's loss on mirror images against that on the samples.",
    "equivbench.studies.handedness.command:handedness",
)
