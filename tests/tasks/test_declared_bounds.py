"""What records are held against: the declared checksums and sizes are the cards', the declared
lowest losses what rounding leaves, options and groups the tasks', baselines what they measure."""

from pathlib import Path
from typing import Any

import pytest
import torch

import equivbench.tasks
from equivbench.measure.evaluator import Evaluator
from equivbench.records.declared import SAME_BASELINE
from equivbench.registry import DATASETS, PAIRS, TASKS, resolve
from equivbench.tasks.archives import read_card
from equivbench.tasks.flow.table import PER_ANGSTROM
from equivbench.tasks.voxel.data import voxelise
from equivbench.tasks.voxel.table import UNIT
from equivbench.tasks.voxel.task import grid_of

CARDS = sorted(Path(equivbench.tasks.__file__).parent.glob("*/data/*.npz"))
DECLARED = {
    name: entry.value
    for name, entry in DATASETS.entries().items()
    if entry.value.checksums and resolve(entry.value.factory)().build is None
}
"""Those that are shipped: others have to be built first."""


def test_every_shipped_archive_has_its_checksum_declared() -> None:
    shipped = {(card["version"], card["sha256"]) for card in map(read_card, CARDS)}
    assert {pair for spec in DECLARED.values() for pair in spec.checksums.items()} == shipped


@pytest.mark.parametrize("name", DECLARED)
def test_declared_checksums_are_those_that_records_get(name: str) -> None:
    card = read_card(resolve(DECLARED[name].factory)().path())
    assert DECLARED[name].checksums[card["version"]] == card["sha256"]


@pytest.mark.parametrize("name", TASKS.entries())
def test_a_declared_task_is_its_class(name: str) -> None:
    spec = TASKS.get(name)
    task = resolve(spec.factory)()
    names = ("fields", "board_unit", "reported", "options", "group", "test_points")
    assert [getattr(spec, each) for each in names] == [getattr(task, each) for each in names]
    assert spec.feedback_part == (0.0 if task.feedback is None else task.feedback.probability)


@pytest.mark.parametrize("name", [name for name, spec in DECLARED.items() if spec.sizes])
def test_declared_sizes_are_those_that_records_get(name: str) -> None:
    data = resolve(DECLARED[name].factory)().load()
    assert data.card.sizes == DECLARED[name].sizes
    further = {each: len(split) for each, split in data.out_of_distribution.items()}
    assert further == DECLARED[name].further


def declared_baselines() -> list[tuple[str, str]]:
    """(pair, size) of all that is declared: what several pairs declare alike of the same test set,
    judged alike, once."""
    found: dict[Any, tuple[str, str]] = {}
    for key, entry in PAIRS.entries().items():
        for size, preset in entry.value.presets.items():
            if preset.baselines:
                kind = (
                    *(entry.value.task, preset.dataset, preset.test_samples, preset.rotations),
                    *(preset.group, preset.evaluated_at_once, *sorted(preset.baselines.items())),
                )
                found.setdefault(kind, (key, size))
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("key", "size"), declared_baselines())
def test_declared_baselines_are_those_that_records_get(key: str, size: str) -> None:
    preset, task = PAIRS.get(key).presets[size], resolve(TASKS.get(PAIRS.get(key).task).factory)()
    data = resolve(DATASETS.get(preset.dataset).factory)().load()
    evaluator = Evaluator(
        task,
        data.test,
        requires={},
        # As many as are evaluated at once on a CPU: noise is drawn for so many samples.
        batch_size=preset.evaluated_at_once or 16,
        rotations=preset.rotations,
        group=preset.group or task.group,
        samples=preset.test_samples,
        untrained=lambda: task.untrained(data),
    )
    assert evaluator.baselines() == pytest.approx(preset.baselines, rel=SAME_BASELINE)


def test_flow_rounding_is_that_of_the_stored_coordinates() -> None:
    step = 0.1 / PER_ANGSTROM  # nm
    assert DECLARED["ca-small"].lowest_loss == pytest.approx(3 * step**2 / 12)


@pytest.mark.parametrize("name", ["conformers-16", "conformers-small"])
def test_voxel_rounding_is_above_what_is_declared_and_of_its_order(name: str) -> None:
    split = resolve(DATASETS.get(name).factory)().load().test
    batch = split.collate(torch.arange(8))
    generator = torch.Generator().manual_seed(0)
    pos = batch["pos"].double()
    moved = pos + UNIT * (torch.rand(pos.shape, generator=generator, dtype=pos.dtype) - 0.5)
    first, second = (
        voxelise(each, batch["channel"], batch["batch"], 8, grid_of(batch)) for each in (pos, moved)
    )
    left, lowest = float((first - second).square().mean()), DATASETS.get(name).lowest_loss
    assert lowest is not None
    # Rounded down for all grids at once: molecules and grids differ by less than ten.
    assert lowest < left < 10 * lowest
