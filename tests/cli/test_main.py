"""The frame of the command line: laziness, help, exit codes, one plain sentence for every
failure."""

import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import typer
from factories import make_record

from equivbench import __version__
from equivbench.cli import lazy
from equivbench.cli import main as frame
from equivbench.cli.analyze import Analyses
from equivbench.cli.lazy import CommandEntry
from equivbench.cli.main import Commands, main
from equivbench.cli.output import Exit, overall
from equivbench.errors import (
    EquivbenchError,
    FailedError,
    IncomparableError,
    InterruptedRunError,
    UsageError,
)
from equivbench.records.store import write_record


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_help_shows_every_command_and_imports_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "load", lambda entry: pytest.fail(f"{entry.name} was imported"))
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in Commands.table())


@pytest.mark.parametrize("name", [*Commands.table()])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert f"equivbench {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*Commands.table(), *Analyses.table()])
def test_every_command_is_on_the_page_of_all_commands(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    # Behind a dot the word "equivbench" is left out.
    assert re.search(rf"(equivbench (analyze )?|· `(analyze )?){name}\b", page)


@pytest.mark.parametrize("name", [*Analyses.table()])
def test_every_analysis_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", name, "--help") == 0
    assert f"equivbench analyze {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"equivbench {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lsit"], "did you mean list?"),
        (["--nope"], "--nope"),
        (["list"], "KIND"),
        (["list", "taks"], "did you mean tasks"),
        (["list", "tasks", "--nope"], "--nope"),
        (["leaderboard", "exprot"], "exprot"),
        (["analyze", "swep"], "did you mean sweep?"),
        (["reproduce", "folder"], "(folder); a results folder is named by --out; see"),
        (["leaderboard", "export", "folder"], "a results folder is named by --results; see"),
        (["plot", "gap", "folder", "another"], "(another); see `equivbench plot --help`"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes a command ``fail`` that raises what it is given."""

    def install(error: BaseException) -> None:
        holder = typer.Typer()

        @holder.command("fail")
        def fail() -> None:
            raise error

        monkeypatch.setitem(frame.Commands.table(), "fail", CommandEntry("fail", "", "nowhere"))
        monkeypatch.setattr(lazy, "load", lambda entry: typer.main.get_command(holder))

    return install


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("no such thing"), 2, "no such thing"),
        (FailedError("a file\nis broken"), 3, "a file is broken"),
        (IncomparableError("other hardware"), 4, "other hardware"),
        (InterruptedRunError("go on with --resume"), 130, "go on with --resume"),
        (EquivbenchError("something"), 3, "something"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/data/x"), 3, "/data/x: No space left on device"),
        (PermissionError(13, "Permission denied", "results"), 3, "results: Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "x"), 3, "x: No such file"),
    ],
)
def test_failure_is_one_sentence_and_its_code(
    error: BaseException,
    code: int,
    sentence: str,
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(error)
    assert run("fail") == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def test_defect_of_ours_never_reads_as_a_regression(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("a defect"))
    assert run("fail") == Exit.FAILED
    assert "ZeroDivisionError" in capsys.readouterr().err, "a defect is reported with its traceback"


def test_a_defect_is_of_whose_code_it_is_in(
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(ZeroDivisionError("a defect of this test's"))
    assert run("fail") == Exit.FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: this is a defect in {__name__}, which is no part of equivbench")
    assert said.endswith("with the lines above")
    # The same command, with an error that comes up in our own code, by way of the standard library.
    holder = typer.Typer()
    holder.command("fail")(lambda: print(overall([7])))
    monkeypatch.setattr(lazy, "load", lambda entry: typer.main.get_command(holder))
    assert run("fail") == Exit.FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: this is a defect in equivbench, please report it with the lines above"


def test_memory_that_is_used_up_is_no_defect(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(MemoryError())
    assert run("fail") == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: the memory of this machine is used up")
    assert said.count("\n") == 1


def test_a_terminal_that_is_gone_changes_no_exit_code(
    failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    failing(InterruptedRunError("go on with --resume"))
    monkeypatch.setattr(sys, "stderr", Gone())
    assert run("fail") == Exit.INTERRUPTED


def test_message_cannot_drive_the_terminal(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(UsageError("name \x1b[2J\x07 is odd"))
    run("fail")
    assert "\x1b" not in capsys.readouterr().err


def test_reader_that_leaves_early_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m equivbench.cli.main results schema"
    script = f'set -o pipefail; {command} | head -c 1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    # The schema may fit into the pipe's buffer before the reader leaves; then all is done.
    assert int(done.stdout) in (Exit.DONE, Exit.BROKEN_PIPE)


@pytest.mark.parametrize(
    "arguments",
    [["results", "schema"], ["list", "pairs"], ["leaderboard", "export", "--results", "{0}"]],
)
def test_nobody_reads_from_the_start_on(arguments: list[str], tmp_path: Path) -> None:
    """A pipe whose reader is gone ends with 141, a closed stdout as the command itself does."""
    write_record(make_record(), tmp_path)
    command = [sys.executable, "-m", "equivbench.cli.main"]
    command += [each.format(tmp_path) for each in arguments]
    ours, theirs = os.pipe()
    os.close(ours)
    gone = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(theirs)
    assert gone.stderr == ""
    assert gone.returncode == Exit.BROKEN_PIPE
    closed = ["bash", "-c", '"$@" >&-', "bash", *command]
    done = subprocess.run(closed, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.returncode == Exit.DONE


def test_full_disk_under_stdout_is_a_failure() -> None:
    script = f"{sys.executable} -m equivbench.cli.main results schema > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == Exit.FAILED
    assert done.stderr.splitlines()[0].startswith("error: cannot access standard output")
    assert "No space left on device" in done.stderr


def test_first_of_2_4_3_1_5_0_wins() -> None:
    order = (2, 4, 3, 1, 5, 0)
    for codes in permutations(order, 2):
        assert overall(codes) == min(codes, key=order.index)
    assert overall(order) == 2
    assert overall([]) == 0


def test_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="7"):
        overall([0, 7])


def test_a_dry_run_says_where_a_budget_holds_fewer_rungs_than_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("run", "--dry-run", "--device", "cpu", "--preset", "dev", "--budget", "8steps")
    assert run(*asked, "--rungs", "5", "--seeds", "0,1") == 0
    shown = capsys.readouterr()
    assert shown.err.count("--rungs 5") == 1, "once, not for each seed"
    assert "only 3 times" in shown.err
    assert run(*asked, "--rungs", "3") == 0
    assert capsys.readouterr().err == ""
