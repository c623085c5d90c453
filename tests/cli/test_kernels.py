"""``equivbench kernels`` from arguments to table, JSON, files and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_ceilings import pretended
from toy_kernels import TOY, breaks_later, interrupted_later, registered, right, wrong_sign

from equivbench import environment
from equivbench.cli.main import main
from equivbench.kernels import comparing, measuring, operations
from equivbench.kernels.backend import Kernel
from equivbench.records.line_files import KERNEL_FILE
from equivbench.registry import KERNEL_BACKENDS


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two toy cases, a small cache, a pretended machine, one thread."""
    monkeypatch.setattr(measuring, "cache_bytes", lambda device: 20_000)
    monkeypatch.setattr(comparing, "measure_ceilings", lambda device, dtype: pretended())
    monkeypatch.setattr(operations, "CASES", (TOY, replace(TOY, name="large", quick=False)))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["kernels", *map(str, arguments), "--threads", "1"])
    return int(end.value.code or 0)


def test_only_a_process_of_its_own_is_begun_anew_with_the_memory_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []
    monkeypatch.setattr(environment, "keep_memory", lambda: begun.append(sys.argv[1]))
    for words in (["kernels", "--help"], ["list", "kernels", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        assert begun == [], "a caller's process is not ours to begin again"
        monkeypatch.setattr(sys, "argv", ["equivbench", *words])
        with pytest.raises(SystemExit):
            main()
        assert begun == ["kernels"] * (words[0] == "kernels")
        begun.clear()


def test_the_table_compares_with_e3nn(capsys: pytest.CaptureFixture[str]) -> None:
    with registered(mine=right):
        assert run("--backend", "mine", "--backend", "e3nn", "--mode", "forward", "--quick") == 0
    out = capsys.readouterr().out
    assert "toy: 12 nodes, 60 edges, float32; 1 thread of" in out
    assert "large" not in out, "only quick cases by default"
    rows = {
        line.split()[1]: line.split() for line in out.splitlines() if line.startswith("forward")
    }
    assert float(rows["mine"][2]) > 0
    assert rows["e3nn"][3] == "1.00"
    assert rows["mine"][4].endswith("%")
    assert "bound by" in out
    assert "nan" not in out
    assert "inf" not in out


def test_json_has_samples_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with registered(mine=right, wrong=wrong_sign):
        assert (
            run(
                "toy",
                "--backend",
                "mine",
                "--backend",
                "wrong",
                "--quick",
                "--json",
                "--out",
                tmp_path,
            )
            == 3
        )
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [(one["mode"], one["backend"]) for one in found["samples"]] == [
        (mode, "mine") for mode in ("forward", "backward", "double_backward")
    ]
    assert {(one["backend"], one["kind"]) for one in found["refused"]} == {("wrong", "wrong")}
    assert (
        captured.err.count("error: wrong on toy (forward) is wrong and not timed: output is off by")
        == 1
    )
    (file,) = tmp_path.rglob("kernels.jsonl")
    samples = KERNEL_FILE.read(file)
    assert [one.mode for one in samples] == [one["mode"] for one in found["samples"]]
    assert file.parent.name == samples[0].environment.machine_key


def test_a_time_below_what_the_machine_can_do_is_refused_and_never_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparing, "measure_ceilings", lambda device, dtype: pretended(1e3))
    with registered(mine=right):
        where = ("--quick", "--out", tmp_path)
        assert run("toy", "--backend", "mine", "--mode", "forward", *where) == 3
    captured = capsys.readouterr()
    assert "mine on toy (forward): a call took" in captured.err
    assert "an instrument is at fault" in captured.err
    assert "%" not in captured.out
    assert not list(tmp_path.rglob("kernels.jsonl"))


def test_a_second_measurement_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    with registered(mine=right):
        assert (
            run(
                "toy",
                "--backend",
                "mine",
                "--mode",
                "forward",
                "--mode",
                "backward",
                "--quick",
                "--out",
                file,
            )
            == 0
        )
        first = KERNEL_FILE.read(file)
        assert (
            run("toy", "large", "--backend", "mine", "--mode", "forward", "--quick", "--out", file)
            == 0
        )
    second = KERNEL_FILE.read(file)
    assert second[:2] == first
    assert [one.key for one in second[2:]] == [
        ("toy", "forward", "mine"),
        ("large", "forward", "mine"),
    ]
    assert second[2].rounds != first[0].rounds


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["tyo"], 2, "did you mean toy"),
        (["--mode", "backwards"], 2, "did you mean backward"),
        (["--backend", "torhc"], 2, "did you mean torch"),
        (["--dtype", "float23"], 2, "did you mean float32"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--device", "tpu"], 2, "tpu"),
        (["--backend", "openequivariance"], 3, "openequivariance"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def test_absent_backends_are_named_once_with_how_to_get_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(mine=right):
        entries = KERNEL_BACKENDS.entries()
        # Of all that are registered, these two: the others take their time.
        KERNEL_BACKENDS.restore({name: entries[name] for name in ("mine", "openequivariance")})
        assert run("toy", "large", "--mode", "forward", "--quick") == 0
    err = capsys.readouterr().err
    assert err.count("openequivariance") == 2, "its name and its reason, once for all cases"


def test_a_backend_that_breaks_leaves_the_others_their_times(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(mine=right, broken=breaks_later):
        assert (
            run("toy", "--backend", "broken", "--backend", "mine", "--mode", "forward", "--quick")
            == 3
        )
    captured = capsys.readouterr()
    assert "broken on toy (forward) fails: RuntimeError: out of order" in captured.err
    assert "mine" in captured.out


def test_an_interruption_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with registered(mine=right, last=interrupted_later):
        assert (
            run("toy", "--backend", "mine", "--backend", "last", "--quick", "--out", tmp_path)
            == 130
        )
    captured = capsys.readouterr()
    assert "interrupted; 1 results are in" in captured.err
    assert "mine" in captured.out
    (file,) = tmp_path.rglob("kernels.jsonl")
    (kept,) = KERNEL_FILE.read(file)
    assert kept.backend == "mine"


def test_nothing_that_could_be_timed_is_not_success(capsys: pytest.CaptureFixture[str]) -> None:
    with registered(mine=lambda operation: Kernel(right(operation), "by hand", max_derivatives=0)):
        assert run("toy", "--backend", "mine", "--mode", "backward") == 3
    assert "mine does not do toy (backward)" in capsys.readouterr().err
