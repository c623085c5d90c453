"""A measurement through files is the measurement of the model itself, and what does not belong to
the inputs is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equivbench.cli.main import main
from equivbench.errors import (
    EquivbenchError,
    EquivbenchWarning,
    FailedError,
    IncomparableError,
    UsageError,
)
from equivbench.measure import file_door
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.file_door import About, asked, export_inputs, measure_predictions
from equivbench.tasks.forcefield.elements import symbol


class Crude(nn.Module):
    """Forces from the positions about their centre, a little stretched along x."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        count = int(batch[-1]) + 1
        centre = pos.new_zeros(count, 3).index_add(0, batch, pos)
        centre = centre / batch.bincount(minlength=count)[:, None]
        return {"forces": 0.1 * (pos - centre[batch]) * pos.new_tensor([1.3, 1.0, 1.0])}


def about(**changes: Any) -> About:
    options: dict[str, Any] = {
        "split": "test",
        "group": "so3",
        "rotations": 3,
        "seed": 0,
        "samples": 70,
        **changes,
    }
    return asked(options.pop("task", "forcefield"), **options)


def predicted(path: Path, joined: bool) -> Path:
    """What another program would do with ``path`` (.npz)."""
    inputs = np.load(path)
    calls = sorted({key.partition("/")[0] for key in inputs.files if "/" in key}, key=int)
    found = {}
    for call in calls:
        tensors = {
            name: torch.from_numpy(inputs[f"{call}/{name}"]) for name in ("z", "pos", "batch")
        }
        found[f"{call}/forces"] = Crude()(**tensors)["forces"].numpy()
    if joined:
        found = {"forces": np.concatenate(list(found.values()))}
    out = path.with_name("predictions.npz")
    np.savez(out, about=inputs["about"], **found)
    return out


@pytest.mark.parametrize("joined", [False, True])
def test_predictions_through_npz_are_measured_as_the_model_is(tmp_path: Path, joined: bool) -> None:
    made = export_inputs(tmp_path / "inputs.npz", about())
    assert made.calls > 3
    found, measured = measure_predictions(predicted(tmp_path / "inputs.npz", joined))
    assert found == made
    itself = measure_equivariance(Crude(), "forcefield", rotations=3, samples=70)
    assert measured.total == pytest.approx(itself.total, rel=1e-6)
    assert measured.share == pytest.approx(itself.share, rel=1e-6)
    assert measured.share > 1e-3
    assert measured.verdict is None


@pytest.mark.parametrize("suffix", ["npz", "xyz"])
def test_crystals_go_out_with_their_cells(tmp_path: Path, suffix: str) -> None:
    inputs = tmp_path / f"inputs.{suffix}"
    made = export_inputs(inputs, about(dataset="crystals", samples=12))
    if suffix == "npz":
        with np.load(inputs) as arrays:
            assert arrays["0/cell"].shape == (12, 3, 3)
            assert arrays["0/pbc"].all()
    else:
        assert inputs.read_text().count('pbc="T T T"') == 36
    out = predicted(inputs, joined=False) if suffix == "npz" else xyz_predictions(inputs)
    found, measured = measure_predictions(out)
    assert found == made
    with pytest.warns(EquivbenchWarning, match="takes no cell"):
        itself = measure_equivariance(
            Crude(), "forcefield", data="crystals", rotations=3, samples=12
        )
    assert measured.total == pytest.approx(itself.total, rel=1e-5)
    assert measured.share == pytest.approx(itself.share, rel=1e-5)
    if suffix == "xyz":
        whole = out.read_text()
        for spoilt in (
            whole.replace('Lattice="', 'Lattice="1', 1),
            whole.replace("T T T", "F F F", 1),
        ):
            out.write_text(spoilt)
            with pytest.raises(FailedError, match=r"frame 0 .* is not the structure"):
                measure_predictions(out)


