"""How long a large force-field set takes to load, and how much memory of a worker's own: makes one
of random conformations and loads it in fresh processes, first unpacking it, then as every later
worker does.

    python tools/large_set.py [--conformations 2000000]

Prints for each process its wall seconds, the memory that is its own (all but the pages of files,
which the processes of a machine share) at the end and at its peak, and how long a batch of 16
takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from equivbench.tasks.archives import sha256_of
from equivbench.tasks.forcefield.table import LAYOUT

ELEMENTS = np.array([1, 6, 7, 8, 9, 15, 16, 17, 35, 53], dtype=np.uint8)
CONFORMATIONS_OF_A_MOLECULE = 100
READINGS_APART = 0.01
"""Seconds between readings of the memory."""


def main() -> None:
    """Make the set and print a line for each of three processes that load it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--conformations", type=int, default=2_000_000)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(loaded(options.load), flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="large-set-") as folder:
        path = Path(folder) / "random-spice.npz"
        atoms = write(path, options.conformations)
        size = path.stat().st_size / 1e9
        print(f"{options.conformations} conformations, {atoms} atoms, {size:.2f} GB", flush=True)
        environment = {**os.environ, "EQUIVBENCH_CACHE": f"{folder}/cache"}
        for what in ("unpacks it", "later worker", "later worker"):
            command = [sys.executable, __file__, "--load", str(path)]
            out = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout
            print(f"{what}: {out.strip()}", flush=True)


def write(path: Path, conformations: int) -> int:
    """An archive of random molecules of 20 to 40 atoms at ``path``, with its card; returns how many
    atoms it has."""
    rng = np.random.default_rng(0)
    molecules = -(-conformations // CONFORMATIONS_OF_A_MOLECULE)
    molecule = np.repeat(np.arange(molecules, dtype=np.int32), CONFORMATIONS_OF_A_MOLECULE)
    molecule = molecule[:conformations]
    counts = rng.integers(20, 41, molecules, dtype=np.int32)[molecule]
    atoms = int(counts.sum())
    columns = {
        "z": rng.choice(ELEMENTS, atoms),
        "pos": rng.standard_normal((atoms, 3), dtype=np.float32) * 3,
        "forces": rng.standard_normal((atoms, 3), dtype=np.float32),
        "energy": rng.standard_normal(conformations) - 1000.0 * counts,
        "n_atoms": counts,
        "molecule": molecule,
        # Seven molecules in ten are for training, one for validation, two for the test.
        "split": np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 2], dtype=np.uint8)[molecule % 10],
        "names": np.array([f"m{number}".encode() for number in range(molecules)]),
    }
    assert columns.keys() == LAYOUT.columns.keys()
    np.savez(path, allow_pickle=False, **columns)
    card = {"name": path.stem, "version": "1", "sha256": sha256_of(path)}
    path.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    return atoms


def loaded(path: Path) -> str:
    """What loading takes in this process, in words."""
    import psutil
    import torch

    from equivbench.tasks.forcefield.task import load

    process, own, ended = psutil.Process(), [], threading.Event()

    def owned() -> int:
        now = process.memory_info()
        return int(now.rss - now.shared)

    def watch() -> None:
        while not ended.wait(READINGS_APART):
            own.append(owned())

    before = owned()
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    data = load(path)
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    after = owned()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(len(data.train), (16,), generator=generator) for _ in range(100)]
    start = time.perf_counter()
    for indices in batches:
        data.train.collate(indices)
    batch = (time.perf_counter() - start) / len(batches)
    return (
        f"{seconds:.1f} s, {(after - before) / 1e6:.0f} MB of its own, "
        f"{(max(own, default=after) - before) / 1e6:.0f} MB at its peak, "
        f"{before / 1e6:.0f} MB before; a batch of 16 in {1e3 * batch:.2f} ms"
    )


if __name__ == "__main__":
    main()
