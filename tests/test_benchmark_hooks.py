"""What pytest-benchmark is told of a machine, and what it refuses to compare."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest

from equivbench.environment import KEPT_MEMORY, allocator_settings

HOOKS = runpy.run_path(str(Path(__file__).parent / "benchmarks" / "conftest.py"))


def machine_info(request: pytest.FixtureRequest) -> dict[str, Any]:
    info: dict[str, Any] = {"node": "somewhere"}
    HOOKS["pytest_benchmark_update_machine_info"](request.config, info)
    return info


def test_the_setting_of_the_allocator_is_written_down(request: pytest.FixtureRequest) -> None:
    assert machine_info(request)["allocator"] == allocator_settings()


@pytest.mark.parametrize(
    ("name", "other"),
    [("machine_key", "other-1t"), ("allocator", {"MALLOC_ARENA_MAX": "1"}), ("allocator", None)],
)
def test_what_was_measured_otherwise_is_not_compared(
    name: str, other: object, request: pytest.FixtureRequest
) -> None:
    compare = HOOKS["pytest_benchmark_compare_machine_info"]
    now = machine_info(request)
    compare(now, {"machine_info": copy.deepcopy(now)})
    before = {key: value for key, value in now.items() if key != name}
    if other is not None:
        before[name] = other
    with pytest.raises(pytest.UsageError, match="measure both alike"):
        compare(now, {"machine_info": before})


class Report:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


class Config:
    """What the hook reads of a session that timed something, or nothing."""

    def __init__(self, timed: int) -> None:
        self._benchmarksession = type("Session", (), {"benchmarks": [object()] * timed})()


@pytest.mark.parametrize(
    ("timed", "kept", "says"), [(3, False, True), (3, True, False), (0, False, False)]
)
def test_times_with_freed_memory_given_back_say_how_to_keep_it(
    timed: int, kept: bool, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, report = HOOKS["pytest_terminal_summary"], Report()
    monkeypatch.setitem(
        summary.__globals__, "allocator_settings", lambda: dict(KEPT_MEMORY) if kept else {}
    )
    monkeypatch.setattr("sys.platform", "linux")
    summary(report, Config(timed))
    assert bool(report.lines) == says
    assert all(
        f"{name}={value}" in line for line in report.lines for name, value in KEPT_MEMORY.items()
    )
