"""The claims of the paper as data, what the records say to each, and `equivbench reproduce`."""

from equivbench.cli.lazy import CommandEntry

COMMAND = CommandEntry(
    "reproduce",
    "The paper's claims, one by one: did they hold?",
    "equivbench.studies.claims.command:reproduce",
)
