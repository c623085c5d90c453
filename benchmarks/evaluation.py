"""An evaluation of the first pair of each task, at the ``dev`` size, through the trainer that
``run`` uses.

Seconds of a training step are tracked in :mod:`benchmarks.pairs`, where the arms take turns.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from equivbench.gate.benchmarks import dev_trainer
from equivbench.registry import PAIRS

if TYPE_CHECKING:
    # Not at run time: asv takes every class with a time_... method for a benchmark, and Trainer has
    # time_block.
    from equivbench.training.loop import Trainer

FIRST = {entry.value.task: name for name, entry in reversed(PAIRS.entries().items())}
ARMS = tuple(
    f"{name}/{arm.name}" for name in reversed(FIRST.values()) for arm in PAIRS.get(name).contestants
)


@cache
def trainer(name: str) -> Trainer:
    """A trainer that has taken its first steps (asv repeats ``setup`` before every sample)."""
    torch.set_num_threads(1)
    pair, _, arm = name.rpartition("/")
    made = dev_trainer(pair, arm)
    made.time_block(0.1)
    return made


class Evaluation:
    """The decomposition on the fixed, rotated test set."""

    version = "1"
    timeout = 300
    params = ARMS
    param_names = ("arm",)
    rounds = 1
    repeat = (1, 4, 5.0)

    def setup(self, name: str) -> None:
        """Build once a process."""
        self.trainer = trainer(name)

    def time_evaluation(self, name: str) -> None:
        """Loss and its two parts, as after every part of a run but the last."""
        with self.trainer.running():
            self.trainer.measuring.evaluate()
