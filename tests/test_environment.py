"""Where a run happens: keys that are safe and comparable, git state, cache, cores."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench import environment as env
from equivbench.execution.plan import default_threads
from equivbench.records.schema import Git


@pytest.mark.parametrize(
    ("model", "family", "key"),
    [
        ("AMD EPYC 7B13", "f25m1", "amd-epyc-7b13"),
        ("AMD EPYC", "f25m17", "amd-epyc-f25m17"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "f6m79", "intel-xeon-f6m79"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "f6m158", "intel-core-i7-9750h"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "f25m33", "amd-ryzen-9-5950x"),
        ("Apple M2 Pro", None, "apple-m2-pro"),
        ("unknown", None, "unknown"),
    ],
)
def test_key_names_the_generation_of_the_processor(
    model: str, family: str | None, key: str
) -> None:
    assert env._cpu_key(model, family) == key


@given(model=st.text(max_size=60), family=st.none() | st.just("f25m17"))
def test_key_is_a_safe_folder_name_whatever_the_model(model: str, family: str | None) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", env._cpu_key(model, family))


def test_machine_key_holds_threads_and_no_host_name() -> None:
    key = env.machine_key("cpu", 3)
    assert key.endswith("-3t")
    assert key != env.machine_key("cpu", 4)
    host = socket.gethostname().lower()
    assert host not in key or host in env.cpu_model().lower()


def test_gpu_is_part_of_the_key_only_of_runs_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "gpu_name", lambda device="cuda": "NVIDIA H100 80GB HBM3")
    assert env.machine_key("cuda:0", 8) == env.machine_key("cpu", 8) + "-nvidia-h100-80gb-hbm3"


def test_environment_of_a_cpu_run() -> None:
    found = env.environment("cpu", 2)
    assert (found.device, found.driver, found.threads) == ("cpu", None, 2)
    assert found.python == platform.python_version()
    assert {"torch", "e3nn", "torch-geometric", "numpy"} <= set(found.packages)
    assert found.machine_key == env.machine_key("cpu", 2)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings, and /proc")
@pytest.mark.parametrize("already", [{}, env.KEPT_MEMORY, {"MALLOC_TRIM_THRESHOLD_": "1"}])
def test_a_program_that_times_begins_with_the_memory_of_a_run(already: dict[str, str]) -> None:
    code = (
        "import json, sys; from equivbench.environment import allocator_settings, keep_memory;"
        "keep_memory(); print(json.dumps([sys.argv, allocator_settings()]))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code, "kernels", "two words"],
        capture_output=True,
        text=True,
        env={**clean, **already, "MALLOC_ARENA_MAX": "7"},
        timeout=120,
        check=True,
    )
    arguments, settings = json.loads(done.stdout)
    assert arguments == ["-c", "kernels", "two words"]
    assert settings == {**env.KEPT_MEMORY, "MALLOC_ARENA_MAX": "7"}


def test_what_a_process_sets_later_is_no_setting_of_its_allocator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = env.allocator_settings()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "12345")
    assert env.allocator_settings() == before
    monkeypatch.setattr(env, "_BEGAN_WITH", tmp_path / "nowhere")
    assert env.allocator_settings() == {}


def test_usable_cores_are_not_more_than_there_are() -> None:
    cores = env.usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)


def test_a_slurm_jobs_cores_are_those_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert env.usable_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    assert env.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert env.usable_cores() >= 1


def test_threads_are_those_that_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")  # one number for each level of nesting
    assert default_threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert 1 <= default_threads() <= env.usable_cores()


def test_cache_folder_is_the_named_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "x"))
    assert env.cache_dir() == tmp_path / "x"
    assert not (tmp_path / "x").exists(), "naming a folder does not make it"
    monkeypatch.delenv("EQUIVBENCH_CACHE")
    assert "equivbench" in str(env.cache_dir())


def test_compiler_is_the_named_one_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert env.cxx_compiler() == str(compiler)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert env.cxx_compiler() is None


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with a package file, from which the module believes to be imported."""
    (tmp_path / "equivbench").mkdir()
    (tmp_path / "equivbench" / "environment.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(env, "__file__", str(tmp_path / "equivbench" / "environment.py"))
    return tmp_path


def test_git_state_of_a_clean_checkout(checkout: Path) -> None:
    state = env.git_state()
    assert re.fullmatch("[0-9a-f]{40}", str(state.commit))
    assert state.dirty is False


@pytest.mark.parametrize(
    "name", ["equivbench/environment.py", "equivbench/new.py", "pyproject.toml"]
)
def test_changed_code_is_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed")
    assert env.git_state().dirty is True


def test_new_results_do_not_make_the_code_dirty(checkout: Path) -> None:
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("{}")
    assert env.git_state().dirty is False


def test_git_variables_of_a_hook_do_not_mislead(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = env.git_state()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert env.git_state() == expected


def test_wheel_inside_someone_elses_checkout_has_no_git_state(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout / "venv" / "site-packages" / "equivbench"
    inside.mkdir(parents=True)
    monkeypatch.setattr(env, "__file__", str(inside / "environment.py"))
    assert env.git_state().commit is None
    assert env.git_state().dirty is None


def test_wheel_names_the_commit_that_it_was_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "__file__", str(tmp_path / "equivbench" / "environment.py"))
    for commit, tree, dirty in (("c0ffee", "7ea", False), (None, None, None)):
        build = types.ModuleType("equivbench._build")
        vars(build).update(COMMIT=commit, TREE=tree)
        monkeypatch.setitem(sys.modules, "equivbench._build", build)
        assert env.git_state() == Git(commit=commit, dirty=dirty, tree=tree)
