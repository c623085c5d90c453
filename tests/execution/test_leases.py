"""Leases: one owner at a time, whoever dies, whatever the clocks say, and however many try."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import wait_for

from equivbench.errors import FailedError
from equivbench.execution import leases as module
from equivbench.execution.leases import HeldLease, Leases, is_alive, local_owner

TAKES = """
import sys, time
from pathlib import Path
from equivbench.execution.leases import Leases, local_owner
held = Leases(Path(sys.argv[1]), local_owner()).take()
print("held" if held else "free", flush=True)
if held and len(sys.argv) > 2:
    sys.stdin.read()
    held.release()
"""


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    return tmp_path / "0123456789abcdef0123"


def take(leases: Leases) -> HeldLease:
    held = leases.take()
    assert held is not None
    return held


def process(stem: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKES, str(stem), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def files(stem: Path) -> list[Path]:
    """All that lies in the folder of the leases."""
    return list(stem.parent.glob("*/*"))


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_lease_is_had_by_one_and_by_another_once_it_is_released(stem: Path) -> None:
    one, other = Leases(stem, "ray:1"), Leases(stem, "ray:2")
    held = take(one)
    assert (other.take(), one.take()) == (None, None)
    current = other.current()
    assert current is not None
    assert current.owner == "ray:1"
    held.release()
    assert other.current() is None
    take(other).release()
    take(one).release()
    assert len(files(stem)) == 1, "what is over is not kept"


def test_the_lease_of_a_living_process_is_respected_and_that_of_a_killed_one_taken_over(
    stem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However silent: that it lives is known.
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    child = process(stem, "and keep it")
    assert said(child) == "held"
    mine = Leases(stem, local_owner())
    assert mine.take() is None
    assert mine.take() is None
    child.send_signal(signal.SIGSTOP)
    assert mine.take() is None
    child.kill()
    # As long as it is not waited for there is still an entry of the dead process.
    wait_for(lambda: mine.take() is not None)
    child.communicate()


def test_of_many_that_take_over_one_gets_it(stem: Path) -> None:
    dead = process(stem, "and keep it")
    assert said(dead) == "held"
    dead.kill()
    dead.communicate()
    children = [process(stem, "and keep it") for _ in range(6)]
    assert sorted(map(said, children)) == ["free"] * 5 + ["held"]
    for child in children:
        child.communicate("")
    current = Leases(stem, "ray:1").current()
    assert current is None, "who got it released it"


def test_who_is_restarted_under_its_name_goes_on_at_once(stem: Path) -> None:
    left = left_behind(stem)
    assert Leases(stem, "slurm:8_1").take() is None
    again = Leases(stem, "slurm:7_1")
    assert take(again)
    assert left.lost


def left_behind(stem: Path) -> HeldLease:
    """A lease whose process is gone without a trace: its node was switched off."""
    held = take(Leases(stem, "slurm:7_1"))
    module._held.clear()
    return held


@pytest.mark.parametrize("skew", [-86_400.0, 0.0, 86_400.0], ids=["behind", "alike", "ahead"])
def test_silence_is_watched_and_not_read_off_a_clock(
    stem: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    held = left_behind(stem)

    def beat() -> None:
        held.tell(doing="training")
        (path,) = files(stem)
        there = path.stat().st_mtime
        os.utime(path, (there + skew, there + skew))

    beat()
    other = Leases(stem, "slurm:8_1")
    assert other.take() is None
    now += module.SILENT_SECONDS - 1
    assert other.take() is None
    beat()
    now += 2
    assert other.take() is None, "it gave a sign of life"
    now += module.SILENT_SECONDS + 1
    taken = take(other)
    # Whoever was only held up finds out, and says no more.
    assert held.lost
    held.tell(doing="training")
    current = Leases(stem, "slurm:9_1").current()
    assert current is not None
    assert current.owner == "slurm:8_1"
    taken.release()


def test_a_file_that_cannot_be_read_is_a_lease_until_it_has_been_silent(
    stem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stem.with_name(f"{stem.name}.leases")
    folder.mkdir()
    (folder / "3").write_bytes(b"")
    now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    leases = Leases(stem, "ray:1")
    assert leases.take() is None
    now = module.SILENT_SECONDS + 1
    take(leases).release()


def test_a_heart_beats_until_the_release_and_tells_of_a_loss_once(
    stem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    lost: list[str] = []
    leases = Leases(stem, "ray:1")
    held = left_behind(stem)
    held.keep(lambda: {"doing": "training"}, lambda: lost.append("lost"))

    def beats() -> int:
        current = leases.current()
        return 0 if current is None else current.beats

    wait_for(lambda: beats() > 2)
    taken = take(Leases(stem, "slurm:7_1"))
    wait_for(lambda: lost == ["lost"])
    held.release()
    current = leases.current()
    assert current is not None
    assert current.owner == "slurm:7_1"
    assert lost == ["lost"]
    taken.release()


FULL = """
import resource, signal, sys
from pathlib import Path
from equivbench.errors import FailedError
from equivbench.execution.leases import Leases
leases = Leases(Path(sys.argv[1]), "ray:1")
held = leases.take() if sys.argv[2] == "later" else None
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
if held:
    held.tell(doing="training")
    held.release()
    sys.exit(0)
try:
    leases.take()
except FailedError as error:
    sys.exit(3 if "cannot write" in str(error) and "free space" in str(error) else 1)
"""


@pytest.mark.parametrize(("when", "code"), [("first", 3), ("later", 0)])
def test_a_full_disk_refuses_a_lease_in_one_sentence_and_ends_no_run_that_has_one(
    stem: Path, when: str, code: int
) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(stem), when], check=False)
    assert done.returncode == code
    assert len(files(stem)) == (when == "later"), "nothing half written is left"


def test_a_folder_that_is_gone_ends_no_run(stem: Path) -> None:
    folder = stem.parent / "plan"
    held = take(Leases(folder / stem.name, "ray:1"))
    shutil.rmtree(folder)
    held.tell(doing="training")
    assert not held.lost
    held.release()


def test_an_owner_is_told_from_a_later_process_of_its_number() -> None:
    owner = local_owner()
    assert is_alive(owner) is True
    assert is_alive(owner + "0") is False
    assert is_alive(owner.replace("local:", "local:f", 1)) is None
    assert is_alive("slurm:7_1") is None
    assert is_alive("") is None
    host = os.uname().nodename
    assert host not in owner


def test_what_is_no_plan_can_refuse_a_lease(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("a file")
    with pytest.raises(FailedError, match="cannot write"):
        Leases(tmp_path / "plan" / "0", "ray:1").take()
