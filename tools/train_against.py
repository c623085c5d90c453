"""Trains our PaiNN against a network of another package: the same data, budget and rotations, both
on conservative forces, since the others give energies alone.

    python tools/train_against.py visnet --rate 0.004 --budget 60s --seeds 0-2

needs torch_geometric (a dependency) for ``visnet``, schnetpack for ``schnetpack-painn``, in the
environment that equivbench is in. The other network is not tuned: run it at several rates, and
compare ours with the best.
"""

from __future__ import annotations

import argparse

import others

import equivbench as eb
from equivbench.report.gaps import paragraphs


def main() -> None:
    """Train, and print how the two end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", choices=("visnet", "schnetpack-painn"))
    parser.add_argument("--rate", type=float, choices=others.RATES, default=others.RATES[2])
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--kernels", default="torch", help="of our PaiNN")
    parser.add_argument("--out", default="results-against")
    options = parser.parse_args()
    records = eb.run(
        f"forcefield/against-{options.model}-{options.rate:g}",
        budget=options.budget,
        seeds=options.seeds,
        forces="conservative",
        kernels=options.kernels,
        out=options.out,
    )
    for line in paragraphs(eb.efficiency_gap(records)):
        print(line)


if __name__ == "__main__":
    main()
