"""What is shown of runs while they train: bars on a terminal, one line a finished arm
elsewhere, or nothing."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from equivbench.cli.output import message
from equivbench.counted import counted
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
        message(job.title, f"{counted(progress.step, 'step')}, {ended}")


class Bars(Quiet):
    """A bar for each arm with loss, share, explained variance, throughput and time left, redrawn
    without a thread."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bars: ProgressBars | None = None
        self._drawn = 0.0
        self._explained = False
        """Whether the legend was printed."""
        self._lock = threading.RLock()
        self._lane = Lane(self, alone=True)

    def beside(self) -> Callback:
        """The bars of one contest below those of the others."""
        return Lane(self)

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Bars of ``jobs``, in place of those before."""
        self.end()
        self._lane.begin(contest, jobs)

    def show(self, job: Job, progress: Progress) -> None:
        """Move the arm's bar."""
        self._lane.show(job, progress)

    def phase(self, text: str) -> None:
        """Say it beside the bars."""
        self._lane.phase(text)

    def note(self, text: str) -> None:
        """One line above the bars, once."""
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self._console.print(Text(printable(f"note: {text}"), style="yellow"))

    def end(self) -> None:
        """Leave the bars as they stand."""
        self._lane.phase("")
        self._stop()

    def add(self, heading: str, names: Mapping[str, str]) -> dict[str, tuple[TaskID, float]]:
        """A bar for each arm under its name, below what is there, and the characters of its line
        that are left for figures; a heading above, if there is one."""
        with self._lock:
            self._print(heading)
            if self._bars is None:
                self._bars = ProgressBars(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=_BAR),
                    TextColumn("{task.percentage:>3.0f}%"),
                    TextColumn("{task.fields[figures]}", markup=False),
                    TextColumn("{task.fields[phase]}", markup=False),
                    console=self._console,
                    auto_refresh=False,
                )
            others = [len(task.description) for task in self._bars.tasks]
            longest = max(*others, *map(len, names.values()), 0)
            room = self._console.width - longest - _BAR - len(" 100% ") - _PHASE
            found = {
                arm: (self._bars.add_task(name, total=1.0, figures="", phase=""), float(room))
                for arm, name in names.items()
            }
            self._bars.start()
            return found

    def update(self, tasks: Iterable[TaskID], *, at_once: bool = False, **fields: Any) -> None:
        """Change the bars of ``tasks``; they are drawn ``at_once``, or soon."""
        with self._lock:
            if self._bars is None:
                return
            for task in tasks:
                self._bars.update(task, **fields)
            if at_once or time.monotonic() - self._drawn > _REFRESH:
                self._bars.refresh()
                self._drawn = time.monotonic()

    def remove(self, tasks: Iterable[TaskID]) -> None:
        """Take bars away, with a line for each above those that are left."""
        with self._lock:
            for task in tasks:
                if self._bars is not None:
                    each = self._bars.tasks[self._bars.task_ids.index(task)]
                    self._console.print(Text(f"{each.description} {each.fields['figures']}"))
                    self._bars.remove_task(task)
            if self._bars is not None and not self._bars.task_ids:
                self._stop()

    def _print(self, heading: str) -> None:
        if heading:
            self._console.print(Text(heading))
        if not self._explained:
            words = (OBJECTIVE, LOSS.name, EXPLAINED.name, SHARE.name)
            self._console.print(Text(f"{legend(words)}; the last three on a part of the test set"))
            self._explained = True

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class Lane(Callback):
    """The bars of one contest; beside others unless it is ``alone``."""

    def __init__(self, bars: Bars, *, alone: bool = False) -> None:
        self._bars, self._alone = bars, alone
        self._tasks: dict[str, tuple[TaskID, float]] = {}

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """A bar for each of ``jobs``."""
        if not self._alone:
            self.end()
        labels = "".join(f", {name} {value}" for name, value in jobs[0].labels.items())
        title = printable(f"{contest.pair} seed {contest.seed}{labels}")
        heading = f"{title}, {printable(jobs[0].budget)} an arm" if self._alone else ""
        start = "" if self._alone else f"{title} "
        names = {job.arm: f"{start}{printable(job.arm)}" for job in jobs}
        self._tasks = self._bars.add(heading, names)

    def show(self, job: Job, progress: Progress) -> None:
        """Move the arm's bar."""
        if job.arm not in self._tasks:
            return
        task, room = self._tasks[job.arm]
        if progress.rung is None:
            done = min(1.0, progress.spent / progress.limit)
            figures = _figures(progress, room)
            self._bars.update([task], completed=done, figures=figures, phase="")
        else:
            self._bars.update([task], phase=f"[rung of {progress.rung:g}]")

    def phase(self, text: str) -> None:
        """Say it beside the bars."""
        said = f"[{text}]" if text not in ("", "training") else ""
        self._bars.update([task for task, _ in self._tasks.values()], at_once=True, phase=said)

    def note(self, text: str) -> None:
        """One line above all bars."""
        self._bars.note(text)

    def end(self) -> None:
        """Leave a line for each arm in the place of its bar."""
        self._bars.remove([task for task, _ in self._tasks.values()])
        self._tasks = {}


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
