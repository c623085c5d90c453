"""``list``: what is registered, as a table and as JSON."""

import json
from pathlib import Path

import pytest

from equivbench.cli.main import main
from equivbench.registry import DATASETS, KERNEL_BACKENDS, MODELS, PAIRS, TASKS, resolve

REGISTRIES = {
    "tasks": TASKS,
    "pairs": PAIRS,
    "models": MODELS,
    "kernels": KERNEL_BACKENDS,
    "datasets": DATASETS,
}


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["list", *arguments])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_is_listed_with_its_origin(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = REGISTRIES[kind].entries()  # type: ignore[attr-defined]
    rows = json.loads(listed(capsys, kind, "--json"))
    assert {row["name"]: row["origin"] for row in rows} == {
        name: entry.origin for name, entry in entries.items()
    }
    table = listed(capsys, kind).splitlines()
    assert table[0].split()[0] == "name"
    rows = table[1 : 1 + len(entries)]
    assert [line.split()[0] for line in rows] == sorted(entries)
    assert table[1 + len(entries)] == "all of them come with equivbench"


def test_data_sets_say_whether_they_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))

    def states() -> dict[str, str]:
        rows = json.loads(listed(capsys, "datasets", "--json"))
        return {row["name"]: row["state"] for row in rows}

    found = states()
    assert found["gfn2-small"] == found["ca-small"] == found["conformers-64"] == "shipped"
    assert found["crystals"] == "shipped, tests"
    # One is generated, one converted, one gathered from a folder that nobody has named.
    assert {found[name] for name in ("gfn2-20k", "spice", "ca-folder")} == {"not prepared"}
    built = tmp_path / "datasets" / "forcefield" / "gfn2-20k.npz"
    built.parent.mkdir(parents=True)
    card = built.with_suffix(".json")
    # As a build leaves it that ends between the two.
    built.write_bytes(b"whole")
    assert states() == found
    card.write_text(json.dumps({"sha256": "0" * 64, "version": "1", "bytes": 5}), encoding="utf-8")
    assert states() == {**found, "gfn2-20k": "prepared"}
    built.write_bytes(b"cut")
    assert states() == found
    built.unlink()
    assert states() == found
    assert "shipped, tests" in listed(capsys, "datasets")


def test_task_documents_its_fields_without_being_imported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (task,) = (
        row for row in json.loads(listed(capsys, "tasks", "--json")) if row["name"] == "forcefield"
    )
    fields = {field["name"]: field for field in task["fields"]}
    assert fields["pos"]["shape"] == ["atoms", 3]
    assert fields["pos"]["unit"] == "A"
    assert fields["pos"]["symmetry"] == fields["forces"]["symmetry"] == "1o"
    assert fields["forces"]["unit"] == "eV/A"
    assert fields["z"]["dtype"] == "int64"
    assert task["reported"] == [
        {"name": "energy", "unit": "(eV)^2", "per": "graph"},
        {"name": "stress", "unit": "(eV/A^3)^2", "per": "graph"},
    ]
    assert "gfn2-small" in task["datasets"]


@pytest.mark.parametrize("name", TASKS.entries())
def test_spec_repeats_what_the_task_declares(name: str) -> None:
    spec = TASKS.get(name)
    task = resolve(spec.factory)()
    assert spec.fields == task.fields
    assert spec.board_unit == task.board_unit
    assert spec.reported == task.reported
