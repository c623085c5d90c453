"""A command in a process of its own: what it says when it fails, and that it does not outlive an
interruption."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from equivbench.errors import FailedError
from equivbench.execution import subcommand
from equivbench.execution.executors import Callback


class Noted(Callback):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def instead(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Run ``script`` where the interpreter would be; its arguments are ``-m equivbench`` and the
    words."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(subcommand.sys, "executable", str(program))  # type: ignore[attr-defined]


def test_it_is_the_ordinary_command_and_its_warnings_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(
        monkeypatch,
        tmp_path,
        f'echo "$@" > {tmp_path}/asked; echo a table; '
        'echo "warning: odd" >&2; echo "note: fine" >&2',
    )
    noted = Noted()
    subcommand.call(["analyze", "gradients", "x y"], noted)
    assert (tmp_path / "asked").read_text() == "-m equivbench analyze gradients x y\n"
    assert noted.notes == ["odd"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo 'warning: odd' >&2; echo 'error: no snapshots' >&2; exit 3",
            r"`equivbench analyze x` failed: no snapshots$",
        ),
        (
            "echo 'KeyError: 1' >&2; "
            "echo 'error: a defect, please report it with the lines above' >&2; exit 3",
            "failed: KeyError: 1$",
        ),
        ("kill -9 $$", r"`equivbench analyze x` failed: it ended with -9$"),
    ],
)
def test_a_failure_is_its_last_line(
    script: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(monkeypatch, tmp_path, script)
    with pytest.raises(FailedError, match=says):
        subcommand.call(["analyze", "x"], Callback())


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = tmp_path / "started"
    instead(monkeypatch, tmp_path, f"echo $$ > {started}; exec sleep 100")

    def interrupt() -> None:
        wait_for(lambda: started.exists() and started.read_text().endswith("\n"))
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        subcommand.call(["analyze", "x"], Callback())
    other.join()
    assert not psutil.pid_exists(int(started.read_text()))


def test_a_path_below_the_current_folder_is_told_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert subcommand.path_from_here(tmp_path / "results" / "a.json") == "results/a.json"
    assert subcommand.path_from_here(Path("/elsewhere/a.json")) == "/elsewhere/a.json"
