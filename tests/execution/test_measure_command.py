"""``equivbench measure``: every way to name a model, and what is said of its declared symmetry."""

import importlib.util
import json
from pathlib import Path

import pytest
from running import Bench, Ran
from torch import nn

from equivbench.errors import FailedError, UsageError
from equivbench.execution.loading import find_model

MODELS = """
import torch

class Right(torch.nn.Module):
    def forward(self, x):
        return {"y": x * (1 + x.square().sum(-1, keepdim=True))}

class Skew(Right):
    def forward(self, x):
        return {"y": super().forward(x)["y"] * torch.tensor([1.0, 1.0, 1.1])}

def build(config):
    return Skew()

class Deep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = Right(), Skew()
    def forward(self, x):
        return {"y": self.outer(self.inner(x)["y"])["y"]}

class Fails(torch.nn.Module):
    def forward(self, x):
        return x[:, 7]

class Noisy(Right):
    def forward(self, x):
        return {"y": super().forward(x)["y"] + 0.15 * torch.randn_like(x)}

class Slope(torch.nn.Module):
    def forward(self, x):
        x.requires_grad_(True)
        square = x.square().sum(-1)
        energy = (square / 2 + square.square() / 4).sum()
        return {"y": torch.autograd.grad(energy, x)[0]}

class Lost(Right):
    def forward(self, x):
        return {"y": super().forward(x)["y"] / 0}

class Narrow(Right):
    def forward(self, x):
        return {"y": super().forward(x)["y"][:, :1]}

class Whitened(Right):
    def forward(self, x):
        return {"y": super().forward(x)["y"] / x.std()}

class Rude(Right):
    def forward(self, x):
        if x.dtype == torch.float64:
            raise ValueError("\\x1b[2J no kernel in /home/someone/cache/kernel.so")
        return super().forward(x)

class Energies(torch.nn.Module):
    def forward(self, z, pos, batch):
        apart = torch.cdist(pos, pos) + 100 * (batch[:, None] != batch)
        return torch.exp(-apart.square()).sum(1) * z

instance = Right()
number = 3

def raises():
    raise KeyError("width")
"""


