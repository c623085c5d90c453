"""A request is declared once: its options, its keywords and its command line agree, whatever is
asked for and whatever option is added."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import equivbench
from equivbench.axes import SweepRequest
from equivbench.cli.options import takes
from equivbench.errors import UsageError
from equivbench.execution.executors import run
from equivbench.execution.tune_request import TuneRequest
from equivbench.request import Forces, Request, RunRequest, option, options_of, read_seeds
from equivbench.specs import PRECISIONS, PRESETS

REQUESTS = (RunRequest, SweepRequest, TuneRequest)
words = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=8).filter(
    lambda text: not text.startswith("-") and text == text.strip()
)
requests = st.builds(
    RunRequest,
    pairs=st.lists(words, max_size=3).map(tuple),
    arms=st.lists(words, max_size=3).map(tuple),
    budget=st.none() | st.sampled_from(("60s", "2000steps", "1e6samples")),
    seeds=st.none() | st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(tuple),
    n_seeds=st.none() | st.integers(1, 1000),
    preset=st.sampled_from(PRESETS),
    device=st.sampled_from(("auto", "cpu", "cuda:1")),
    threads=st.none() | st.integers(1, 1024),
    kernels=st.none() | words,
    forces=st.none() | st.sampled_from(get_args(Forces)),
    precision=st.none() | st.sampled_from(PRECISIONS),
    extend=st.none() | st.floats(1, 1000, exclude_min=True),
    out=words,
    snapshots=st.booleans(),
    resume=st.booleans(),
    dry_run=st.booleans(),
    executor=words,
)


def parsed(request: type[Request], command: list[str]) -> Request:
    """What the command line makes of ``command``."""
    app, found = typer.Typer(), []

    @app.command()
    @takes(request)
    def catch(asked: RunRequest) -> None:
        found.append(asked)

    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return found[0]


def help_of(request: type[Request]) -> str:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @takes(request)
    def anything(asked: Any) -> None:
        """Nothing."""

    return CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output


@given(requests)
def test_a_command_parses_to_the_request_it_was_made_of(request: RunRequest) -> None:
    start, *rest = shlex.split(request.command())
    assert (start, rest[0]) == ("equivbench", "run")
    assert parsed(RunRequest, rest[1:]) == request


@given(requests)
def test_a_command_is_read_back_without_the_command_line(request: RunRequest) -> None:
    assert RunRequest.of_command(request.command()) == request
    sweep = SweepRequest(pairs=request.pairs, over="size", values=("0.5", "1"), budget="9s")
    assert SweepRequest.of_command(sweep.command()) == sweep


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("python train.py", "does not begin with `equivbench run`"),
        ("equivbench runs", "does not begin with `equivbench run`"),
        ("equivbench run 'a", "no command line"),
        ("equivbench run --sed 1", "did you mean --seeds"),
        ("equivbench run --seeds", "--seeds is given no value"),
        ("equivbench run --seeds one", "cannot read the seeds"),
        ("equivbench run --threads many", "--threads takes a number, not 'many'"),
        ("equivbench run --preset smal", "did you mean small"),
    ],
)
def test_a_command_that_asks_for_nothing_is_refused(command: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        RunRequest.of_command(command)


def test_a_sweep_that_says_no_axis_is_refused() -> None:
    with pytest.raises(UsageError, match="does not say --over"):
        SweepRequest.of_command("equivbench analyze sweep forcefield/vector --values 1")


@given(requests)
def test_a_recorded_command_repeats_the_run(request: RunRequest) -> None:
    """One with `--resume` would find the run finished, and with `--dry-run` train nothing."""
    words = shlex.split(request.command(recorded=True))
    assert not {"--resume", "--dry-run"} & set(words)


@given(requests)
def test_a_recorded_command_names_no_folder_and_asks_for_the_same_runs(request: RunRequest) -> None:
    asked = parsed(RunRequest, shlex.split(request.command(recorded=True))[2:])
    assert isinstance(asked, RunRequest)
    assert {**request.identity(), "out": "results"} == {**asked.identity(), "out": asked.out}


@pytest.mark.parametrize("request_", REQUESTS)
def test_every_field_is_in_the_help_with_its_choices(request_: type[Request]) -> None:
    shown = help_of(request_)
    for each in options_of(request_).values():
        assert (each.flag or each.metavar) in shown
        assert each.help.endswith(".")
        assert all(choice in shown for choice in each.choices)


def test_every_option_is_a_keyword_of_the_function_and_of_its_stub() -> None:
    signature = inspect.signature(run)
    names = {"pair", "callback"} | {each.name for each in fields(RunRequest)} - {"pairs"}
    assert set(signature.parameters) == names
    for name, each in options_of(RunRequest).items():
        if name not in ("pairs", "out", "device"):
            assert signature.parameters[name].default == each.default
    stub = ast.parse(Path(equivbench.__file__).with_suffix(".pyi").read_text())
    (declared,) = (
        node for node in stub.body if isinstance(node, ast.FunctionDef) and node.name == "run"
    )
    arguments = [*declared.args.args, *declared.args.kwonlyargs]
    assert {each.arg for each in arguments} == names, "add the option to equivbench/__init__.pyi"


def test_a_new_option_is_one_field() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Longer(RunRequest):
        colour: Literal["red", "green"] = option("red", "The colour of the bars.")
        height: int = option(0, "How high a bar is.", identity=True)

    asked = Longer.of(pairs="a/b", colour="green", height=3)
    assert asked.command() == "equivbench run a/b --colour green --height 3"
    assert asked.identity()["height"] == 3
    assert "--colour <red|green>" in help_of(Longer)
    assert parsed(Longer, ["a/b", "--colour", "green", "--height", "3"]) == asked
    with pytest.raises(UsageError, match="did you mean green"):
        Longer.of(colour="gren")


def test_python_takes_what_the_command_line_takes() -> None:
    asked = RunRequest.of(pairs="a/b", arm="x", seeds="0-2", out=Path("here"))
    assert asked == RunRequest(pairs=("a/b",), arms=("x",), seeds=(0, 1, 2), out="here")
    assert RunRequest.of(seeds=[3, 1], arms=["x", "y"]).chosen_seeds == (3, 1)
    with pytest.raises(UsageError, match="did you mean snapshots"):
        RunRequest.of(snapshot=True)
    with pytest.raises(UsageError, match="did you mean small"):
        RunRequest.of(preset="smal")
    assert RunRequest.of(threads="2", extend=np.float64(1.5), rungs=np.int64(1)) == RunRequest(
        threads=2, extend=1.5, rungs=1
    )
    assert RunRequest.of(seeds=np.arange(2)).chosen_seeds == RunRequest.of(seeds="0,1").seeds


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seeds": 3}, "seeds takes a list, each a whole number, not 3"),
        ({"seeds": [0.5]}, "seeds takes a list, each a whole number"),
        ({"pairs": 3}, "pairs takes a list, each text"),
        ({"budget": 60}, "budget takes text, not 60"),
        ({"rungs": 1.5}, "rungs takes a whole number"),
        ({"threads": "two"}, "--threads takes a number"),
        ({"keep_weights": "no"}, "keep_weights takes True or False"),
        ({"preset": ["dev"]}, "unknown preset"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_a_sentence(
    given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        RunRequest.of(**given)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), min_size=1, max_size=4))
def test_ranges_of_seeds_are_the_seeds_written_out(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + length}" for first, length in ranges)
    expected = [seed for first, length in ranges for seed in range(first, first + length + 1)]
    assert read_seeds(text) == tuple(expected)
    assert read_seeds(",".join(map(str, expected))) == tuple(expected)


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "3-1", "0-", "1.5", "0-100000"])
def test_seeds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        seeds = read_seeds(text)
        # A negative seed reads as a number and is refused with the plan.
        raise UsageError(str(seeds)) if min(seeds) < 0 else AssertionError(seeds)
