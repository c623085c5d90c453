"""``doctor``: what is found, and the exit code that only an essential defect changes."""

import json
from pathlib import Path

import pytest

from equivbench.cli import doctor
from equivbench.cli.main import main
from equivbench.kernels import private_folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    return stop.value.code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    return tmp_path


def test_json_names_everything_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0
    assert set(doctor.ESSENTIAL) | set(doctor.OPTIONAL) <= set(findings)
    assert {"processor", "c++ compiler", "gpu driver", "device", "cache", "data gfn2-small"} <= set(
        findings
    )
    assert findings["data gfn2-small"]["state"] == "ok", "the small set is shipped in the package"
    assert all(
        finding["advice"]
        for finding in findings.values()
        if finding["name"] in doctor.OPTIONAL and finding["state"] == "absent"
    )


def test_missing_essential_package_exits_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ESSENTIAL", ("no-such-package",))
    code, out = run(capsys)
    assert code == 3
    assert "pip install no-such-package" in out


def test_missing_optional_package_gives_the_pip_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor, "OPTIONAL", {"no-such-package": ("a test", "pip install 'equivbench[test]'")}
    )
    code, out = run(capsys)
    assert code == 0
    assert "pip install 'equivbench[test]'" in out


def test_cache_that_cannot_be_written_exits_3(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(cache / "file"))
    code, out = run(capsys)
    assert code == 3
    assert "EQUIVBENCH_CACHE" in out


def test_full_disk_exits_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_BYTES", 10**30)
    assert run(capsys)[0] == 3


def test_what_the_cache_keeps_is_counted_and_how_to_remove_it_is_said(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache / "weights").mkdir()
    for name in ("a", "b"):
        (cache / "weights" / f"{name}.safetensors").write_bytes(bytes(30_000_000))
    (cache / "runs" / "0123").mkdir(parents=True)
    for name in ("0123.lock", "0123/run.json"):
        (cache / "runs" / name).touch()
    (cache / "runs" / "elsewhere").symlink_to(cache / "weights")
    found = {check.name: check for check in doctor.storage()}
    assert found["cache: weights"].detail == "2 files, 0.06 GB"
    assert f"delete {cache / 'weights'}" in found["cache: weights"].advice
    assert "cannot be audited" in found["cache: weights"].advice
    assert found["cache: runs"].detail.startswith("2 files, 0.00 GB")
    assert "cache: kernels" not in found
    assert (cache / "weights" / "a.safetensors").exists(), "nothing is removed"


def test_kernels_kept_outside_the_cache_are_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others can write the cache, compiled code lies in a folder of the user's own."""
    monkeypatch.setattr(private_folder, "places_of_ones_own", lambda: [tmp_path / "own"])
    (tmp_path / "own" / "abc").mkdir(parents=True)
    (tmp_path / "own" / "abc" / "kernel.so").write_bytes(b"1234")
    _, out = run(capsys, "--json")
    found = {each["name"]: each for each in json.loads(out)}["cache: kernels of your own"]
    assert found["detail"].startswith("1 file,")
    assert f"delete {tmp_path / 'own'}" in found["advice"]


def test_data_sets_that_are_not_here_are_one_line_for_a_reader(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys)[1]
    assert "data spice" not in out
    assert "data gfn2-small" in out
    absent = [check for check in doctor.data() if check.advice]
    assert f"{len(absent)} further data sets not on this machine" in out
    broken = doctor.Check("data mine", "absent", "ValueError: no luck")
    assert [*doctor._in_short([broken])] == [broken]
