"""What a user waits for before anything happens."""

from __future__ import annotations

import subprocess
import sys


class CommandLine:
    """A fresh process each time."""

    version = "1"
    timeout = 120

    def time_help(self) -> None:
        """``equivbench --help``."""
        self.call("--help")

    def time_list_pairs(self) -> None:
        """``equivbench list pairs --json``."""
        self.call("list", "pairs", "--json")

    def call(self, *arguments: str) -> None:
        """Run the command line; a failure is an error, not a fast time."""
        subprocess.run(
            [sys.executable, "-m", "equivbench.cli.main", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
        )