def xyz_predictions(path: Path, order: list[int] | None = None, **header: str) -> Path:
    """The frames of ``path`` with forces and an energy, as ASE would write them."""
    lines, frames = path.read_text().splitlines(), []
    while lines:
        count = int(lines[0])
        frames.append((lines[1], lines[2 : 2 + count]))
        lines = lines[2 + count :]
    out = []
    for place in order if order is not None else range(len(frames)):
        info, body = frames[place]
        for name, value in header.items():
            info = " ".join(
                f"{name}={value}" if word.startswith(f"{name}=") else word for word in info.split()
            )
        pos = torch.tensor([[float(x) for x in row.split()[1:]] for row in body])
        z = torch.zeros(len(body), dtype=torch.int64)
        forces = Crude()(z, pos, torch.zeros_like(z))["forces"]
        info = info.replace("pos:R:3", "pos:R:3:forces:R:3") + " energy=-1.5"
        out += [str(len(body)), info]
        out += [
            f"{row} {' '.join(f'{value:.9g}' for value in force.tolist())}"
            for row, force in zip(body, forces, strict=True)
        ]
    written = path.with_name("predictions.xyz")
    written.write_text("\n".join(out) + "\n")
    return written


def test_predictions_through_extended_xyz_are_measured_as_the_model_is(tmp_path: Path) -> None:
    export_inputs(tmp_path / "inputs.xyz", about(samples=20))
    _, measured = measure_predictions(xyz_predictions(tmp_path / "inputs.xyz"))
    itself = measure_equivariance(Crude(), "forcefield", rotations=3, samples=20)
    assert measured.total == pytest.approx(itself.total, rel=1e-5)
    assert measured.share == pytest.approx(itself.share, rel=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "xyz"])
def test_a_single_structure_goes_out_under_a_quadrature(tmp_path: Path, suffix: str) -> None:
    inputs = tmp_path / f"inputs.{suffix}"
    made = export_inputs(inputs, about(samples=1, rotations="quadrature:4"))
    assert made.calls == 75
    out = predicted(inputs, joined=True) if suffix == "npz" else xyz_predictions(inputs)
    found, measured = measure_predictions(out, by="irrep")
    assert found == made
    # A stretch is l = 2 alone; extended XYZ has nine digits.
    assert measured.by["l=2"].equivariance == pytest.approx(measured.equivariance, rel=1e-5)
    assert measured.share > 1e-4


def test_frames_in_another_order_are_refused(tmp_path: Path) -> None:
    export_inputs(tmp_path / "inputs.xyz", about(samples=4))
    shuffled = xyz_predictions(tmp_path / "inputs.xyz", order=[1, 0, *range(2, 12)])
    with pytest.raises(FailedError, match=r"frame 0 .* does not say"):
        measure_predictions(shuffled)
    cut = xyz_predictions(tmp_path / "inputs.xyz", order=list(range(11)))
    with pytest.raises(FailedError, match="rows"):
        measure_predictions(cut)


def spoilt(path: Path, **changes: Any) -> Path:
    """The predictions with arrays replaced; None: left out."""
    arrays = dict(np.load(path))
    arrays.update(changes)
    out = path.with_name("spoilt.npz")
    np.savez(out, **{name: each for name, each in arrays.items() if each is not None})
    return out


