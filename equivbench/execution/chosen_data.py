"""The data set that a run trains on: its preset's, or another one of the task that was asked for
(``--dataset``)."""

from __future__ import annotations

from equivbench.errors import UsageError
from equivbench.registry import DATASETS, PAIRS, resolve
from equivbench.request import RunRequest
from equivbench.specs import PairSpec
from equivbench.tasks.archives import ArchiveSource
from equivbench.training.job import Job


def dataset_of(job: Job) -> str:
    """The data set that ``job`` trains on: the one asked for, else its preset's."""
    return PAIRS.get(job.pair).presets[job.request.preset].on(job.request.dataset).dataset


def chosen_dataset(pair: PairSpec, request: RunRequest) -> str | None:
    """The data set that is asked for; raises ``UsageError`` unless it is one of the pair's task,
    with samples to train on."""
    if request.dataset is None:
        return None
    spec = DATASETS.get(request.dataset)
    if spec.task != pair.task:
        raise UsageError(f"--dataset {spec.name} is of the task {spec.task}; {_alternatives(pair)}")
    if spec.only_tests:
        raise UsageError(
            f"--dataset {spec.name} is a test set, without samples to train on; "
            f"{_alternatives(pair)}"
        )
    return spec.name


def _alternatives(pair: PairSpec) -> str:
    """What ``pair`` can be trained on."""
    entries = DATASETS.entries().items()
    found = [
        name for name, each in entries if each.value.task == pair.task and not each.value.only_tests
    ]
    return f"{pair.key} takes one of {', '.join(sorted(found))}"


def check_prepared(name: str) -> None:
    """Raise ``FailedError`` where the data set ``name`` is one that is built first and is not here,
    or not whole."""
    source = resolve(DATASETS.get(name).factory)()
    problem = source.problem(name) if isinstance(source, ArchiveSource) else None
    if problem is not None:
        raise problem
