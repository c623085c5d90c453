"""Registration and plug-ins, with real distributions on the path: what breaks is named, the rest
keeps working."""

import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from equivbench import registry as registration
from equivbench.errors import FailedError, UsageError
from equivbench.registry import (
    PLUGINS,
    DuplicateNameError,
    PluginLoader,
    Registered,
    Registry,
    resolve,
)
from equivbench.specs import ArmSpec, DatasetSpec, MatchSpec, ModelSpec, PairSpec, TaskSpec


def distribution(folder: Path, name: str, module: str, source: str, *points: str) -> None:
    """A distribution ``name`` in ``folder``: one module and its entry points, ``group: entry =
    target``."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups: dict[str, list[str]] = {}
    for point in points:
        group, entry = point.split(": ")
        groups.setdefault(group, []).append(entry)
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "\n".join(rows) + "\n" for group, rows in groups.items())
    )


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter that sees the distributions in ``folder``."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        timeout=120,
    )


def equivbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line likewise."""
    command = [sys.executable, "-m", "equivbench.cli.main", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        timeout=120,
    )


MODEL = """
    import equivbench as eb

    @eb.register_model("{name}", task="forcefield", symmetry="none", requires={{"edge_index": 5.0}})
    def build(config):
        "A model of another package."
"""
BROKEN = """
    import equivbench as eb

    @eb.register_model("half-done", task="forcefield", symmetry="none")
    def build(config): ...

    raise RuntimeError("no licence found")
"""


def test_plugin_model_is_listed_with_its_origin(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "other-package",
        "other",
        MODEL.format(name="theirs"),
        "equivbench.models: theirs = other",
    )
    done = equivbench(tmp_path, "list", "models")
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if line.startswith("theirs"))
    assert "other-package" in row
    assert "A model of another package." in row


@pytest.mark.parametrize(
    "failure",
    ["raise RuntimeError('no licence found')", "import sys; sys.exit(7)", "import nowhere", "def"],
)
def test_broken_plugin_is_one_warning_and_the_rest_works(tmp_path: Path, failure: str) -> None:
    source = textwrap.dedent(BROKEN).replace('raise RuntimeError("no licence found")', failure)
    groups = [f"equivbench.{group}: bad = broken" for group in ("models", "tasks", "pairs")]
    distribution(tmp_path, "broken-package", "broken", source, *groups)
    distribution(
        tmp_path,
        "other-package",
        "other",
        MODEL.format(name="theirs"),
        "equivbench.models: theirs = other",
    )
    done = equivbench(tmp_path, "list", "models")
    assert done.returncode == 0
    assert "theirs" in done.stdout
    assert "half-done" not in done.stdout, (
        "what a plug-in registered before it failed is taken back"
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert "broken-package" in lines[0]


def test_broken_plugin_is_one_python_warning_in_a_library(tmp_path: Path) -> None:
    distribution(tmp_path, "broken-package", "broken", BROKEN, "equivbench.models: bad = broken")
    code = """
        import warnings
        from equivbench.registry import DATASETS, MODELS, TASKS, PluginWarning
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = [registry.entries() for registry in (MODELS, TASKS, DATASETS, MODELS)]
        assert [warning.category for warning in seen] == [PluginWarning], seen
        message = str(seen[0].message)
        assert "no licence found" in message and "broken-package" in message
        assert found[0] == found[3] and "half-done" not in found[0]
    """
    done = python(tmp_path, code)
    assert done.returncode == 0, done.stderr


def test_two_plugins_with_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "first-package",
        "first",
        MODEL.format(name="same"),
        "equivbench.models: same = first",
    )
    distribution(
        tmp_path,
        "second-package",
        "second",
        MODEL.format(name="same"),
        "equivbench.models: same = second",
    )
    done = equivbench(tmp_path, "list", "models")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "first-package" in done.stderr
    assert "second-package" in done.stderr


def test_name_taken_from_a_builtin_is_an_error_on_every_look_up(tmp_path: Path) -> None:
    source = """
        from equivbench.specs import TaskSpec
        TASK = TaskSpec("forcefield", "a rival", "rival:Task")
    """
    distribution(tmp_path, "rival-package", "rival", source, "equivbench.tasks: rival = rival:TASK")
    code = """
        from equivbench.registry import DATASETS, TASKS, DuplicateNameError
        for registry in (TASKS, TASKS, DATASETS):
            try:
                registry.entries()
            except DuplicateNameError as error:
                assert "rival-package" in str(error) and "by equivbench" in str(error), error
            else:
                raise AssertionError("accepted")
    """
    done = python(tmp_path, code)
    assert done.returncode == 0, done.stderr


