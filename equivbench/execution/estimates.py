"""How long runs and analyses will take, from what runs like them took: here before, else on the two cores of `results/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from equivbench.execution.parts import Kind
from equivbench.execution.plan import Contest, Plan, estimated_seconds
from equivbench.records.analyses import Analysed
from equivbench.records.schema import RunRecord
from equivbench.training.budget import Budget
from equivbench.training.job import Job

START_SECONDS = 10.0
"""Imports, data and first steps of a contest's workers, which no run's clock counts."""
OFF_BUDGET: Mapping[str, float] = {
    "forcefield/vector": 18.0,
    "forcefield/tied-head": 23.0,
    "forcefield/tensor-product": 24.0,
    "forcefield/tensor-product-parameters": 24.0,
    "flow/vector-head": 34.0,
    "flow/frames": 33.0,
    "voxel/octahedral": 75.0,
    "voxel/steerable": 54.0,
}
"""Wall seconds beyond the budget of an arm of the preset ``small`` (evaluations, timing rounds, checkpoints): means of
``clock.wall - budget.spent`` over the records of two cores in `results/`; 60 s an arm, 30 s of tensor-product-parameters."""
ANALYSIS_SECONDS: Mapping[Kind, Mapping[str, float]] = {
    "gradients": {
        "forcefield/vector": 16.0,
        "forcefield/tied-head": 36.0,
        "forcefield/tensor-product": 55.0,
        "forcefield/tensor-product-parameters": 25.0,
        "flow/vector-head": 75.0,
        "flow/frames": 70.0,
        "voxel/octahedral": 30.0,
        "voxel/steerable": 75.0,
    },
    "landscape": dict.fromkeys(OFF_BUDGET, 160.0) | {"flow/vector-head": 115.0},
}
"""Of one run of the preset ``small`` on the same two cores: the first two of the gradients and three of the landscapes as timed in
a whole `reproduce`, with the start of the command; the others from what they have in common with these."""
