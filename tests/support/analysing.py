"""Trains toy runs and calls an analysis on them, all in one process: most of a call is the import
of torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from running import Bench, Ran

CALLS = """
import contextlib, io, json, secrets, sys
from datetime import UTC, datetime
from equivbench.cli.main import main
from equivbench.execution.plan import make_plan, this_machine
from equivbench.execution.state import on_machines, open_state, remember_record
from equivbench.records.store import write_record
from equivbench.request import RunRequest
from equivbench.training.assembly import build_trainer
from equivbench.training.loop import StepTimes
from equivbench.training.record import make_record
analysis, runs, calls = json.loads(sys.argv[1])
# The name of a contest ends with a draw, and these tests name its records.
secrets.token_hex = lambda count: "0" * 2 * count
for second, options in enumerate(runs):
    request = RunRequest.of(pairs=("toy/plain",), preset="dev", device="cpu", threads=1, **options)
    plan = make_plan(request, datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC))
    for job in on_machines(plan, [this_machine(request)]).jobs:
        with contextlib.redirect_stdout(io.StringIO()):
            open_state(job)
            trainer = build_trainer(job)
            trainer.train_slice(1e9)
            record = make_record(job, trainer, [StepTimes(1e-3, [1e-3])], None)
            remember_record(job, write_record(record, job.request.out))
for arguments in calls:
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["analyze", analysis, *arguments])
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def analyse(
    bench: Bench, analysis: str, runs: Sequence[dict[str, Any]], calls: Sequence[Sequence[str]]
) -> list[Ran]:
    """What each of ``calls`` of ``equivbench analyze`` says once ``runs`` of ``toy/plain`` are
    trained, each a second later."""
    asked = json.dumps([analysis, runs, calls])
    done = bench.finish(bench.start_python("-c", CALLS, asked))
    assert done.code == 0, done.err
    return [Ran(*json.loads(line)) for line in done.out.splitlines()]


def assert_refused(refused: Sequence[Ran], wanted: Sequence[tuple[int, str]]) -> None:
    """Each call ended with its code and one sentence."""
    for ran, (code, says) in zip(refused, wanted, strict=True):
        assert (ran.code, ran.out) == (code, "")
        assert says in ran.err
        # The toy prints a line of its own as it is built.
        assert ran.err.replace("a library that prints to stdout\n", "").count("\n") == 1
