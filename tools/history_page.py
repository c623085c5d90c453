"""Makes asv's pages of the history of speed and loss, of what asv measured here and of the records
in ``results/``; or a page that says why there is none."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from asv_records import BENCHMARKS, Measured, measured

NO_HISTORY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>equivbench: no history here</title></head>
<body><p>This site has no history of speed and loss: {}.</p></body></html>
"""
NO_ASV = "asv, which draws it, was not installed where the site was built"
NO_COMMITS = "the site was built from files that are no git checkout, which have no commits"
NOTHING = (
    "<code>asv run</code> had measured nothing where the site was built, and no record in "
    "<code>results/</code> that may be compared is of a commit of its branch"
)


class History(NamedTuple):
    """What became of the records."""

    drawn: int
    """Their values in the history."""
    left_out: int
    """Those of commits that are not in the history of the branch."""
    absent: str | None
    """Why there is no history at all; None where there is one."""


def publish_history(project: Path, out: Path) -> History:
    """Put the pages that asv makes of its results in ``project``, and of the records there, into
    the folder ``out``; where there are neither, one page that says why.

    Raises ``subprocess.CalledProcessError`` where asv fails, ``FailedError`` where a file of
    results is not valid.
    """
    dates = commit_dates(project)
    if importlib.util.find_spec("asv") is None or not dates:
        return _absent(NO_COMMITS if not dates else NO_ASV, out)
    settings = json.loads((project / "asv.conf.json").read_text(encoding="utf-8"))
    records = project / "results"
    found = measured(records) if records.is_dir() else []
    drawn = [each for each in found if each.commit in dates]
    left_out = len(found) - len(drawn)
    with tempfile.TemporaryDirectory(prefix="equivbench-history-") as name:
        results, config = Path(name, "results"), Path(name, "asv.conf.json")
        own = project / settings["results_dir"]
        if own.is_dir():
            shutil.copytree(own, results)
        if drawn:
            write_results(drawn, dates, results)
        if all(file.name == "machine.json" for file in results.glob("*/*.json")):
            return _absent(NOTHING, out, left_out)
        settings |= {"repo": str(project.resolve()), "results_dir": str(results)}
        config.write_text(json.dumps(settings), encoding="utf-8")
        # asv empties the folder first; its repository is this one, so there is nothing to pull.
        command = ["publish", "--no-pull", "--config", str(config), "--html-dir"]
        subprocess.run([sys.executable, "-m", "asv", *command, str(out.resolve())], check=True)
    return History(len(drawn), left_out, None)


def _absent(why: str, out: Path, left_out: int = 0) -> History:
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(NO_HISTORY.format(why), encoding="utf-8")
    return History(0, left_out, why)


def commit_dates(project: Path) -> dict[str, int]:
    """Milliseconds since 1970 of each commit that asv draws, HEAD and its first parents; none where
    git knows no commits of ``project``."""
    if not (project / ".git").exists() or shutil.which("git") is None:
        return {}
    command = ["git", "log", "--first-parent", "--format=%H %at", "HEAD"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, encoding="utf-8")
    lines = (line.split() for line in done.stdout.splitlines())
    return {commit: 1000 * int(seconds) for commit, seconds in lines}


def write_results(values: Iterable[Measured], dates: Mapping[str, int], folder: Path) -> None:
    """Add ``values`` to the results of asv in ``folder``, which may have none yet; ``dates`` has
    those of their commits, as :func:`commit_dates` gives them."""
    from asv.benchmarks import Benchmarks
    from asv.config import Config
    from asv.machine import Machine
    from asv.results import Results
    from asv.runner import BenchmarkResult

    values = list(values)
    parameters = {
        name: sorted({each.parameter for each in values if each.benchmark == name})
        for name in BENCHMARKS
    }
    benchmarks = {name: _described(name, own) for name, own in parameters.items() if own}
    places: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for each in values:
        places[each.where.machine_key, each.commit].append(each)
    for (key, commit), own in places.items():
        hardware = {"cpu": own[0].where.cpu, "num_cpu": str(own[0].where.threads)}
        machine = Machine()
        vars(machine).update(machine=key, os="", arch="", ram="", **hardware)
        if not (folder / key / "machine.json").exists():
            machine.save(str(folder))
        results = Results(dict(vars(machine)), {}, commit, dates[commit], "", "records", {})
        for name, benchmark in benchmarks.items():
            known = {each.parameter: each for each in own if each.benchmark == name}
            if not known:
                continue
            column = [known[each].value if each in known else None for each in parameters[name]]
            nothing = [None] * len(column)
            measured_at = max(datetime.fromisoformat(each.created) for each in known.values())
            result = BenchmarkResult(column, nothing, nothing, 0, "", None)
            results.add_result(benchmark, result, started_at=measured_at)
        results.save(str(folder))
    config = Config()
    config.results_dir = str(folder)
    listed = Benchmarks.load(config) if (folder / "benchmarks.json").exists() else {}
    Benchmarks(config, [*listed.values(), *benchmarks.values()]).save()


def _described(name: str, parameters: Iterable[str]) -> dict[str, Any]:
    """What asv is to know of the benchmark ``name`` of records."""
    told = BENCHMARKS[name]
    return {
        "name": name,
        "code": told.says,
        "version": "1",
        "params": [[*map(repr, parameters)]],
        "param_names": [told.parameter],
        "type": "track",
        "unit": told.unit,
        "timeout": 60,
    }