def test_what_is_found_does_not_depend_on_the_look_up_that_came_first(tmp_path: Path) -> None:
    source = """
        import equivbench as eb
        from equivbench.specs import MatchSpec, PairSpec
        from equivbench.specs import ModelSpec

        @eb.register_task("ising")
        class Ising: "Spins on a lattice."

        @eb.register_dataset("ising-small", task="ising")
        def spins(): "A small lattice."

        @eb.register_pair
        def pair():
            return PairSpec("flip", "ising", "two arms", (), MatchSpec("all", "none"), {})

        MODEL = ModelSpec("spin-net", "ising", "none", "nowhere:build")
    """
    distribution(
        tmp_path, "ising-package", "ising", source, "equivbench.models: ising = ising:MODEL"
    )
    expected = {
        "TASKS": "ising",
        "DATASETS": "ising-small",
        "PAIRS": "ising/flip",
        "MODELS": "spin-net",
    }
    for name, entry in expected.items():
        code = f"""
            from equivbench.registry import {name}
            found = {name}.entry({entry!r})
            assert found.origin == 'ising-package', found
        """
        done = python(tmp_path, code)
        assert done.returncode == 0, done.stderr


def test_task_that_cannot_be_loaded_does_not_hide_the_others(tmp_path: Path) -> None:
    source = """
        from equivbench.specs import TaskSpec
        TASK = TaskSpec("ising", "spins", "nowhere:Ising")
    """
    distribution(tmp_path, "ising-package", "ising", source, "equivbench.tasks: ising = ising:TASK")
    done = equivbench(tmp_path, "list", "tasks")
    assert done.returncode == 0
    assert "forcefield" in done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert "ising" in done.stderr


@pytest.fixture
def models() -> Registry[ModelSpec]:
    """A registry of its own with one built-in model and no plug-ins."""
    registry = Registry("model", ModelSpec, PluginLoader(()))
    built_in = Registered(ModelSpec("built-in", "toy", "none", "a:b"), "equivbench")
    registry.restore({"built-in": built_in})
    return registry


@pytest.mark.parametrize("name", ["p\u0430inn", "a\u200bb", "caf\u00e9", "a\nb"])
def test_a_name_that_can_be_taken_for_another_is_refused(
    models: Registry[ModelSpec], name: str
) -> None:
    with pytest.raises(UsageError, match="a name is of ASCII characters"):
        models.add(ModelSpec(name, "toy", "none", "a:b"))
    assert name not in models.snapshot()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "my pair"}, "pair 'my pair' cannot be part of a file name"),
        ({"name": "../up"}, "pair '../up' cannot be"),
        ({"arms": (ArmSpec("an arm", "m", {}),)}, "arm 'an arm' cannot be"),
    ],
)
def test_a_pair_that_no_record_could_be_written_of_is_refused(
    change: dict[str, Any], says: str
) -> None:
    pairs = Registry("pair", PairSpec, PluginLoader(()))
    pair = PairSpec("mine", "toy", "", (), MatchSpec("", ""), {})
    pairs.add(pair)
    with pytest.raises(UsageError, match=re.escape(says)):
        pairs.add(replace(pair, **change))


def test_duplicate_names_both_owners(models: Registry[ModelSpec]) -> None:
    models.add(ModelSpec("mine", "toy", "none", "a:b"))
    for name, owner in (("mine", "this process"), ("built-in", "equivbench")):
        with pytest.raises(
            DuplicateNameError,
            match=f"{name!r} is registered twice: by {owner} and by this process",
        ):
            models.add(ModelSpec(name, "toy", "none", "c:d"))
    assert sorted(models.entries()) == ["built-in", "mine"]


def test_unknown_name_gives_the_close_matches(models: Registry[ModelSpec]) -> None:
    with pytest.raises(UsageError, match=r"unknown model 'build-in'; did you mean built-in\?"):
        models.get("build-in")


class Fragile:
    """An entry point that cannot be loaded the first time."""

    group = "toys"

    def __init__(self, failure: Exception) -> None:
        self.failures = [failure]

    def load(self) -> tuple[ModelSpec, ...]:
        if self.failures:
            raise self.failures.pop()
        return (ModelSpec("second", "toy", "none", "a:b"),)


