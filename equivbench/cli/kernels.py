"""``equivbench kernels``: times of the equivariant operations on each backend, each checked in the
process that times it."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from equivbench.cli.options import takes
from equivbench.cli.output import Exit, message, print_json, print_table, print_text
from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.records.line_files import KERNEL_FILE
from equivbench.registry import KERNEL_BACKENDS
from equivbench.request import THREADS, Request, RunRequest, option, same_option
from equivbench.specs import MODES

if TYPE_CHECKING:
    from equivbench.kernels.comparing import BackendComparison, Refusal
    from equivbench.kernels.operations import Case

DTYPES = ("float32", "float64", "bfloat16", "float16")
MOST_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class KernelsRequest(Request):
    """What ``equivbench kernels`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("kernels",)

    cases: tuple[str, ...] = option(
        (),
        "Cases, or patterns such as 'convolution-*' (default: the quick ones).",
        flag=None,
        metavar="[CASE]...",
    )
    backends: tuple[str, ...] = option(
        (),
        "Backend to time (may be repeated; default: all that can run here).",
        flag="--backend",
        completes="kernels",
    )
    modes: tuple[str, ...] = option(
        (),
        "forward, backward or double_backward (default: all that networks need).",
        flag="--mode",
        completes=MODES,
    )
    device: str = same_option(RunRequest, "device")
    threads: int | None = option(None, f"{THREADS}.")
    dtype: str = option("float32", f"{', '.join(DTYPES)}.", completes=DTYPES)
    rounds: int = option(10, f"Rounds (1 to {MOST_ROUNDS}), which alternate over the backends.")
    quick: bool = option(
        False,
        "3 short rounds, without backends that compile for long unless named: a look,"
        " not a result.",
    )
    out: str | None = option(
        None,
        "Where samples go: a .jsonl file, or a folder (then <machine-key>/kernels.jsonl below it).",
        recorded=False,
    )


@takes(KernelsRequest)
def kernels(
    request: KernelsRequest,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: samples and refusals.")
    ] = False,
) -> None:
    """Time the equivariant operations on each backend, held against a float64 reference and what
    the device was seen to do at most.

    A backend whose results are wrong, or that is faster than the device was seen to be, is refused:
    exit 3, the others are timed all the same.
    """
    from equivbench.execution.plan import default_threads, resolve_device

    cases = _chosen_cases(request.cases)
    for kind, names, known in (("mode", request.modes, MODES), ("dtype", (request.dtype,), DTYPES)):
        for name in names:
            if name not in known:
                raise unknown_name(kind, name, known)
    if not 1 <= request.rounds <= MOST_ROUNDS:
        raise UsageError(f"--rounds must be between 1 and {MOST_ROUNDS}, not {request.rounds}")
    where = resolve_device(request.device)
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        from equivbench.kernels.comparing import BackendPlan, comparisons

        torch.set_num_threads(request.threads or default_threads())
        plan = BackendPlan(
            rounds=3 if request.quick else request.rounds,
            seconds=0.05 if request.quick else 0.2,
            dtype=getattr(torch, request.dtype),
            device=torch.device(where),
            command=request.command(recorded=True),
        )
        backends = _chosen_backends(request, plan.device)
    modes = [mode for mode in MODES if not request.modes or mode in request.modes]
    measured = comparisons(cases, backends, modes, plan, said=_say)
    done: list[BackendComparison] = []
    written: Path | None = None
    try:
        while True:
            # Someone's backend may print as it is built or run; stdout is for the result.
            with contextlib.redirect_stdout(sys.stderr):
                comparison = next(measured, None)
            if comparison is None:
                break
            if not as_json and done and done[-1].case is not comparison.case:
                _show_last_case(done)
            done.append(comparison)
            if request.out is not None and comparison.samples:
                key = comparison.samples[0].environment.machine_key
                out = Path(request.out)
                file = out if out.suffix == ".jsonl" else out / key / "kernels.jsonl"
                written = KERNEL_FILE.merge(comparison.samples, file)
        interrupted = any(each.interrupted for each in done)
    except KeyboardInterrupt:
        interrupted = True
    if not as_json:
        _show_last_case(done)
        if done:
            from equivbench.report.kernels import LEGEND

            print_text(LEGEND)
    _say("")
    samples = [sample for each in done for sample in each.samples]
    refusals = [refusal for each in done for refusal in each.refusals]
    absent = [refusal.reason for refusal in refusals if refusal.kind == "absent"]
    for line in (*dict.fromkeys(absent), *_unsupported(refusals)):
        message("note", line)
    failures = [refusal for refusal in refusals if refusal.kind in ("wrong", "failed")]
    for refusal in failures:
        message("error", refusal.reason)
    if as_json:
        print_json({"samples": samples, "refused": [asdict(refusal) for refusal in refusals]})
    if interrupted:
        kept = f"; {len(samples)} results are in {written}" if written else ""
        message("error", f"interrupted{kept}")
        raise typer.Exit(Exit.INTERRUPTED)
    raise typer.Exit(Exit.FAILED if failures or not samples else Exit.DONE)


def _chosen_cases(patterns: Sequence[str]) -> list[Case]:
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


def _chosen_backends(request: KernelsRequest, device: Any) -> list[str]:
    """The backends that were named, each once, or all registered ones; with ``quick`` not those
    that compile for long.

    Raises ``UsageError`` for an unknown name and ``FailedError`` for one that was named and is
    absent on ``device``.
    """
    from equivbench.kernels.measuring import why_absent

    reasons = {name: why_absent(name, device) for name in request.backends}
    for name, reason in reasons.items():
        if reason is not None:
            raise FailedError(f"kernel backend {name} is absent: {reason}")
    return list(reasons) or [
        name
        for name, entry in KERNEL_BACKENDS.entries().items()
        if not (request.quick and entry.value.slow_to_build)
    ]


def _unsupported(refusals: Sequence[Refusal]) -> list[str]:
    """A line for each backend that does not do something: which cases, or which derivatives of
    them."""
    missed: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for refusal in refusals:
        if refusal.kind == "unsupported":
            missed[refusal.backend][refusal.case].append(refusal.mode)
    lines = []
    for name, cases in missed.items():
        # Without the forward pass there is nothing of the case.
        what = (
            case if "forward" in modes else f"{case} ({', '.join(modes)})"
            for case, modes in cases.items()
        )
        lines.append(f"{name} does not do {', '.join(what)}")
    return lines


def _say(text: str) -> None:
    """What happens now, on a terminal only, in one line that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _show_last_case(done: Sequence[BackendComparison]) -> None:
    """Print the table of the case that was timed last."""
    from equivbench.report.kernels import heading, kernel_table

    samples = [sample for each in done if each.case is done[-1].case for sample in each.samples]
    if samples:
        _say("")
        case = done[-1].case
        print_table(kernel_table(samples, heading(case.source, case.sizes, samples[0])))
        typer.echo()
