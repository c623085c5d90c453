"""An arm's trainer outside any run, for benchmarks of its step and its evaluation."""

from __future__ import annotations

import atexit
import shutil
import tempfile

from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job
from equivbench.training.trainer import Trainer


def dev_trainer(pair: str, arm: str) -> Trainer:
    """The ``dev`` preset of ``arm`` of ``pair`` (``task/pair``), seed 0, on one CPU thread, its
    budget far away.

    Its state lies in a temporary folder that goes with the process. Raises as
    :func:`build_trainer`.
    """
    folder = tempfile.mkdtemp(prefix="equivbench-dev-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build_trainer(
        Job(
            pair=pair,
            arm=arm,
            preset="dev",
            budget="1000000steps",
            seed=0,
            run_id="dev-seed0",
            created="",
            command="",
            out="",
            state_dir=folder,
        )
    )
