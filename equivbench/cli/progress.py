"""How a run is watched from the command line: bars on a terminal, one line a finished arm
elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from equivbench.cli.output import message
from equivbench.report.text import printable

if TYPE_CHECKING:
    from equivbench.execution.plan import Contest
    from equivbench.execution.protocol import Standing
    from equivbench.training.job import Job

_REFRESH = 0.25
"""Least seconds between two redraws: more would take time from the arm that is training."""


class Quiet:
    """Says only what the user must know: notes, such as that compilation was replaced by eager."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Nothing to show."""

    def show(self, job: Job, standing: Standing) -> None:
        """Nothing to show."""

    def phase(self, text: str) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """One line on stderr, once however many workers say it."""
        if text not in self._said:
            self._said.add(text)
            message("note", text)

    def end(self) -> None:
        """Nothing to show."""


class Lines(Quiet):
    """One plain line for each arm that has spent its budget: for logs, where bars are noise."""

    def __init__(self) -> None:
        super().__init__()
        self._done: set[str] = set()

    def show(self, job: Job, standing: Standing) -> None:
        """A line when the arm's training has ended."""
        key = f"{job.state_dir} {job.budget}"
        if standing.finished and key not in self._done:
            self._done.add(key)
            ended = f"diverged: {standing.diverged}" if standing.diverged else _figures(standing)
            message(job.title, f"{standing.step} steps, {ended}")


class Bars(Quiet):
    """A bar for each arm with loss, share, explained variance, throughput and time left, redrawn
    without a thread."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0

    def begin(self, contest: Contest, jobs: list[Job]) -> None:
        """Bars of ``jobs``, in place of those before."""
        self.end()
        columns: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            TextColumn("{task.percentage:>3.0f}%"),
            _Figures(),
        )
        self._progress = Progress(*columns, console=self._console, auto_refresh=False)
        self._tasks = {
            job.arm: self._progress.add_task(printable(job.arm), total=1.0, standing=None, phase="")
            for job in jobs
        }
        labels = "".join(f", {name} {value}" for name, value in jobs[0].labels.items())
        self._console.print(
            Text(printable(f"{contest.pair} seed {contest.seed}{labels}, {jobs[0].budget} an arm"))
        )
        self._progress.start()

    def show(self, job: Job, standing: Standing) -> None:
        """Move the arm's bar."""
        if self._progress is not None and job.arm in self._tasks:
            fraction = min(1.0, standing.spent / standing.limit)
            self._progress.update(self._tasks[job.arm], completed=fraction, standing=standing)
            if time.monotonic() - self._drawn > _REFRESH:
                self._progress.refresh()
                self._drawn = time.monotonic()

    def phase(self, text: str) -> None:
        """Say it beside the bars."""
        if self._progress is not None:
            for task in self._tasks.values():
                self._progress.update(task, phase=text)
            self._progress.refresh()

    def note(self, text: str) -> None:
        """One line above the bars, once."""
        if text not in self._said:
            self._said.add(text)
            self._console.print(Text(printable(f"note: {text}"), style="yellow"))

    def end(self) -> None:
        """Leave the bars as they stand."""
        if self._progress is not None:
            self.phase("")
            self._progress.stop()
            self._progress = None


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        standing: Standing | None = task.fields["standing"]
        phase = task.fields["phase"]
        words = [] if phase in ("", "training") else [f"[{phase}]"]
        return Text("  ".join(words if standing is None else [_figures(standing), *words]))


def _figures(standing: Standing) -> str:
    """Every figure that is known: ``loss 41.2  explained 0.62  share 1.1e-02  930 samples/s
    0:00:12 left``."""
    words = [] if standing.loss is None else [f"loss {standing.loss:.3g}"]
    if standing.explained is not None:
        words.append(f"explained {standing.explained:.3f}")
    if standing.share is not None:
        words.append(f"share {standing.share:.1e}")
    if standing.samples_per_second is not None:
        words.append(f"{standing.samples_per_second:.0f} samples/s")
    if standing.seconds_left is not None and not standing.finished:
        minutes, seconds = divmod(round(standing.seconds_left), 60)
        words.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(words)


def watcher(quiet: bool) -> Quiet:
    """Bars if stderr is a terminal, lines if it is not, nearly nothing if ``quiet``."""
    if quiet:
        return Quiet()
    return Bars(Console(stderr=True)) if sys.stderr.isatty() else Lines()