class Sound(Fragile):
    """One that can."""

    def __init__(self) -> None:
        self.failures = []

    def load(self) -> ModelSpec:
        return ModelSpec("first", "toy", "none", "a:b")


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(OSError("a passing fault"), OSError), (ImportError("no module toys"), FailedError)],
)
def test_built_in_that_fails_can_be_tried_again(
    failure: Exception, seen: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SimpleNamespace(entry_points=[Sound(), Fragile(failure)])
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: own)
    registry = Registry("model", ModelSpec, PluginLoader(("toys",)))
    with pytest.raises(seen, match=str(failure)):
        registry.entries()
    assert registry.snapshot() == {}
    found = registry.entries()
    assert {name: entry.origin for name, entry in found.items()} == {
        "first": "equivbench",
        "second": "equivbench",
    }


def test_what_is_built_in_comes_from_the_entry_points_of_the_package() -> None:
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    groups = declared["project"]["entry-points"]
    assert set(groups) >= set(PLUGINS.groups)
    for registry, group in zip(PLUGINS.registries, PLUGINS.groups, strict=True):
        targets = [resolve(target) for target in groups[group].values()]
        specs = [each if isinstance(each, tuple) else (each,) for each in targets]
        listed = {id(spec) for several in specs for spec in several}
        registered = [
            entry.value for entry in registry.entries().values() if entry.origin == "equivbench"
        ]
        assert {id(spec) for spec in registered} == listed


def test_an_uninstalled_checkout_says_what_to_do(tmp_path: Path) -> None:
    info = tmp_path / "equivbench.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: equivbench\nVersion: 0\n")
    done = equivbench(tmp_path, "list", "models")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "pip install -e ." in done.stderr


def test_reading_records_runs_no_plugin(tmp_path: Path) -> None:
    distribution(tmp_path, "other-package", "other", BROKEN, "equivbench.models: theirs = other")
    code = """
        import sys
        from equivbench.registry import DATASETS
        assert "gfn2-small" in DATASETS.without_plugins()
        assert "other" not in sys.modules
    """
    done = python(tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> dict[str, Registry]:
    """Empty registries in place of the global ones."""
    loader = PluginLoader(())
    registries = {
        name: Registry(registry.kind, registry.holds, loader)
        for name, registry in vars(registration).items()
        if isinstance(registry, Registry)
    }
    for name, registry in registries.items():
        monkeypatch.setattr(registration, name, registry)
    return registries


def test_decorators_return_what_they_decorate_and_register_it(private: dict[str, Registry]) -> None:
    def build(config):
        """Build a toy.

        More text.
        """

    assert registration.register_task("toy", summary="a toy", board_unit="m")(build) is build
    assert (
        registration.register_model(
            "net", task="toy", symmetry="so3", requires={"edge_index": 5.0}
        )(build)
        is build
    )
    assert registration.register_dataset("toys", task="toy")(build) is build
    assert registration.register_kernel_backend("fast")(build) is build
    assert private["TASKS"].get("toy") == TaskSpec("toy", "a toy", build, (), "m")
    assert private["MODELS"].get("net") == ModelSpec(
        "net", "toy", "so3", build, {"edge_index": 5.0}, "Build a toy."
    )
    assert private["DATASETS"].get("toys") == DatasetSpec("toys", "toy", "Build a toy.", build)
    assert private["KERNEL_BACKENDS"].get("fast").factory is build


def test_pair_is_registered_whole_or_by_a_function(private: dict[str, Registry]) -> None:
    first, second = (
        PairSpec(name, "toy", "", (), MatchSpec("", ""), {}) for name in ("first", "second")
    )
    assert registration.register_pair(first) is first

    def function() -> PairSpec:
        return second

    assert registration.register_pair(function) is function
    assert [entry.value for entry in private["PAIRS"].entries().values()] == [first, second]
    with pytest.raises(UsageError, match="register_pair needs"):
        registration.register_pair(lambda: "toy/third")  # type: ignore[return-value]


@pytest.mark.usefixtures("private")
def test_symmetry_must_be_a_known_one() -> None:
    with pytest.raises(UsageError, match="symmetry 'su2' is not one of none, octahedral, so3, o3"):
        registration.register_model("net", task="toy", symmetry="su2")(lambda config: None)


@pytest.mark.parametrize(
    "factory", ["no-colon", "a:", ":b", "nowhere:x", "os:nothing", "os.path:join.nothing"]
)
def test_bad_factory_is_a_usage_error_that_names_it(factory: str) -> None:
    with pytest.raises(UsageError, match=factory):
        resolve(factory)


def test_factory_is_resolved_or_passed_through() -> None:
    assert resolve("pathlib:Path.cwd") == Path.cwd
    assert resolve(len) is len
