"""``doctor``: what is found, and the exit code that only an essential defect changes."""

import json
from pathlib import Path

import pytest

from equivbench.cli import doctor
from equivbench.cli.main import main


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
