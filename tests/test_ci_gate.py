"""The ready-made workflow and our own: valid, and their commands are ones that the command line
takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from equivbench.cli.main import main

yaml = pytest.importorskip("yaml", reason="PyYAML comes with asv, in the dev extra")

ROOT = Path(__file__).parent.parent
OURS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(
    scope="module",
    params=[ROOT / "docs" / "ci-gate.yml", ROOT / ".github" / "workflows" / "gate.yml"],
    ids=["for anyone", "our own"],
)
def steps(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    workflow = yaml.safe_load(request.param.read_text())
    # YAML 1.1 reads the key "on" as true.
    assert "pull_request" in workflow[True]
    (job,) = workflow["jobs"].values()
    return job["steps"]


def commands(steps: list[dict[str, Any]], program: str) -> list[list[str]]:
    """The arguments of every call of ``program``."""
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    return [shlex.split(line)[1:] for line in lines if shlex.split(line)[:1] == [program]]


def test_the_gate_is_called_with_options_that_it_has(
    steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (arguments,) = commands(steps, "equivbench")
    with pytest.raises(SystemExit) as stop:
        main([arguments[0], "--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    for option in arguments:
        if option.startswith("--"):
            assert re.search(rf"{option}\b", help_text), option


def test_both_revisions_are_there_and_the_versions_are_the_tested_ones(
    steps: list[dict[str, Any]],
) -> None:
    (checkout,) = [step for step in steps if step.get("uses", "").startswith("actions/checkout")]
    assert checkout["with"]["fetch-depth"] == 0
    (install,) = commands(steps, "python")
    assert install[install.index("-c") + 1] == "constraints.txt"
    assert (ROOT / "constraints.txt").is_file()


def test_our_gate_is_the_one_we_hand_out_and_a_comment(steps: list[dict[str, Any]]) -> None:
    handed_out = yaml.safe_load((ROOT / "docs" / "ci-gate.yml").read_text())["jobs"]["gate"][
        "steps"
    ]
    assert [step for step in steps if "GH_TOKEN" not in step.get("env", {})] == handed_out


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_our_workflows_are_valid_and_run_what_is_there(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert "pull_request" in workflow[True]
    for job in workflow["jobs"].values():
        scripts = commands(job["steps"], "bash")
        assert all((ROOT / script).is_file() for (script,) in scripts)
