"""How long `equivbench results validate` takes for many records, and how much memory: makes
folders of them from a sound one, each of another seed and with other losses, and validates them.

    python tools/many_records.py RECORD [--records 100,10000]

Prints for each number of records, the smallest first, the exit code, wall seconds and peak memory
of the whole command in a fresh process, with an empty cache and again with what that left there.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Plain = dict[str, Any]
SMALLER = ("total", "twirled", "equivariance", "over_best_untrained")


def main() -> None:
    """Make the records and print a line for each number of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--records", default="100,10000", help="how many, ascending")
    options = parser.parse_args()
    sound = json.loads(options.record.read_bytes())
    for count in map(int, options.records.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="many-records-"))
        try:
            write(sound, options.record, folder, count)
            time.sleep(
                3
            )  # what has just been written may change within the time of the disk's clock
            for which in ("first", "again"):
                print(f"{count} records, {which}: {validated(folder)}", flush=True)
        finally:
            shutil.rmtree(folder)


def write(sound: Plain, path: Path, folder: Path, count: int) -> None:
    """``count`` records like ``sound``, which is at ``path``, each of a seed of its own."""
    place = folder.joinpath(*path.absolute().parts[-5:-1])
    place.mkdir(parents=True)
    asked = re.sub(r" --(n-)?seeds \S+", "", sound["command"])
    for seed in range(count):
        record = copy.deepcopy(sound)
        record["seed"] = seed
        record["run_id"] = re.sub(r"-seed\d+-", f"-seed{seed}-", sound["run_id"])
        record["command"] = f"{asked} --seeds {seed}"
        record["contest"] = f"{sound['contest'][:-8]}{seed:08x}"
        for test in tests(record):
            lower(test, 1 - 1e-8 * seed)
        record["rungs"][-1]["test"] = record["final"]
        (place / f"{record['run_id']}.json").write_text(json.dumps(record))


def tests(record: Plain) -> Iterator[Plain]:
    """Every evaluation on the test set, shared ones once."""
    for point in record["trace"]:
        yield from (point["test"], point["ema"])
    yield from (rung["test"] for rung in record["rungs"][:-1])
    yield from (record[name] for name in ("final", "final_on_part", "final_raw", "final_ema"))


def lower(test: Plain, factor: float) -> None:
    """Multiply the loss of one evaluation, and all that follows from it."""
    baseline = test["total"] / (1 - test["explained"])
    for part in (test, *test["by"].values()):
        for name in SMALLER:
            part[name] *= factor
    test["explained"] = 1 - test["total"] / baseline
    if test["groups"] is not None:
        for name in ("total", "equivariance"):
            test["groups"][name] = [factor * value for value in test["groups"][name]]


def validated(folder: Path) -> str:
    """What validating ``folder`` took."""
    size = sum(file.stat().st_size for file in folder.rglob("*.json"))
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "equivbench.cli.main", "results", "validate", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "EQUIVBENCH_CACHE": str(folder / ".cache")},
        check=False,
    )
    seconds = time.perf_counter() - start
    # Of all children so far: that of the largest, as long as the numbers ascend.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return (
        f"{size / 1e6:.0f} MB, exit {done.returncode}, {seconds:.1f} s, at most {peak:.0f} MiB, "
        f"{len(done.stdout.splitlines())} lines"
    )


if __name__ == "__main__":
    main()
