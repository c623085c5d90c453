"""Trains our PaiNN or NequIP against a network of another package: the same data, budget and
rotations, both on conservative forces, since the others give energies alone.

    python tools/train_against.py visnet --budget 60s --seeds 0-2 --devices cpu:0,cpu:1

needs torch_geometric (a dependency) for ``visnet``, schnetpack for ``schnetpack-painn``, nequip for
``nequip-nequip``, in the environment that equivbench is in. The other network's learning rate is
first chosen at this very budget, by a seed that the comparison does not have; ours is tuned on
direct forces at 60 s.
"""

from __future__ import annotations

import argparse
import math

import others

import equivbench as eb
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import paragraphs

SEARCH_SEED = 100


def loss_of(record: RunRecord) -> float:
    """Its final loss; infinite where it has none."""
    total = None if record.final is None else record.final.total
    return math.inf if total is None else total


def best_rate(options: argparse.Namespace, devices: list[str] | None) -> float:
    """The learning rate of the other network with the lowest loss; prints what each came to."""
    records = eb.run(
        [f"forcefield/{others.pair_name(options.model, rate)}" for rate in others.RATES],
        budget=options.budget,
        seeds=[SEARCH_SEED],
        arms="augmented",
        forces="conservative",
        devices=devices,
        rungs=0,
        out=options.out,
    )
    losses = {record.recipe.learning_rate: loss_of(record) for record in records}
    for rate, loss in sorted(losses.items()):
        print(f"{options.model} at rate {rate:g}: {loss:.4g} (eV/A)^2")
    best = min(losses, key=lambda rate: losses[rate])
    if best in (min(others.RATES), max(others.RATES)):
        print(f"{best:g} is at the edge of what was tried: a further one may be better")
    return best


def main() -> None:
    """Choose the rate, train, and print how the two end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", choices=sorted(others.OTHERS))
    parser.add_argument("--rate", type=float, choices=others.RATES, help="instead of a search")
    parser.add_argument("--compile", action="store_true", help="the other network, its rate chosen")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--devices", help="such as cpu:0,cpu:1: runs side by side")
    parser.add_argument("--kernels", default="torch", help="of our network")
    parser.add_argument("--out", default="results-against")
    options = parser.parse_args()
    devices = options.devices.split(",") if options.devices else None
    rate = options.rate or best_rate(options, devices)
    records = eb.run(
        f"forcefield/{others.pair_name(options.model, rate, options.compile)}",
        budget=options.budget,
        seeds=options.seeds,
        forces="conservative",
        kernels=options.kernels,
        devices=devices,
        out=options.out,
    )
    for record in records:
        speed = record.throughput.samples_per_second or 0.0
        print(
            f"{record.model.name} seed {record.seed}: {loss_of(record):.4g} (eV/A)^2, {speed:.0f} "
            f"samples/s, {record.steps} steps, {record.model.parameters} parameters"
        )
    for line in paragraphs(eb.efficiency_gap(records)):
        print(line)


if __name__ == "__main__":
    main()
