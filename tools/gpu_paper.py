"""Times training steps of the networks and recipes of published size on the data that are shipped,
eagerly: what compiles takes a minute an arm.

``python tools/gpu_paper.py DEVICE FILE`` writes a line of JSON an arm; on a CPU, where this is a
rehearsal, the ``dev`` preset takes the place of ``paper``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from equivbench.registry import PAIRS
from equivbench.request import RunRequest
from equivbench.specs import ArmSpec, Preset
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job
from equivbench.training.record import throughput

DATA: Preset = "small"
"""The preset whose data are shipped."""
BLOCKS, SECONDS = 3, 0.5
LEFT_OUT = ("compile", "tuned_at", "tuning_log_sha256")
"""Fields of the recipe that are not taken over."""


def main() -> None:
    """Time the arms of every pair, and say what failed."""
    device, target = sys.argv[1], Path(sys.argv[2])
    size = "dev" if device == "cpu" else "paper"
    failed = 0
    with open(target, "a", encoding="utf-8") as file:
        for name, entry in PAIRS.entries().items():
            for arm in entry.value.contestants:
                try:
                    found = timed(name, arm, size, device)
                except Exception as error:  # noqa: BLE001  the others are timed all the same
                    found, failed = {"error": f"{type(error).__name__}: {error}"}, failed + 1
                line = json.dumps({"pair": name, "arm": arm.name, "size": size, **found})
                print(line)
                file.write(line + "\n")
                file.flush()
    sys.exit(3 if failed else 0)


def timed(pair: str, arm: ArmSpec, size: str, device: str) -> dict[str, Any]:
    """What a step of ``arm`` takes at ``size``."""
    sized, data = arm.presets[size], arm.presets[DATA]
    fields = dataclasses.asdict(sized.recipe).items()
    recipe = {name: value for name, value in fields if name not in LEFT_OUT}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            pair=pair,
            arm=arm.name,
            request=RunRequest(preset=DATA, out=folder, rungs=0),
            budget="1h",
            seed=0,
            run_id="throughput",
            state_dir=folder,
            device=device,
            config={name: value for name, value in sized.config.items() if name in data.config},
            recipe={**recipe, "compile": False},
            split="validation",
        )
        trainer = build_trainer(job)
        with trainer.running():
            trainer.prepare()
        blocks = [trainer.time_block(SECONDS) for _ in range(BLOCKS)]
        with trainer.memory.training():
            trainer.time_block(0.0)
        found = throughput(blocks, trainer.arm.recipe.batch_size, None)
        peak = trainer.memory.peak
        return {
            "samples_per_second": found.samples_per_second,
            "step_seconds": [block.seconds for block in blocks],
            "batch_size": trainer.arm.recipe.batch_size,
            "precision": trainer.arm.recipe.precision,
            "parameters": sum(each.numel() for each in trainer.arm.model.parameters()),
            "peak_bytes": peak if isinstance(peak, int) else None,
        }


if __name__ == "__main__":
    main()
