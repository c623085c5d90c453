"""Times kernel cases on every backend that is on a device and does not compile for long.

``python tools/gpu_kernels.py DEVICE RESULTS CASE...``: samples go to RESULTS after each case and
mode, so that what is cut short is kept.
"""

from __future__ import annotations

import sys

import torch

from equivbench.cli.main import main
from equivbench.kernels.measuring import why_absent
from equivbench.registry import KERNEL_BACKENDS

ROUNDS = 5


def present(device: str) -> list[str]:
    """The backends that can run on ``device``, but those that are slow to build."""
    found = []
    for name, entry in KERNEL_BACKENDS.entries().items():
        reason = why_absent(name, torch.device(device))
        if reason is not None:
            print(f"{name} is left out: {reason}")
        elif not entry.value.slow_to_build:
            found.append(name)
    return found


if __name__ == "__main__":
    device, results, *cases = sys.argv[1:]
    options = [option for name in present(device) for option in ("--backend", name)]
    rounds = ["--rounds", str(ROUNDS)]
    sys.exit(main(["kernels", *cases, *options, *rounds, "--device", device, "--out", results]))
