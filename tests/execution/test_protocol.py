"""Messages survive the pipe, whatever libraries print; a half-written line is no message."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from factories import make_record

from equivbench.errors import FailedError, InterruptedRunError, UsageError
from equivbench.execution.messages import (
    Alive,
    Begin,
    Concluded,
    Draft,
    Failure,
    Note,
    Slice,
    TurnOver,
    receive_answer,
    receive_command,
    send,
)
from equivbench.execution.workers import as_error
from equivbench.request import RunRequest
from equivbench.specs import ArmPreset, ArmSpec, MatchSpec, PairPreset, PairSpec, Recipe
from equivbench.training.job import Job, Progress

JOB = Job(
    pair="toy/plain",
    arm="a",
    request=RunRequest(preset="dev", out="o"),
    budget="5steps",
    seed=0,
    run_id="r",
    created="c",
    command="x",
    state_dir="s",
)
PAIR = PairSpec(
    "plain",
    "toy",
    "a pair of this process",
    (ArmSpec("a", "m", {"dev": ArmPreset({"width": 3}, Recipe(1e-3, 8, "none"))}),),
    MatchSpec("all", "none"),
    {"dev": PairPreset("points", "5steps")},
)


@pytest.mark.parametrize("command", [Begin(JOB), Begin(JOB, ["m"], PAIR), Slice(1.5)])
def test_commands_survive_the_pipe(command):
    pipe = io.BytesIO()
    send(pipe, command)
    assert receive_command(io.BytesIO(pipe.getvalue())) == command


@pytest.mark.parametrize(
    "answer",
    [
        TurnOver(Progress(3, 1.0, 2.0, False, loss=0.5)),
        Note("line\nbreak"),
        Failure("no", 3),
        Concluded(make_record(), "p"),
        Failure("no", 3, "; the log says where", make_record()),
        Draft(make_record()),
        Alive(),
    ],
)
def test_answers_survive_the_pipe(answer):
    pipe = io.BytesIO()
    send(pipe, answer)
    assert pipe.getvalue().count(b"\n") == 1
    assert receive_answer(io.BytesIO(pipe.getvalue())) == answer


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_a_line_cut_short_by_a_death_reads_as_gone(cut):
    pipe = io.BytesIO()
    send(pipe, Note("something"))
    assert receive_answer(io.BytesIO(pipe.getvalue()[:cut])) is None


def test_prints_of_libraries_do_not_reach_the_messages():
    program = (
        "import os, sys, subprocess\n"
        "from equivbench.execution.messages import *\n"
        "commands, answers = claim_standard_streams()\n"
        "print('python print'); os.write(1, b'native print')\n"
        "subprocess.run(['echo', 'child print'])\n"
        "assert sys.stdin.read() == ''\n"
        "assert isinstance(receive_command(commands), Slice)\n"
        "send(answers, Note('hello'))\n"
    )
    pipe = io.BytesIO()
    send(pipe, Slice(1.0))
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pipe.getvalue(),
        capture_output=True,
        env=os.environ,
        check=True,
    )
    assert receive_answer(io.BytesIO(done.stdout)) == Note("hello")
    assert done.stdout.count(b"\n") == 1
    assert all(text in done.stderr for text in (b"python print", b"native print", b"child print"))


@pytest.mark.parametrize(
    ("code", "kind"), [(2, UsageError), (3, FailedError), (130, InterruptedRunError)]
)
def test_a_failure_becomes_the_error_of_its_exit_code(code, kind):
    error = as_error(Failure("why", code))
    assert isinstance(error, kind)
    assert str(error) == "why"
    assert error.exit_code == code
