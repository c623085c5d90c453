"""Who is shown how runs go: the contract of progress bars and log lines, and the watcher that shows
nothing."""

from __future__ import annotations

from typing import Protocol

from equivbench.execution.plan import Contest
from equivbench.execution.protocol import Standing
from equivbench.training.job import Job


class Watcher(Protocol):
    """Who is shown how runs go: progress bars, log lines, nobody."""

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Runs of ``jobs`` are about to start."""

    def show(self, job: Job, standing: Standing) -> None:
        """``job`` is at ``standing``."""

    def phase(self, text: str) -> None:
        """What happens now, such as ``timing``."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def end(self) -> None:
        """The contest is over."""


class Nobody:
    """A watcher that shows nothing."""

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Nothing."""

    def show(self, job: Job, standing: Standing) -> None:
        """Nothing."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
