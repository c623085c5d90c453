"""Noise floors of this machine, from recorded rounds of identical code, into the table that the
package ships.

    python tools/gate_floors.py FOLDER ... [--table equivbench/gate/data/noise_floors.json]

Each FOLDER holds the baseline.jsonl and candidate.jsonl of `equivbench check --interleave HEAD HEAD
--out FOLDER`.
"""

from __future__ import annotations

import argparse
import math
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from gate_replay import Recorded, recorded, replayed

from equivbench.environment import git_state
from equivbench.gate.noise import MachineFloors
from equivbench.gate.verdict import estimate
from equivbench.records.files import write_atomically

TABLE = (
    Path(__file__).resolve().parent.parent / "equivbench" / "gate" / "data" / "noise_floors.json"
)
ROUNDS = 8
REPLAYS = 400


def spreads(rounds: Recorded) -> dict[str, float]:
    """Relative standard deviation that one round of each benchmark would need to explain how the
    gate's ratio scatters."""
    ratios: dict[str, list[float]] = {name: [] for name in rounds.benchmarks}
    for seed in range(REPLAYS):
        first, second = replayed(rounds, ROUNDS, seed)
        for one, other in zip(first.measurements, second.measurements, strict=True):
            ratios[one.name].append(math.log(estimate(one, other).ratio))
    return {
        name: float(f"{np.std(values) * math.sqrt(ROUNDS / 2):.3g}")
        for name, values in ratios.items()
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    rounds = recorded(options.folders)
    found = MachineFloors(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=git_state().commit,
        rounds=rounds.count,
        spread=spreads(rounds),
    )
    for name, spread in found.spread.items():
        print(
            f"{spread:7.2%} a round, {3 * spread * math.sqrt(2 / ROUNDS):7.2%} must be exceeded "
            f"with {ROUNDS} rounds  {name}"
        )
    table = (
        msgspec.json.decode(options.table.read_bytes(), type=dict[str, MachineFloors])
        if options.table.exists()
        else {}
    )
    table[rounds.machine] = found
    write_atomically(
        options.table, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n"
    )


if __name__ == "__main__":
    main()
