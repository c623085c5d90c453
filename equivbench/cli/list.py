"""``equivbench list``: what is registered, plug-ins included, with a line on each and where it
comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from equivbench.cli.completion import REGISTRIES, completer
from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import FailedError, unknown_name
from equivbench.registry import DATASETS, resolve
from equivbench.report.table import Column, Table
from equivbench.specs import DatasetSpec, KernelBackendSpec, ModelSpec, PairSpec, TaskSpec


def list_registered(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="tasks, pairs, models, kernels, datasets or executors.",
            autocompletion=completer(KINDS),
        ),
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, each with a name.")
    ] = False,
) -> None:
    """List what is registered, plug-ins included, with a line on each and where it comes from."""
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    facts, shown = KINDS[kind]
    rows = [
        {"name": name, **facts(entry.value), "summary": entry.value.summary, "origin": entry.origin}
        for name, entry in sorted(REGISTRIES[kind].entries().items())
    ]
    if json:
        print_json(rows)
        return
    names = ("name", *shown, "origin", "summary")
    cells = [[row[name] or "" for name in names] for row in rows]
    columns = [
        Column(
            name,
            key=name == "name",
            show="differs" if name == "origin" else "always",
            wraps=name in ("absent", "summary"),
        )
        for name in names
    ]
    origins = {row["origin"] for row in rows}
    notes = [f"all of them come with {origin}" for origin in origins if len(origins) == 1]
    if any(row.get("only_tests") for row in rows):
        notes.append("tests: a set without samples to train on")
    print_table(Table("", columns, cells, notes))


def task_facts(spec: TaskSpec) -> dict[str, Any]:
    """A task's fields: names, shapes, types and units; outputs reported beside the metric; and
    its data sets."""
    declared: Any = spec
    if not spec.fields:  # the spec does not repeat them: the task is imported
        try:
            declared = resolve(spec.factory)()
        except Exception as error:  # noqa: BLE001  one plug-in's defect must not hide what else is registered
            message(
                "warning",
                f"task {spec.name!r} cannot say what its fields are: "
                f"{type(error).__name__}: {error}",
            )
    datasets = DATASETS.entries().values()
    return {
        "board_unit": declared.board_unit,
        "fields": [asdict(field) for field in declared.fields],
        "reported": [
            {"name": field.name, "unit": f"({field.unit})^2", "per": field.per}
            for field in declared.fields
            if field.role == "output" and field.name in declared.reported
        ],
        "datasets": sorted(each.value.name for each in datasets if each.value.task == spec.name),
    }


def pair_facts(spec: PairSpec) -> dict[str, Any]:
    """A pair's arms, presets and what is matched; of each preset, what evaluations take."""
    return {
        "task": spec.task,
        "arms": [
            {"name": arm.name, "model": arm.model, "wrapper": arm.wrapper} for arm in spec.arms
        ],
        "presets": {
            preset: {
                "dataset": shared.dataset,
                "budget": shared.budget,
                "evaluation": _evaluation_steps(spec, preset),
            }
            for preset, shared in spec.presets.items()
        },
        "matching": {"what": spec.matching.what, "target": spec.matching.target},
    }


def _evaluation_steps(spec: PairSpec, preset: str) -> dict[str, float | None]:
    """By contestant: how many training steps take as long as its evaluations under the preset's own
    budget; None where a task, data set or preset is not there, or the size of its test set."""
    from equivbench.execution.evaluation_cost import known_cost

    step, budget = spec.seconds.get(preset, {}).get("step"), spec.presets[preset].budget
    costs = {arm.name: known_cost(spec, arm.name, preset, budget, step) for arm in spec.contestants}
    return {name: None if cost is None else cost.steps for name, cost in costs.items()}


def model_facts(spec: ModelSpec) -> dict[str, Any]:
    """A model's task, declared symmetry, required inputs and what it takes from a kernel
    backend."""
    facts = {name: getattr(spec, name) for name in ("task", "symmetry", "kernels")}
    return facts | {"operations": list(spec.operations), "requires": dict(spec.requires)}


def backend_facts(spec: KernelBackendSpec) -> dict[str, Any]:
    """A kernel backend's devices and operations, those of a CPU alone, how often they can be
    differentiated, and why it cannot run here."""
    from equivbench.kernels.backends import absent

    lists = ("devices", "operations", "cpu_operations")
    facts = {name: list(getattr(spec, name)) for name in lists}
    return facts | {"max_derivatives": spec.max_derivatives, "absent": absent(spec)}


def dataset_facts(spec: DatasetSpec) -> dict[str, Any]:
    """A data set's task, whether it is on this machine, and whether it only tests."""
    state = _dataset_state(spec) + ", tests" * spec.only_tests
    return {"task": spec.task, "state": state, "only_tests": spec.only_tests}


def _dataset_state(spec: DatasetSpec) -> str:
    from equivbench.tasks.archives import ArchiveSource

    try:
        source = resolve(spec.factory)()
        if not isinstance(source, ArchiveSource):
            return "prepared" if source.path().exists() else "not prepared"
        if source.build is None:
            return "shipped"
        return "prepared" if source.problem(spec.name) is None else "not prepared"
    except FailedError:  # the place that it is made from is not there either
        return "not prepared"
    except Exception:  # noqa: BLE001  a plug-in's source may raise anything
        return "unknown"


KINDS: dict[str, tuple[Callable[[Any], dict[str, Any]], tuple[str, ...]]] = {
    "tasks": (task_facts, ("board_unit",)),
    "pairs": (pair_facts, ()),
    "models": (model_facts, ("task", "symmetry")),
    "kernels": (backend_facts, ("absent",)),
    "datasets": (dataset_facts, ("task", "state")),
    "executors": (lambda spec: {}, ()),
}
"""Of each kind what is said of one beside summary and origin, and what of that stands in the
table."""
