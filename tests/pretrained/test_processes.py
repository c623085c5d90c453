"""A network in a process of its own: what it answers, and one sentence for each way of failing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import psutil
import pytest
from toy_pretrained import toy

from equivbench.errors import FailedError
from equivbench.pretrained.forces import ServedCalculator
from equivbench.pretrained.processes import PROGRAM, NetworkProcess

from ase import Atoms  # isort: skip

WATER = Atoms("OH2", [[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]])


def process(python: Path, seconds: float = 60.0) -> NetworkProcess:
    return NetworkProcess(python, 1, start_seconds=60.0, answer_seconds=seconds)


def load(where: str, **arguments: object) -> dict[str, object]:
    network = toy("toy", where, **arguments)
    return {"door": "forces", "network": network.load.plain(), "packages": ["toy-networks"]}


def test_it_answers_with_the_forces_of_the_calculator(toys: Path) -> None:
    away = WATER.get_positions() - WATER.get_positions().mean(0)
    with process(toys) as springs:
        assert springs.load("toy", load("Springs")) == {"packages": {"toy-networks": "1.0"}}
        calculator = ServedCalculator(springs)
        for _ in range(2):
            assert np.array_equal(calculator.get_forces(WATER), -1.4 * away)
    assert calculator.atoms == [3, 3]
    assert min(calculator.seconds) > 0


def test_the_cell_goes_with_the_atoms(toys: Path) -> None:
    crystal = Atoms("H", cell=[[3.0, 0.1, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]], pbc=True)
    with process(toys) as lattice:
        lattice.load("toy", load("Lattice"))
        assert np.array_equal(ServedCalculator(lattice).get_forces(crystal), [[3.0, 0.1, 0.0]])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no weights", r"toy: OSError: Connection refused: weights\.example"),
        ("raises", "toy: ValueError: no such element: Xx"),
        ("dies", "the process of toy ended with code 7: Fatal: out of luck"),
        ("is killed", "the process of toy was ended by signal 9"),
        ("hangs", "toy gave no answer within 2 s"),
        ("babbles", "toy answered with something that is no message"),
        (
            "wrong shape",
            r"toy gives \(2, 3\) \(float64\) for the forces on 3 atoms of H2O; \(3, 3\) of "
            "floating-point numbers are needed",
        ),
        ("no numbers", r"toy gives \(3, 3\) \(int64\) for the forces on 3 atoms of H2O; .*"),
        ("not finite", "toy gives forces on H2O that are not finite"),
    ],
)
def test_each_failure_is_one_sentence_and_leaves_nothing(how: str, says: str, toys: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    started = process(toys, 2.0 if how == "hangs" else 60.0)
    with pytest.raises(FailedError) as refused, started as failing:
        failing.load("toy", load("Fails", how=how))
        ServedCalculator(failing).get_forces(WATER)
    assert re.fullmatch(says, str(refused.value))
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not started._folder.exists()


def test_an_environment_that_is_broken_is_one_sentence(toys: Path, tmp_path: Path) -> None:
    broken = {"door": "forces", "network": {"call": "nowhere:X", "arguments": {}}, "packages": []}
    says = "toy: ModuleNotFoundError: No module named 'nowhere'"
    with process(toys) as started, pytest.raises(FailedError, match=says):
        started.load("toy", broken)
    says = r"the environment gone is broken \(No such file or directory\); remove it from the cache"
    with pytest.raises(FailedError, match=says):
        process(tmp_path / "gone" / "bin" / "python").__enter__()


def test_one_process_serves_one_network_after_another(toys: Path) -> None:
    with process(toys) as serving:
        serving.load("first", load("Springs"))
        first = ServedCalculator(serving).get_forces(WATER)
        serving.load("second", load("Field"))
        second = ServedCalculator(serving).get_forces(WATER)
    assert np.array_equal(second, first * [1.0, 0.0, 0.0])


def test_the_program_needs_nothing_of_this_package() -> None:
    imports = [
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    ]
    assert "numpy" in imports
    assert not [name for name in imports if name and name.startswith("equivbench")]