# Many calls in one process: most of a call is the import of torch.
CALLS = """
import contextlib, io, json, sys
from equivbench.cli.main import main
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["measure", *arguments])
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def measure(bench: Bench, *calls: list[str]) -> list[Ran]:
    """``equivbench measure`` with each of the argument lists, in one process."""
    ran = bench.finish(bench.start_python("-c", CALLS, json.dumps(calls)))
    assert ran.code == 0, ran.err
    return [Ran(*json.loads(line)) for line in ran.out.splitlines()]


@pytest.fixture
def models(bench: Bench) -> Bench:
    """A bench with a file of models in the current folder."""
    (bench.folder / "mine.py").write_text(MODELS)
    (bench.folder / "broken.py").write_text("import nowhere\n")
    return bench


def test_models_of_the_users_own_and_registered_ones(models: Bench) -> None:
    skew, table, cube, noisy, liar, honest, slope, rude = measure(
        models,
        ["mine:build", "--task", "toy", "--json", "--rotations", "8"],
        ["mine:instance", "--task", "toy"],
        ["mine:Right", "--task", "toy", "--group", "octahedral", "--rotations", "24"],
        ["mine:Noisy", "--task", "toy", "--group", "o3", "--samples", "40", "--json"],
        ["toy-liar"],
        ["toy-radial", "--task", "toy", "--json"],
        ["mine:Slope", "--task", "toy", "--json"],
        ["mine:Rude", "--task", "toy"],
    )
    assert (skew.code, skew.err) == (0, "")
    found = skew.json
    assert found["model"] == "mine:build"
    # The error is 0.1 in one of three components, 0.01 |y|^2 / 3, of which the twirl (0.1 / 3 y)
    # keeps a third.
    assert found["share"] == pytest.approx(2 / 3, abs=0.05)  # 128 points, 8 draws
    low, high = found["interval"]
    assert low < found["share"] < high
    assert not found["at_floor"]
    assert found["total"] == pytest.approx(found["twirled"] + found["equivariance"], rel=1e-9)
    assert (found["holds"], found["symmetry_verified"]) == (False, None)
    assert table.out.startswith("symmetry under so3 holds: ")
    assert "symmetry under octahedral holds: " in cube.out
    assert (noisy.json["holds"], noisy.json["samples"], noisy.json["floor"]) == (None, 40, None)
    assert "not deterministic" in noisy.json["reason"]
    assert "random weights" in liar.err
    assert "so3 DOES NOT HOLD: equivariance error" in liar.out
    assert honest.json["symmetry"] == "o3"
    assert honest.json["symmetry_verified"] is True
    # A network that differentiates inside is the function it is.
    assert slope.json["holds"] is True
    assert slope.json["total"] < 1e-10
    # What a foreign exception says drives no terminal and names no folder.
    assert "ValueError: \\x1b[2J no kernel in .../kernel.so)" in rude.out
    assert "\x1b" not in rude.out + rude.err


def test_networks_of_other_packages(models: Bench) -> None:
    few = ["--samples", "4", "--rotations", "2", "--json"]
    network, direct, calculator, unknown, no_calculator, fails, energy, crystals, stress = measure(
        models,
        ["mine:Energies", "--as", "energy", *few],
        ["mine:Energies", "--as", "forces", *few],
        ["ase:ase.calculators.lj:LennardJones", *few],
        ["ase:ase.calculators.lj:LennardJonse"],
        ["ase:mine:number"],
        ["ase:ase.calculators.emt:EMT"],
        ["ase:ase.calculators.lj:LennardJones", "--as", "energy"],
        ["ase:ase.calculators.lj:LennardJones", "--dataset", "crystals", *few],
        ["ase:ase.calculators.lj:LennardJones", "--dataset", "crystals", "--of", "stress", *few],
    )
    assert (network.code, network.err) == (0, "")
    assert network.json["task"] == "forcefield"
    assert (network.json["dataset"], network.json["of"]) == ("gfn2-small", None)
    assert network.json["holds"] is True, network.json["reason"]
    assert (direct.code, "gives no forces but a tensor" in direct.err) == (3, True)
    if importlib.util.find_spec("ase") is None:
        assert (calculator.code, "pip install 'equivbench[ase]'" in calculator.err) == (3, True)
        return
    assert calculator.json["holds"] is True, calculator.json["reason"]
    assert calculator.json["beside"] == {}
    for ran, of in ((crystals, None), (stress, "stress")):
        assert ran.json["holds"] is True, ran.json["reason"]
        assert (ran.json["dataset"], ran.json["of"]) == ("crystals", of)
    beside = crystals.json["beside"]["stress"]
    assert beside["unit"] == "(eV/A^3)^2"
    assert beside["total"] == pytest.approx(stress.json["total"])
    assert crystals.json["remarks"][0].startswith("stress beside it: loss")
    assert (unknown.code, "LennardJonse" in unknown.err) == (2, True)
    assert (no_calculator.code, "returns a int, not an ASE calc" in no_calculator.err) == (2, True)
    assert (fails.code, "EMT failed on " in fails.err) == (3, True)
    assert (energy.code, "gives forces itself" in energy.err) == (2, True)
    for ran in (direct, unknown, no_calculator, fails, energy):
        assert (ran.out, ran.err.count("\n")) == ("", 1)


def test_what_an_error_is_made_of(models: Bench) -> None:
    two = ["--task", "toy", "--samples", "2"]
    irreps, low, sides, layers, layer_json = measure(
        models,
        ["mine:build", *two, "--rotations", "quadrature:4", "--by", "irrep", "--json"],
        ["mine:build", *two, "--rotations", "quadrature:1"],
        ["mine:build", *two, "--group", "o3"],
        ["mine:Deep", *two, "--by", "layer"],
        ["mine:Deep", *two, "--by", "layer", "--group", "o3", "--json"],
    )
    found = irreps.json
    # A stretch along an axis is l = 2 alone.
    assert list(found["by"]) == ["l=1", "l=2", "higher"]
    assert found["by"]["l=2"]["share"] == pytest.approx(found["share"], rel=1e-6)
    assert (found["rotations"], found["quadrature"], found["split_by"]) == (75, 4, "irrep")
    assert (found["doubled"]["degree"], found["doubled"]["agrees"]) == (8, True)
    assert "DISAGREES with that of degree 2" in low.out
    assert "by rotations" in sides.out
    assert "by reflections" in sides.out
    assert "the error enters by outer.y" in layers.out
    assert layer_json.json["by"]["inner.y"]["symmetry"] in ("1o", "1e")
    assert layer_json.json["by"]["outer.y"]["share"] > 1e-4
    assert layer_json.json["remarks"][0].startswith("the error enters by outer.y")
    # From four draws each of 16 points it is as uncertain as that.
    assert abs(layer_json.json["parity"]["share"]) < 0.01


@pytest.mark.slow
def test_trained_runs_by_record_id_and_checkpoint(models: Bench) -> None:
    assert models("run", "toy/plain", "--budget", "40steps", "--preset", "dev").code == 0
    records = sorted(models.results.glob("*/*/*/*/*.json"))
    checkpoints = [str(path) for path in sorted(models.folder.rglob("checkpoint.safetensors"))]
    assert (len(records), len(checkpoints)) == (2, 2)
    *by_record, by_id, by_file, wrong_task = measure(
        models,
        *([str(record), "--json"] for record in records),
        [records[0].stem],
        [checkpoints[0]],
        [checkpoints[0], "--task", "forcefield"],
    )
    for record, measured in zip(records, by_record, strict=True):
        final = json.loads(record.read_text())
        assert measured.code == 0
        # The same weights, samples and rotations as in the run's last evaluation.
        assert measured.json["total"] == pytest.approx(
            final["final"]["total"], rel=1e-6
        )  # batches of another size
        assert measured.json["symmetry_verified"] == final["model"]["symmetry_verified"]
    # Both arms of a run share their id.
    assert by_id.code == 2
    assert all(str(record) in by_id.err for record in records)
    assert (by_file.code, wrong_task.code) == (0, 2)
    Path(checkpoints[0]).write_bytes(Path(checkpoints[0]).read_bytes()[:-100])
    Path(checkpoints[1]).unlink()
    cut, gone = measure(models, [checkpoints[0]], [records[0].stem])
    assert (cut.code, gone.code) == (3, 3)
    for ran in (by_id, wrong_task, cut, gone):
        assert ran.err.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in ran.err


def test_mistakes_are_one_sentence(models: Bench) -> None:
    mistakes = [
        (["mine:instance"], 2, "--task"),
        (["mine:instance", "--task", "tyo"], 2, "did you mean toy"),
        (["mine:instance", "--task", "toy", "--rotations", "1"], 2, "at least 2"),
        (
            ["mine:instance", "--task", "toy", "--group", "o2"],
            2,
            "unknown group 'o2'; did you mean o3?",
        ),
        (
            ["mine:instance", "--task", "toy", "--rotations", "quadrature:0"],
            2,
            "the degree of a quadrature is 1 to 100, not 0",
        ),
        (["--import", "x.npz", "--by", "layer"], 2, "nothing of layers"),
        (
            ["mine:instance", "--task", "toy", "--by", "irrep", "--rotations", "2"],
            2,
            "at least 3 rotations",
        ),
        (["mine:instance", "--task", "toy", "--split", "tset"], 2, "did you mean test"),
        (["mine:instance", "--task", "toy", "--dataset", "crystals"], 2, "of task forcefield, not"),
        (["mine:instance", "--task", "toy", "--of", "z"], 2, "unknown output of task toy 'z'"),
        (["--task", "toy", "--export", "x.npz", "--of", "y"], 2, "--of is for a MODEL"),
        (["--import", "x.npz", "--dataset", "crystals"], 2, "--dataset is not for --import"),
        (
            ["mine:instance", "--task", "forcefield"],
            3,
            "cannot be called with the inputs z, pos, batch",
        ),
        (["mine:nothing", "--task", "toy"], 2, "no attribute"),
        (["mine:number", "--task", "toy"], 2, "not a torch.nn.Module"),
        (["mine:raises", "--task", "toy"], 3, "KeyError"),
        (["mine:Fails", "--task", "toy"], 3, "Fails failed on a batch: IndexError"),
        (["mine:Lost", "--task", "toy"], 3, "mine:Lost gives numbers that are not finite"),
        (["mine:Narrow", "--task", "toy"], 3, "'y' has shape (64, 1), not the shape (64, 3)"),
        (["mine:Whitened", "--task", "toy"], 3, "depends on the others of its batch"),
        (["toy-radail", "--task", "toy"], 2, "did you mean toy-radial"),
        (["none.json"], 3, "none.json"),
        (["mine:Energies", "--task", "forcefield", "--samples", "2"], 3, "`measure --as energy`"),
        (["toy-radial", "--as", "energy"], 2, "a model of its task already"),
        (["mine:Energies", "--as", "power"], 2, "unknown prediction 'power'"),
        (["broken:Network", "--task", "toy"], 3, "No module named 'nowhere'"),
        (["metatomic:none.pt"], 3, "none.pt is not there"),
        (["none.safetensors"], 3, "none.safetensors"),
    ]
    for (arguments, code, says), ran in zip(
        mistakes, measure(models, *(each[0] for each in mistakes)), strict=True
    ):
        assert ran.code == code, arguments
        assert says in ran.err
        assert ran.err.count("\n") == 1
        assert ran.out == ""


def test_find_model_takes_modules_and_callables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_here.py").write_text(
        "import torch\nnet = torch.nn.Linear(3, 3)\ndef build(config=None):\n    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_model("found_here:net").model, nn.Linear)
    assert find_model("found_here:build").model is find_model("found_here:net").model
    with pytest.raises(UsageError):
        find_model("found_here:torch")
    with pytest.raises(FailedError):
        find_model(str(tmp_path / "no.safetensors"))
