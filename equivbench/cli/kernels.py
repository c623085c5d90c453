"""``equivbench kernels``: times of the equivariant operations on each backend, each checked in the
process that times it."""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.cli import exit_codes
from equivbench.cli.options import Device, Threads
from equivbench.errors import FailedError, unknown_name
from equivbench.records.line_files import KERNEL_FILE, KernelSamples
from equivbench.registry import KERNEL_BACKENDS
from equivbench.specs import MODES

if TYPE_CHECKING:
    from equivbench.kernels.comparing import BackendComparison, Refusal
    from equivbench.kernels.operations import Case

DTYPES = ("float32", "float64", "bfloat16", "float16")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("kernels")(kernels)


def kernels(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CASE]...",
            help="Cases, or patterns such as 'convolution-*' (default: the quick ones).",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", help="Backend to time (may be repeated; default: all that can run here)."
        ),
    ] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            "--mode", help="forward, backward or double_backward (default: all that networks need)."
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "float32",
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="Rounds, which alternate over the backends.")
    ] = 10,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="3 short rounds, without backends that compile for long unless named: a look,"
            " not a result.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where samples go: a .jsonl file, or a folder (then <machine-key>/kernels.jsonl"
            " below it)."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: samples and refusals.")
    ] = False,
) -> None:
    """Time the equivariant operations on each backend, held against a float64 reference and the
    bandwidth of a copy.

    A backend whose results are wrong is refused: exit 3, the others are timed all the same.
    """
    from equivbench.cli.output import message, print_json
    from equivbench.execution.plan import default_threads, resolve_device

    chosen = choose_cases(cases or [])
    check_names("mode", modes or [], MODES)
    check_names("dtype", [dtype], DTYPES)
    wanted = [mode for mode in MODES if not modes or mode in modes]
    where = resolve_device(device)
    report = _Report(out, quiet=as_json)
    with _output_to_stderr():
        import torch

        from equivbench.kernels.comparing import BackendPlan, comparisons

        torch.set_num_threads(threads if threads is not None else default_threads())
        plan = BackendPlan(
            rounds=3 if quick else rounds,
            seconds=0.05 if quick else 0.2,
            dtype=getattr(torch, dtype),
            device=torch.device(where),
            command=shlex.join(["equivbench", *sys.argv[1:]]),
        )
        names = choose_backends(backends or [], plan.device, quick=quick)
    measured = comparisons(chosen, names, wanted, plan, said=report.say)
    interrupted = False
    try:
        while True:
            with _output_to_stderr():
                comparison = next(measured, None)
            if comparison is None:
                break
            report.add(comparison)
            interrupted |= comparison.interrupted
    except KeyboardInterrupt:
        interrupted = True
    report.finish()
    if as_json:
        refused = [asdict(refusal) for refusal in report.refusals]
        print_json({"samples": report.samples, "refused": refused})
    if interrupted:
        kept = f"; {len(report.samples)} results are in {report.written}" if report.written else ""
        message("error", f"interrupted{kept}")
        raise typer.Exit(exit_codes.INTERRUPTED)
    raise typer.Exit(report.exit_code())


def check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ``UsageError`` with the close matches for a name that is not ``known``."""
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def choose_cases(patterns: Sequence[str]) -> list[Case]:
    """The cases that ``patterns`` name, in the order of the list; the quick ones if there are none.
    Raises ``UsageError``."""
    from equivbench.kernels.operations import CASES

    if not patterns:
        return [one for one in CASES if one.quick]
    names = [one.name for one in CASES]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise unknown_name("kernel case", pattern, names)
    return [
        one for one in CASES if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)
    ]


def choose_backends(names: Sequence[str], device: Any, *, quick: bool = False) -> list[str]:
    """The backends called ``names``, each once, or all registered ones; with ``quick`` not those
    that compile for long.

    Raises ``UsageError`` for an unknown name and ``FailedError`` for one that was named and is
    absent on ``device``.
    """
    from equivbench.kernels.measuring import why_absent

    reasons = {name: why_absent(name, device) for name in names}
    for name, reason in reasons.items():
        if reason is not None:
            raise FailedError(f"kernel backend {name} is absent: {reason}")
    return list(reasons) or [
        name
        for name, entry in KERNEL_BACKENDS.entries().items()
        if not (quick and entry.value.slow_to_build)
    ]


def unsupported(refusals: Sequence[Refusal]) -> list[str]:
    """A line for each backend that does not do something: which cases, or which derivatives of
    them."""
    missed: dict[str, dict[str, list[str]]] = {}
    for refusal in refusals:
        if refusal.kind == "unsupported":
            missed.setdefault(refusal.backend, {}).setdefault(refusal.case, []).append(refusal.mode)
    lines = []
    for name, cases in missed.items():
        # Without the forward pass there is nothing of the case.
        what = (
            case if "forward" in modes else f"{case} ({', '.join(modes)})"
            for case, modes in cases.items()
        )
        lines.append(f"{name} does not do {', '.join(what)}")
    return lines


def _output_to_stderr() -> contextlib.redirect_stdout[Any]:
    """Someone's backend may print as it is built or run; stdout is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


class _Report:
    """Shows comparisons as they come, a table for each case, and keeps them on disk."""

    def __init__(self, out: Path | None, *, quiet: bool) -> None:
        self._out, self._quiet = out, quiet
        self.samples: list[KernelSamples] = []
        self.refusals: list[Refusal] = []
        self.written: Path | None = None
        self._case: Case | None = None
        self._pending: list[KernelSamples] = []
        self._line = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """What happens now, on a terminal only, in one line that the next one replaces."""
        if self._line:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def add(self, comparison: BackendComparison) -> None:
        """Keep ``comparison``; the table of the case before is shown when another begins."""
        if self._case is not comparison.case:
            self._show()
            self._case = comparison.case
        self._pending += comparison.samples
        self.samples += comparison.samples
        self.refusals += comparison.refusals
        if self._out is not None and comparison.samples:
            key = comparison.samples[0].environment.machine_key
            file = self._out if self._out.suffix == ".jsonl" else self._out / key / "kernels.jsonl"
            self.written = KERNEL_FILE.merge(comparison.samples, file)

    def finish(self) -> None:
        """Show the last table, and what was not timed and why: absences as lines, failures on
        stderr."""
        from equivbench.cli.output import message

        self._show()
        self.say("")
        absent = [refusal.reason for refusal in self.refusals if refusal.kind == "absent"]
        for line in (*dict.fromkeys(absent), *unsupported(self.refusals)):
            message("note", line)
        for refusal in self.refusals:
            if refusal.kind in ("wrong", "failed"):
                message("error", refusal.reason)

    def exit_code(self) -> int:
        """3 where a backend was wrong or failed, or nothing could be timed at all."""
        failed = any(refusal.kind in ("wrong", "failed") for refusal in self.refusals)
        return exit_codes.FAILED if failed or not self.samples else exit_codes.DONE

    def _show(self) -> None:
        from equivbench.cli.output import print_table
        from equivbench.report.kernels import heading, kernel_table

        if self._case is not None and self._pending and not self._quiet:
            self.say("")
            title = heading(self._case.source, self._case.sizes, self._pending[0])
            print_table(kernel_table(self._pending, title))
            typer.echo()
        self._pending = []
