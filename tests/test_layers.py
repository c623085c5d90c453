"""Imports point downwards only and never in a circle, those for types included, and what must be
light imports no torch."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_record
from source import ROOT, circles, imported

from equivbench.cli.main import Commands
from equivbench.records.store import write_record

LAYERS = (
    ("errors", "counted"),
    ("tabular",),
    (
        *("registry", "request", "option", "budget", "environment", "gpu", "specs", "axes"),
        *("schedule", "records", "programs"),
    ),
    ("ranks",),
    ("symmetry",),
    ("kernels",),
    ("tasks",),
    ("measure", "gap"),
    ("training", "pretrained"),
    ("execution",),
    ("gate",),
    ("report",),
    ("cli",),
    ("studies",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
COMPOSITION_ROOT = ("__init__", "__main__", "pytest_plugin")
"""These gather the others: the package's lazy front doors."""
HEAVY = ("torch", "e3nn", "torch_geometric", "matplotlib")


def layer(module: str) -> str:
    """The first name below the package: ``records`` for ``equivbench.records.store``."""
    return module.split(".")[1]


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_downwards(file: Path) -> None:
    own = file.relative_to(ROOT).with_suffix("").parts[0]
    if own in COMPOSITION_ROOT:
        return
    for module in imported(file):
        if not module.startswith("equivbench.") or layer(module) in ("__version__", own):
            continue
        assert layer(module) in RANK or layer(module) in COMPOSITION_ROOT, (
            f"{module} is in no layer"
        )
        assert RANK[layer(module)] <= RANK[own], f"{own} must not import {module}"


def test_nothing_imports_in_a_circle() -> None:
    assert circles() == []


def test_every_package_has_its_layer() -> None:
    found = {file.relative_to(ROOT).with_suffix("").parts[0] for file in FILES}
    assert found == set(RANK) | set(COMPOSITION_ROOT)


def below(*packages: str) -> list[str]:
    """All modules of the packages."""
    names = []
    for package in packages:
        module = importlib.import_module(package)
        names += [
            package,
            *(found.name for found in pkgutil.walk_packages(module.__path__, f"{package}.")),
        ]
    return names


def heavy_after(code: str, cwd: Path) -> list[str]:
    """Which heavy packages a fresh interpreter has imported after ``code``."""
    tail = (
        f"\nimport json, sys\nfound = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.stderr.write('\\n' + json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, cwd=cwd, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


def test_light_modules_import_nothing_heavy(tmp_path: Path) -> None:
    names = [
        "equivbench",
        "equivbench.errors",
        "equivbench.registry",
        "equivbench.request",
    ]
    names += [
        "equivbench.environment",
        "equivbench.gap.efficiency",
        "equivbench.specs",
        "equivbench.training.heartbeat",
        "equivbench.training.job",
    ]
    names += [
        "equivbench.tasks.base",
        "equivbench.tasks.forcefield.declarations",
        "equivbench.tasks.forcefield.pairs",
    ]
    names += below("equivbench.records", "equivbench.report", "equivbench.cli")
    assert heavy_after(f"import {', '.join(names)}", tmp_path) == []


LIGHT_CALLS = [
    ["--help"],
    ["--version"],
    *([name, "--help"] for name in Commands.table()),
    *(["list", kind, "--json"] for kind in ("tasks", "pairs", "models", "kernels", "datasets")),
    *(
        ["leaderboard", "export", "--format", name]
        for name in ("md", "csv", "json", "html", "latex")
    ),
    ["results", "schema"],
    ["results", "validate", "results"],
    ["check", "a", "b"],
    ["reproduce", "--report-only"],
    ["status", "results"],
]
COMPLETED = [
    "equivbench ",
    *(
        f"equivbench {words} "
        for words in ("run", "run --kernels", "measure", "measure x --task", "data path")
    ),
]
"""Lines that a shell completes to commands and to names of what is registered."""


def test_light_commands_import_nothing_heavy(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path / "results")
    calls = f"""
import sys
from equivbench.cli.main import main
for arguments in {LIGHT_CALLS!r}:
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code in (0, 2, 3), (arguments, stop.code)
    found = [name for name in {HEAVY} if name in sys.modules]
    assert not found, (arguments, found)
import os
os.environ["_EQUIVBENCH_COMPLETE"] = "complete_bash"
for line in {COMPLETED!r}:
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = line, str(line.count(" "))
    try:
        main([])
    except SystemExit as stop:
        assert stop.code == 0, line
"""
    assert heavy_after(calls, tmp_path) == []


def test_one_command_does_not_pay_for_the_others(tmp_path: Path) -> None:
    files = [entry.where.partition(":")[0] for entry in Commands.table().values()]
    code = f"""
import sys
from equivbench.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
found = [name for name in {files!r} if name in sys.modules]
assert not found, found
"""
    assert heavy_after(code, tmp_path) == []
