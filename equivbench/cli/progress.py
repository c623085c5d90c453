"""What is shown of runs while they train: bars on a terminal, one line a finished arm
elsewhere, or nothing."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from equivbench.cli.output import message
from equivbench.execution.executors import Callback
from equivbench.report.render import cell_text
from equivbench.report.text import number_text, printable
from equivbench.report.words import EXPLAINED, LOSS, OBJECTIVE, SHARE, SPEED, legend

if TYPE_CHECKING:
    from equivbench.execution.plan import Contest
    from equivbench.training.job import Job, Progress

_BAR = 18
"""Characters of a bar."""
_PHASE = len(" [rung of 7.5]")
_REFRESH = 0.25
"""Least seconds between two redraws: more would take time from the arm that is training."""


class Quiet(Callback):
    """Says only what the user must know: notes, such as that compilation was replaced by eager."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        """One line on stderr, once however many workers say it."""
        if text not in self._said:
            self._said.add(text)
            message("note", text)


class Lines(Quiet):
    """One plain line for each arm that has spent its budget: for logs, where bars are noise."""

    def trained(self, job: Job, progress: Progress) -> None:
        """A line when the arm's training has ended."""
        ended = f"diverged: {progress.diverged}" if progress.diverged else _figures(progress)
        message(job.title, f"{progress.step} steps, {ended}")


class Bars(Quiet):
    """A bar for each arm with loss, share, explained variance, throughput and time left, redrawn
    without a thread."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bars: ProgressBars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0
        self._room = math.inf
        """Characters of a line that are left for figures."""
        self._explained = False
        """Whether the legend was printed."""

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Bars of ``jobs``, in place of those before."""
        self.end()
        self._bars = ProgressBars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}", markup=False),
            TextColumn("{task.fields[phase]}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        longest = max(len(printable(job.arm)) for job in jobs)
        self._room = self._console.width - longest - _BAR - len(" 100% ") - _PHASE
        self._tasks = {
            job.arm: self._bars.add_task(printable(job.arm), total=1.0, figures="", phase="")
            for job in jobs
        }
        labels = "".join(f", {name} {value}" for name, value in jobs[0].labels.items())
        self._console.print(
            Text(printable(f"{contest.pair} seed {contest.seed}{labels}, {jobs[0].budget} an arm"))
        )
        if not self._explained:
            words = (OBJECTIVE, LOSS.name, EXPLAINED.name, SHARE.name)
            self._console.print(Text(f"{legend(words)}; the last three on a part of the test set"))
            self._explained = True
        self._bars.start()

    def show(self, job: Job, progress: Progress) -> None:
        """Move the arm's bar."""
        if self._bars is not None and job.arm in self._tasks:
            task = self._tasks[job.arm]
            if progress.rung is None:
                done = min(1.0, progress.spent / progress.limit)
                figures = _figures(progress, self._room)
                self._bars.update(task, completed=done, figures=figures, phase="")
            else:
                self._bars.update(task, phase=f"[rung of {progress.rung:g}]")
            if time.monotonic() - self._drawn > _REFRESH:
                self._bars.refresh()
                self._drawn = time.monotonic()

    def phase(self, text: str) -> None:
        """Say it beside the bars."""
        if self._bars is not None:
            for task in self._tasks.values():
                self._bars.update(task, phase=f"[{text}]" if text not in ("", "training") else "")
            self._bars.refresh()

    def note(self, text: str) -> None:
        """One line above the bars, once."""
        if text not in self._said:
            self._said.add(text)
            self._console.print(Text(printable(f"note: {text}"), style="yellow"))

    def end(self) -> None:
        """Leave the bars as they stand."""
        if self._bars is not None:
            self.phase("")
            self._bars.stop()
            self._bars = None


def _figures(progress: Progress, room: float = math.inf) -> str:
    """Every figure that is known: ``objective 4.12  loss 0.310  explained 62.0%  share 0.011
    930 samples/s  0:12 left``, in the words and the numbers of the tables.

    Loss, explained and share are those of the last evaluation, on a part of the test set. Where
    there is ``room`` for so many characters only, the figures that say least are left out.
    """
    known: dict[str, str] = {}
    if progress.loss is not None:
        known[OBJECTIVE] = f"{OBJECTIVE} {number_text(progress.loss)}"
    evaluated = ((LOSS, progress.total), (EXPLAINED, progress.explained), (SHARE, progress.share))
    for column, value in evaluated:
        if value is not None:
            known[column.name] = f"{column.name} {cell_text(value, column)}"
    if progress.samples_per_second is not None:
        known[SPEED.name] = f"{cell_text(progress.samples_per_second, SPEED)} {SPEED.name}"
    if progress.seconds_left is not None and not progress.finished:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        known["left"] = f"{minutes}:{seconds:02d} left"
    for least in (OBJECTIVE, SPEED.name, SHARE.name, EXPLAINED.name):
        if len("  ".join(known.values())) > room:
            known.pop(least, None)
    return "  ".join(known.values())


def progress_display(quiet: bool) -> Callback:
    """Bars if stderr is a terminal, lines if it is not, nearly nothing if ``quiet``."""
    if quiet:
        return Quiet()
    return Bars(Console(stderr=True)) if sys.stderr.isatty() else Lines()
