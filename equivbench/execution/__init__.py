"""Runs: from a request to a plan, the workers that train it, and its records.

The way of one run: :mod:`plan` says which contests a request means, an executor
(:mod:`executors`; :mod:`local`, :mod:`slurm`, :mod:`ray`) says where they run. :mod:`planned` keeps
the plan in the results folder, :mod:`leases` says who works on which part of it, :mod:`unit` runs
one; :mod:`contest` gives the workers of one contest their turns, :mod:`workers` and :mod:`worker`
are the two ends of the pipe to a worker process, and :mod:`state` is what the cache keeps so that
a run can go on.
"""

from __future__ import annotations

from equivbench.specs import ExecutorSpec

LOCAL = ExecutorSpec(
    "local",
    "Contests on this machine, each arm in a process of its own.",
    "equivbench.execution.local:LocalExecutor",
)
SLURM = ExecutorSpec(
    "slurm",
    "Contests as tasks of a Slurm array.",
    "equivbench.execution.slurm:SlurmExecutor",
)
RAY = ExecutorSpec(
    "ray",
    "Contests as tasks of a Ray cluster.",
    "equivbench.execution.ray:RayExecutor",
)
"""The executors that are built in; entry points of this package register them."""
