"""What a record says of its unit, its devices and the processes that worked on it is held to
account."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from good_results import good_files

from equivbench.records.plausibility import problems, remarks
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record
from equivbench.records.submission import review

Plain = dict[str, Any]
UNIT, TOKEN = "0123456789abcdef0123", "-89abcdef"


OF_A_PLAN = ("unit", "devices", "beside", "attempts")


def unplanned(number: int = 1) -> Plain:
    """A sound record, as it was before there were plans."""
    plain: Plain = json.loads(good_files()[number].read_bytes())
    token = plain["contest"].rpartition("-")[2]
    plain["run_id"] = plain["run_id"].removesuffix(f"-{token}")
    return {name: value for name, value in plain.items() if name not in OF_A_PLAN}


def planned(number: int = 1) -> Plain:
    """The same, as if it had been made as a part of a plan."""
    plain = unplanned(number)
    plain["contest"] = plain["contest"].rpartition("-")[0] + TOKEN
    plain["run_id"] += TOKEN
    key = plain["environment"]["machine_key"]
    died = {"started": plain["created"], "machine_key": key, "ended": "died"}
    plain.update(unit=UNIT, devices=["cpu"], beside=0)
    plain["attempts"] = [died, {**died, "ended": plain["status"]}]
    return plain


def found(plain: Plain) -> list[str]:
    return problems(msgspec.convert(plain, RunRecord))


@pytest.mark.parametrize("number", range(len(good_files())))
def test_a_record_of_a_plan_is_sound_and_so_is_one_from_before_there_were_plans(
    number: int,
) -> None:
    for plain in (planned(number), unplanned(number)):
        record = msgspec.convert(plain, RunRecord)
        assert (problems(record), remarks(record)) == ([], [])


def last_attempt(**fields: Any) -> Callable[[Plain], None]:
    return lambda plain: plain["attempts"][-1].update(fields)


def put(**fields: Any) -> Callable[[Plain], None]:
    return lambda plain: plain.update(fields)


def asked(words: str, **fields: Any) -> Callable[[Plain], None]:
    def change(plain: Plain) -> None:
        plain["command"] = plain["command"].replace(" --device cpu", "") + f" {words}"
        plain.update(fields)

    return change


FORGERIES: dict[str, tuple[Callable[[Plain], None], str]] = {
    "no digest": (put(unit="mine"), "is no digest of a contest"),
    "no unit": (put(unit=None), "but unit is null"),
    "no attempts": (put(attempts=[]), "attempts is empty"),
    "no devices": (put(devices=[]), "devices is empty"),
    "no name of its own": (lambda plain: plain.update(run_id=plain["run_id"][:-9]), "has "),
    "the name of another contest": (
        lambda plain: plain.update(run_id=plain["run_id"].replace(TOKEN, "-00000000")),
        "a run as it is described has",
    ),
    "another end": (last_attempt(ended="interrupted"), "ended as interrupted"),
    "another machine": (last_attempt(machine_key="nvidia"), "the last attempt was on"),
    "no time": (last_attempt(started="yesterday"), "is not an ISO 8601 time"),
    "a GPU": (put(devices=["cuda:0"]), "is not of the device 'cpu'"),
    "one device twice": (put(devices=["cpu", "cpu"]), "names one twice"),
    "no device": (put(devices=["tpu:0"]), "is no device"),
    "a device that looks like one": (put(devices=["\u0441pu"]), "can be taken for another"),
    "company that was not asked for": (put(beside=1), "beside 1 is not what the command asks for"),
    "company below nothing": (put(beside=-1), "below zero"),
    "a share that was not asked for": (
        asked("--devices cpu:0,cpu:1", devices=["cpu:2"]),
        "devices cpu:2 is not what the command asks for",
    ),
    "too much company": (
        asked("--devices cpu:0,cpu:1", devices=["cpu:1"], beside=2),
        "beside 2 is not what the command asks for",
    ),
    "more devices than are named": (put(devices_per_arm=2), "1 devices are named"),
    "devices an arm that were not asked for": (
        put(devices=["cpu:0", "cpu:1"], devices_per_arm=2),
        "devices_per_arm 2 is not what the command asks for",
    ),
    "the key of one device": (
        asked("--device cpu --devices-per-arm 2", devices=["cpu:0", "cpu:1"], devices_per_arm=2),
        "threads and device 'cpu', 2 an arm",
    ),
    "no device at all": (put(devices_per_arm=0), "devices_per_arm is 0"),
    "the efficiency of one device": (
        lambda plain: plain["throughput"].update(scaling_efficiency=0.9),
        "is given for an arm on one device",
    ),
    "shares of a GPU": (
        asked("--devices cuda:0,cuda:1", devices=["cuda:1"]),
        "is not of the device 'cpu'",
    ),
}


@pytest.mark.parametrize(("change", "says"), FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_refused_and_named(change: Callable[[Plain], None], says: str) -> None:
    plain = planned()
    change(plain)
    assert any(says in problem for problem in found(plain)), found(plain)


def test_shares_of_the_cpu_are_what_was_asked_for() -> None:
    plain = planned()
    asked("--devices cpu:0,cpu:1", devices=["cpu:1"], beside=1)(plain)
    assert found(plain) == []


def test_an_arm_on_several_devices_is_what_was_asked_for() -> None:
    plain = planned()
    asked("--device cpu --devices-per-arm 2", devices=["cpu:0", "cpu:1"], devices_per_arm=2)(plain)
    plain["throughput"]["scaling_efficiency"] = 0.9
    for where in (plain["environment"], *plain["attempts"]):
        where["machine_key"] += "-x2"
    assert found(plain) == []
    plain["environment"]["machine_key"] = plain["environment"]["machine_key"].replace("x2", "x3")
    assert any("machine_key" in problem for problem in found(plain))


def test_a_unit_that_two_contests_claim_is_refused(tmp_path: Path) -> None:
    first, other = planned(2), planned(4)
    assert first["pair"] != other["pair"]
    for plain in (first, other):
        write_record(msgspec.convert(plain, RunRecord), tmp_path)
    said = [problem for report in review([tmp_path]) for problem in report.problems]
    assert len(said) == 1
    assert f"its unit {UNIT} is that of" in said[0]


def test_a_repetition_and_the_arms_of_a_contest_share_their_unit(tmp_path: Path) -> None:
    arms = [planned(2), planned(3)]
    again = copy.deepcopy(arms[0])
    again["contest"] = again["contest"].replace(TOKEN, "-00000000")
    again["run_id"] = again["run_id"].replace(TOKEN, "-00000000")
    again["created"] = again["attempts"][0]["started"]
    for point in (*again["trace"], *again["rungs"]):
        point["train_seconds"] *= 1.0001
    for plain in (*arms, again):
        write_record(msgspec.convert(plain, RunRecord), tmp_path)
    assert not [
        problem
        for report in review([tmp_path])
        for problem in report.problems
        if "its unit" in problem
    ]
