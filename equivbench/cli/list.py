"""``equivbench list``: what is registered, plug-ins included, with a line on each and where it
comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import unknown_name
from equivbench.registry import resolve
from equivbench.report.table import Column, Table
from equivbench.specs import TaskSpec

Rows = list[dict[str, Any]]


def register(app: typer.Typer) -> None:
    """Add ``list`` to the command line."""
    app.command("list")(list_registered)


def list_registered(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="tasks, pairs, models, kernels, datasets or executors."
        ),
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, each with a name.")
    ] = False,
) -> None:
    """List what is registered, plug-ins included, with a line on each and where it comes from."""
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    gather, columns = KINDS[kind]
    rows = gather()
    if json:
        print_json(rows)
        return
    names = (*columns, "origin", "summary")
    cells = [[row[name] or "" for name in names] for row in rows]
    print_table(Table("", [Column(name, key=name == "name") for name in names], cells))


def tasks() -> Rows:
    """Every task with its fields: names, shapes, types and units."""
    from equivbench.registry import DATASETS, TASKS

    datasets = DATASETS.entries().values()
    rows = []
    for name, entry in sorted(TASKS.entries().items()):
        spec = entry.value
        declared = _declared(spec)
        rows.append(
            {
                "name": name,
                "summary": spec.summary,
                "origin": entry.origin,
                "board_unit": declared.board_unit,
                "fields": [asdict(field) for field in declared.fields],
                "datasets": sorted(each.value.name for each in datasets if each.value.task == name),
            }
        )
    return rows


def _declared(spec: TaskSpec) -> Any:
    """What has the task's ``fields`` and ``board_unit``: the spec where it repeats them, else the
    task, imported now."""
    if spec.fields:
        return spec
    try:
        return resolve(spec.factory)()
    except Exception as error:  # noqa: BLE001  one plug-in's defect must not hide what else is registered
        message(
            "warning",
            f"task {spec.name!r} cannot say what its fields are: {type(error).__name__}: {error}",
        )
        return spec


def pairs() -> Rows:
    """Every pair with its arms, presets and what is matched."""
    from equivbench.registry import PAIRS

    return [
        {
            "name": name,
            "task": entry.value.task,
            "summary": entry.value.summary,
            "origin": entry.origin,
            "arms": [
                {"name": arm.name, "model": arm.model, "wrapper": arm.wrapper}
                for arm in entry.value.arms
            ],
            "presets": {
                preset: {"dataset": shared.dataset, "budget": shared.budget}
                for preset, shared in entry.value.presets.items()
            },
            "matching": {"what": entry.value.matching.what, "target": entry.value.matching.target},
        }
        for name, entry in sorted(PAIRS.entries().items())
    ]


def models() -> Rows:
    """Every model with its task, declared symmetry and required inputs."""
    from equivbench.registry import MODELS

    return [
        {
            "name": name,
            "task": entry.value.task,
            "symmetry": entry.value.symmetry,
            "requires": dict(entry.value.requires),
            "kernels": entry.value.kernels,
            "summary": entry.value.summary,
            "origin": entry.origin,
        }
        for name, entry in sorted(MODELS.entries().items())
    ]


def kernels() -> Rows:
    """Every kernel backend."""
    from equivbench.kernels.backends import absent
    from equivbench.registry import KERNEL_BACKENDS

    return [
        {
            "name": name,
            "devices": list(entry.value.devices),
            "absent": absent(entry.value),
            "summary": entry.value.summary,
            "origin": entry.origin,
        }
        for name, entry in sorted(KERNEL_BACKENDS.entries().items())
    ]


def datasets() -> Rows:
    """Every data set with its task."""
    from equivbench.registry import DATASETS

    return [
        {
            "name": name,
            "task": entry.value.task,
            "summary": entry.value.summary,
            "origin": entry.origin,
        }
        for name, entry in sorted(DATASETS.entries().items())
    ]


def executors() -> Rows:
    """Every executor."""
    from equivbench.registry import EXECUTORS

    return [
        {"name": name, "summary": entry.value.summary, "origin": entry.origin}
        for name, entry in sorted(EXECUTORS.entries().items())
    ]


KINDS: dict[str, tuple[Callable[[], Rows], tuple[str, ...]]] = {
    "tasks": (tasks, ("name", "board_unit")),
    "pairs": (pairs, ("name",)),
    "models": (models, ("name", "task", "symmetry")),
    "kernels": (kernels, ("name", "absent")),
    "datasets": (datasets, ("name", "task")),
    "executors": (executors, ("name",)),
}
