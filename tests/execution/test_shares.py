"""Shares of the CPU are equal, have nothing in common, keep cores whole, and are kept to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretend_cores import machine

from equivbench.errors import FailedError, UsageError
from equivbench.execution.plan import machines_of, make_plan
from equivbench.execution.shares import core_shares, keep_to
from equivbench.request import RunRequest

HAS_AFFINITY = hasattr(os, "sched_setaffinity")
needs_affinity = pytest.mark.skipif(not HAS_AFFINITY, reason="this system pins no process")


@given(cores=st.integers(1, 64), siblings=st.integers(1, 2), count=st.integers(1, 16))
def test_shares_are_equal_and_disjoint_and_keep_cores_whole(
    cores: int, siblings: int, count: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cpus = machine(patch, cores, siblings)
        if count > cores:
            with pytest.raises(FailedError, match=f"may use {cores} core"):
                core_shares(count)
            return
        found = core_shares(count)
    assert {share.cores for share in found} == {cores // count}
    used = [cpu for share in found for cpu in share.cpus]
    assert len(set(used)) == len(used) == count * (cores // count) * siblings <= cpus
    for share in found:
        assert {cpu % cores for cpu in share.cpus} == {
            cpu % cores for cpu in share.cpus[:: siblings or 1]
        }
        assert len({cpu % cores for cpu in share.cpus}) == share.cores


def test_where_nobody_says_which_cpus_are_ours_no_process_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Slurm job without affinity sees every core of the node: its neighbours' too."""
    machine(monkeypatch, 64, 1, usable=8)
    assert core_shares(4) == [((), 2)] * 4


@needs_affinity
def test_a_process_keeps_to_its_cpus_with_every_thread() -> None:
    program = (
        "import os, sys, threading, time\n"
        "from equivbench.execution.shares import keep_to\n"
        "early = threading.Thread(target=time.sleep, args=(30,), daemon=True); early.start()\n"
        "last = max(os.sched_getaffinity(0))\n"
        "keep_to([last])\n"
        "late = threading.Thread(target=time.sleep, args=(30,), daemon=True); late.start()\n"
        "for thread in (threading.main_thread(), early, late):\n"
        "    assert os.sched_getaffinity(thread.native_id) == {last}, thread\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@needs_affinity
def test_cpus_that_are_not_there_are_refused() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(FailedError, match="cannot keep to the cores 1000"):
        keep_to([1000])
    keep_to([])
    assert os.sched_getaffinity(0) == before


def test_a_share_has_its_part_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 8, 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = machines_of(RunRequest(devices=("cpu:0", "cpu:1")))
    assert [each.name for each in found] == ["cpu:0", "cpu:1"]
    assert {each.device for each in found} == {"cpu"}
    assert all(1 <= each.threads <= 4 for each in found)
    assert [len(each.cpus) for each in found] == [8, 8]
    fewer = machines_of(RunRequest(devices=("cpu:0", "cpu:1"), threads=3))
    assert [each.threads for each in fewer] == [3, 3]
    with pytest.raises(FailedError, match="--threads 5 does not fit"):
        machines_of(RunRequest(devices=("cpu:0", "cpu:1"), threads=5))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert {each.threads for each in machines_of(RunRequest(devices=("cpu:0", "cpu:1")))} == {2}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"devices": ("cpu:0", "cpu:0")}, "names cpu:0 twice"),
        ({"devices": ("cuda:0", "cuda:1", "cuda:0")}, "names cuda:0 twice"),
        ({"devices": ("cpu:0", "cuda:0")}, "of one kind"),
        ({"devices": ("cpu:1", "cpu:2")}, "2 equal shares of the CPU are named cpu:0,cpu:1"),
        ({"devices": ("cpu",)}, "such as cuda:0 and cpu:0, not 'cpu'"),
        ({"devices": ("cuda:01",)}, "not 'cuda:01'"),
        ({"devices": ("tpu:0",)}, "not 'tpu:0'"),
        ({"devices": ()}, "names no device"),
        ({"devices": ("cpu:0",), "device": "cpu"}, "--device and --devices exclude each other"),
    ],
)
def test_devices_that_make_no_sense_are_usage_errors(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_plan(RunRequest(**asked))


def test_devices_on_the_command_line_are_a_list() -> None:
    asked = RunRequest.of(devices="cpu:0, cpu:1")
    assert asked.devices == ("cpu:0", "cpu:1")
    assert asked.command() == "equivbench run --devices cpu:0,cpu:1"
    assert RunRequest.of_command(asked.command()) == asked
