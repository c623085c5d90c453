"""Seconds of a training step of our arms and of reference implementations, alternated, each in its
own environment.

``python tools/compare_reference.py --ours PYTHON --nequip PYTHON --schnetpack PYTHON``:
interpreters that hold each package. Same batch (16 benzenes), float32, energy-derived forces, one
thread; rounds of all workers in turn (ABBA), minimum per worker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PAINN = {"features": 64, "layers": 3, "radial": 20, "cutoff": 5.0}
SPHERICAL = {
    "channels": 64,
    "layers": 3,
    "lmax": 2,
    "radial": 8,
    "hidden": 128,
    "cutoff": 5.0,
    "neighbours": 11.0,
}
NEQUIP = {
    "r_max": 5.0,
    "num_layers": 3,
    "l_max": 2,
    "num_features": 64,
    "parity": False,
    "compile_mode": "compile",
}
PLAIN = {"width": 64, "layers": 4, "heads": 8, "radial": 12, "cutoff": 5.0, "neighbours": 11.0}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "equivbench vector: PaiNN h64 3L, eager": (
        "ours",
        {"network": "painn", "config": PAINN, "compile": False},
    ),
    "schnetpack PaiNN h64 3L, eager": (
        "schnetpack",
        {"model": "PaiNN", "n_atom_basis": 64, "n_interactions": 3},
    ),
    "equivbench vector: unconstrained h64 3L, eager": (
        "ours",
        {"network": "plain_vectors", "config": PAINN, "compile": False},
    ),
    "equivbench vector: PaiNN h64 3L, fused, eager": (
        "ours",
        {"network": "painn", "config": {**PAINN, "kernels": "fused"}, "compile": False},
    ),
    "equivbench tensor-product: transformer, eager": (
        "ours",
        {"network": "transformer", "config": PLAIN, "compile": False},
    ),
    "schnetpack SchNet h128 6L, eager": (
        "schnetpack",
        {"model": "SchNet", "n_atom_basis": 128, "n_interactions": 6},
    ),
    "equivbench tensor-product: NequIP 3L l2 C64, compiled": (
        "ours",
        {"network": "nequip", "config": SPHERICAL, "compile": True},
    ),
    "equivbench tensor-product: NequIP 3L l2 C64, fused, eager": (
        "ours",
        {"network": "nequip", "config": {**SPHERICAL, "kernels": "fused"}, "compile": False},
    ),
    "equivbench tensor-product: NequIP 3L l2 C64, fused, compiled": (
        "ours",
        {"network": "nequip", "config": {**SPHERICAL, "kernels": "fused"}, "compile": True},
    ),
    "nequip 3L l2 C64 no parity, compiled": ("nequip", NEQUIP),
}
SCRIPTS = {
    "ours": "reference_equivbench.py",
    "nequip": "reference_nequip.py",
    "schnetpack": "reference_schnetpack.py",
}


def start(python: str, script: str, config: dict[str, object]) -> subprocess.Popen[str]:
    """A worker that has not necessarily finished warming up."""
    command = [python, str(HERE / script), json.dumps({"threads": 1, **config})]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=HERE,
    )


def ask(worker: subprocess.Popen[str], steps: int) -> float:
    """Mean seconds of ``steps`` steps."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def main() -> None:
    """Run every case whose interpreter was given and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in SCRIPTS:
        parser.add_argument(f"--{name}", help=f"python of the environment with {name}")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = vars(parser.parse_args())
    chosen = {
        name: case for name, case in CASES.items() if options[case[0]] and options["only"] in name
    }
    workers = {
        name: start(options[environment], SCRIPTS[environment], config)
        for name, (environment, config) in chosen.items()
    }
    facts = {}
    for name, worker in list(workers.items()):
        assert worker.stdout is not None
        line = worker.stdout.readline()  # after warm-up and compilation
        if line:
            facts[name] = json.loads(line)
        else:
            print(f"{name}: the worker ended without an answer")
            del workers[name]
    steps = {name: max(1, round(0.5 / ask(worker, 2))) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for round_ in range(options["rounds"]):
        for name in list(workers) if round_ % 2 == 0 else reversed(list(workers)):
            times[name].append(ask(workers[name], steps[name]))
    for name, values in times.items():
        values.sort()
        first, error = facts[name]["first_steps_seconds"], facts[name].get("gradient_error")
        checked = "" if error is None else f"  gradients off eager's by {error:.0e}"
        size = f"{int(facts[name]['parameters']):>9,} parameters  {int(facts[name]['edges'])} edges"
        least, median = 1e3 * values[0], 1e3 * values[len(values) // 2]
        print(
            f"{name:53s} min {least:7.1f} ms  median {median:7.1f} ms  {size}  "
            f"first 3 steps {first:.1f} s{checked}"
        )
    for worker in workers.values():
        worker.terminate()


if __name__ == "__main__":
    main()