def test_what_does_not_belong_to_the_inputs_is_refused(tmp_path: Path) -> None:
    export_inputs(tmp_path / "inputs.npz", about(samples=5))
    good = predicted(tmp_path / "inputs.npz", joined=True)
    forces = np.load(good)["forces"]
    told = msgspec.json.decode(str(np.load(good)["about"]), type=About)

    def retold(**changes: Any) -> np.ndarray:
        changed = msgspec.structs.replace(told, **changes)
        return np.array(msgspec.json.encode(changed).decode())

    cases: list[tuple[dict[str, Any], type[EquivbenchError], str]] = [
        ({"forces": forces[:-1]}, FailedError, "rows"),
        ({"forces": np.vstack((forces, forces[:1]))}, FailedError, "rows"),
        ({"forces": forces * np.nan}, FailedError, "not finite"),
        ({"forces": forces.astype(np.int64)}, FailedError, "not floating"),
        ({"forces": forces[:, :2]}, UsageError, "shape"),
        ({"forces": None, "force": forces}, FailedError, "no 'forces'.*has force"),
        ({"about": None}, FailedError, "no file of predictions"),
        ({"about": np.array("{}")}, FailedError, "no file of predictions"),
        ({"about": retold(seed=1)}, IncomparableError, "export them again"),
        ({"about": retold(sha256="0" * 64)}, IncomparableError, "export them again"),
        ({"about": retold(task="nothing")}, UsageError, "nothing"),
        ({"about": retold(calls=told.calls + 1)}, IncomparableError, "export them again"),
        ({"about": retold(rotations=10**12)}, UsageError, "fewer rotations"),
        ({"about": retold(rotations=-1)}, UsageError, "at least 2 rotations"),
        ({"about": retold(samples=0)}, UsageError, "at least 1 sample"),
        ({"about": retold(seed=-1)}, UsageError, "a seed is a whole number"),
        ({"about": retold(seed=2**63)}, UsageError, "a seed is a whole number"),
    ]
    for changes, error, says in cases:
        with pytest.raises(error, match=says):
            measure_predictions(spoilt(good, **changes))
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:200])
    with pytest.raises(FailedError, match="no file of predictions"):
        measure_predictions(tmp_path / "cut.npz")
    whole = good.read_bytes()
    for place in range(40, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.npz").write_bytes(damaged)
        # What it tells of itself may be another request, and a name another name.
        with contextlib.suppress(EquivbenchError):
            measure_predictions(tmp_path / "damaged.npz")
    with pytest.raises(FailedError, match="no array of rows"):
        measure_predictions(spoilt(good, forces=np.float32(1.0)))
    with pytest.raises(FailedError, match="cannot be read"):
        measure_predictions(tmp_path / "nowhere.npz")


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"\.npz"):
        export_inputs(tmp_path / "inputs.csv", about(samples=2))
    with pytest.raises(UsageError, match="back"):
        export_inputs(tmp_path / "inputs.npz", about(task="flow", samples=2))
    with pytest.raises(UsageError, match="atoms"):
        export_inputs(tmp_path / "inputs.xyz", about(task="voxel", group="octahedral", samples=2))
    with pytest.raises(UsageError, match="--task"):
        asked(None, split="test", group="so3", rotations=2, seed=0, samples=None)
    unknown = torch.tensor([1, 200])
    monkeypatch.setattr(
        file_door,
        "_bounded_calls",
        lambda evaluator, told: [
            {"z": unknown.numpy(), "pos": np.zeros((2, 3)), "batch": np.zeros(2, dtype=np.int64)}
        ],
    )
    with pytest.raises(UsageError, match=r"atomic number 200.*export \.npz"):
        export_inputs(tmp_path / "inputs.xyz", about(samples=2))
    assert list(tmp_path.iterdir()) == []


def test_inputs_too_large_for_a_file_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    made = export_inputs(tmp_path / "small.npz", about(samples=5), lambda *size: told.append(size))
    ((calls, size),) = told
    with np.load(tmp_path / "small.npz") as arrays:
        exact = sum(arrays[name].nbytes for name in arrays.files if name != "about")
    assert calls == made.calls
    assert size == pytest.approx(exact, rel=0.2)
    good = predicted(tmp_path / "small.npz", joined=True)
    monkeypatch.setattr("equivbench.measure.file_door.MOST_BYTES", exact // 2)
    with pytest.raises(UsageError, match="with --samples or --rotations"):
        export_inputs(tmp_path / "large.npz", about(samples=5), lambda *size: told.append(size))
    assert len(told) == 1
    assert not (tmp_path / "large.npz").exists()
    monkeypatch.setattr("equivbench.measure.file_door.MOST_BYTES", 1000)
    with pytest.raises(FailedError, match="unpacks to"):
        measure_predictions(good)


def test_symbols_are_those_of_the_elements() -> None:
    assert [symbol(number) for number in (1, 6, 8, 53, 118)] == ["H", "C", "O", "I", "Og"]


def test_the_command_writes_and_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["measure", *map(str, arguments)])
        return int(stop.value.code or 0)

    inputs = tmp_path / "inputs.npz"
    assert run("--task", "forcefield", "--samples", 4, "--export", inputs) == 0
    said = capsys.readouterr()
    assert "calls of task forcefield" in said.out
    assert "MiB before compression" in said.err
    found = predicted(inputs, joined=True)
    assert run("--import", found) == 0
    assert "no floor and no verdict" in capsys.readouterr().out
    assert run("--import", found, "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"] > 0
    assert run("--import", found, "--export", inputs) == 2
    assert run() == 2
    assert capsys.readouterr().err.count("one of them") == 2
