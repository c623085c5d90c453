"""Runs: from a request to a plan, the workers that train it, and its records.

The way of one run: :mod:`plan` says which contests a request means, an executor
(:mod:`executors`; :mod:`local` is the built-in one) says where they run. :mod:`planned` keeps the
plan in the results folder, :mod:`leases` says who works on which part of it, :mod:`unit` runs one;
:mod:`contest` gives the workers of one contest their turns, :mod:`workers` and :mod:`worker` are
the two ends of the pipe to a worker process, and :mod:`state` is what the cache keeps so that a run
can go on.
"""

from __future__ import annotations

from equivbench.specs import ExecutorSpec

LOCAL = ExecutorSpec(
    "local",
    "Contests on this machine, each arm in a process of its own.",
    "equivbench.execution.local:LocalExecutor",
)
"""The executor that is built in; an entry point of this package registers it."""
