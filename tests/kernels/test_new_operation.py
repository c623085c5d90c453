"""An operation is one file: with nothing registered it has cases that are drawn, checked, costed
and timed, and wrong kernels of it are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from toy_ceilings import pretended
from toy_kernels import Run, registered
from toy_operation import CASES, ScaledRows

from equivbench.cli.main import main
from equivbench.errors import UsageError
from equivbench.kernels import comparing, measuring, operations
from equivbench.kernels.backend import UnsupportedError, backend
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.measuring import prepare
from equivbench.kernels.operations import Case, Operation, costs
from equivbench.kernels.problem import make_inputs

(CASE,) = CASES
CPU = torch.device("cpu")


def product(operation: Operation) -> Run:
    return lambda inputs: inputs["x"] * inputs["weights"].unsqueeze(1)


def detached(operation: Operation) -> Run:
    return lambda inputs: inputs["x"] * inputs["weights"].detach().unsqueeze(1)


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small cache and a pretended machine; what the command sets is taken back."""
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 20_000)
    monkeypatch.setattr(comparing, "measure_ceilings", lambda device, dtype: pretended())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_right_kernel_of_it_is_timed_in_every_mode() -> None:
    with registered(mine=product):
        prepared = prepare(CASE, "double_backward", "mine")
        assert prepared.round(0.01) > 0
    assert set(prepared.errors) == {
        "output",
        "gradient x",
        "gradient weights",
        "second x",
        "second weights",
        "second cotangent",
        "tangent",
    }


def test_a_wrong_kernel_of_it_is_refused() -> None:
    with registered(mine=detached):
        prepare(CASE, "forward", "mine")
        with pytest.raises(WrongKernelError, match="gradient weights is missing"):
            prepare(CASE, "backward", "mine")


def test_its_cases_are_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, "CASES", (*operations.CASES, *CASES))
    arguments = ["kernels", "scaled-*", "--backend", "mine", "--quick", "--json", "--threads", "1"]
    with registered(mine=product), pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [one["case"] for one in samples] == ["scaled-rows-4"] * 3
    assert samples[0]["bytes_fused"] == costs(CASE, "forward").bytes_fused == 4 * (200 + 50 + 200)


def test_backends_that_do_not_know_it_say_so() -> None:
    for name in ("torch", "fused", "e3nn"):
        with pytest.raises(UnsupportedError, match="scaled-rows"):
            backend(name).build(ScaledRows(4), dtype=torch.float32, device=CPU)


def test_what_an_operation_lacks_is_said() -> None:
    foreign = type("Foreign", (Operation,), {"name": "foreign"})()
    case = Case("test", foreign, {}, 0, "")
    with pytest.raises(
        UsageError, match="'foreign' has no inputs; give Foreign a method 'arguments'"
    ):
        make_inputs(case, dtype=torch.float32, device=CPU)
    with pytest.raises(UsageError, match="no reference"):
        foreign.reference()
    with pytest.raises(UsageError, match="no cost formulas"):
        costs(case, "forward")
