"""The executor ``ray`` on a real cluster of two nodes, of which one is removed in mid-run: the
finished set is the expected one, no record twice, none missing."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from equivbench.records.store import load_results

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parents[1] / "support" / "ray_here.sh"
RUN = ("run", "forcefield/vector", "--preset", "dev", "--rungs", "0", "--threads", "1")
CLUSTER = textwrap.dedent(
    """
    # A cluster of two nodes with one CPU each, of which the second is removed once a run is on its
    # way there.
    import subprocess, sys, time
    from pathlib import Path
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=1)
    cache = Path(sys.argv[1])
    command = [*sys.argv[2:], "--executor-option", f"address={cluster.address}"]
    running = subprocess.Popen(command)
    while len(list(cache.glob("runs/*/heartbeat"))) < 3 and running.poll() is None:
        time.sleep(0.1)
    cluster.remove_node(second)
    cluster.add_node(num_cpus=1)
    code = running.wait()
    cluster.shutdown()
    sys.exit(code)
    """
)


@pytest.fixture(scope="module", autouse=True)
def ray() -> None:
    """Ray, installed where CI asks for it."""
    found = subprocess.run(
        ["bash", HERE, sys.executable], capture_output=True, text=True, check=False
    )
    if found.returncode == 77:
        pytest.skip(found.stderr.strip())
    assert found.returncode == 0, found.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of every node: both are on this machine."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return tmp_path / "cache"


def equivbench(*words: str) -> list[str]:
    return [sys.executable, "-m", "equivbench", *words]


def test_a_node_that_goes_in_mid_run_costs_no_record(cache: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = equivbench(
        *(*RUN, "--budget", "40steps", "--seeds", "0,1", "--out", str(results)),
        *("--executor", "ray", "--json"),
    )
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(cache), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = load_results(results)
    runs = Counter((each.arm, each.seed) for each in records)
    assert runs == {(a, s): 1 for a in ("equivariant", "augmented") for s in range(2)}
    assert {(each.status, each.steps) for each in records} == {("completed", 40)}
    standing = subprocess.run(
        equivbench("status", str(results), "--json"), capture_output=True, text=True, check=True
    )
    assert [each["state"] for each in json.loads(standing.stdout)] == ["done"] * 2


def test_an_arm_has_several_shares_of_a_node(cache: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = equivbench(
        *(*RUN, "--budget", "20steps", "--devices-per-arm", "2", "--out", str(results)),
        *("--arm", "augmented", "--executor", "ray"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = load_results(results)
    assert (record.status, record.steps, record.devices_per_arm) == ("completed", 20, 2)
    assert record.environment.machine_key.endswith("-1t-x2")
