"""``equivbench analyze samples``: backbones sampled from a flow model, and their structure beside
real ones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.counted import counted
from equivbench.errors import UsageError
from equivbench.report.table import Cell, Column, Table
from equivbench.report.text import percent_text
from equivbench.request import Request, option

if TYPE_CHECKING:
    from equivbench.execution.loading import FoundModel
    from equivbench.studies.flow_samples.structure import StructureStatistics, Traces

_ANGSTROM = 10.0
"""Per nm, the unit that models of the task see."""
_LABELS: Mapping[str, str] = {
    "chains": "chains",
    "residues": "residues",
    "bond_mean": "CA-CA distance, mean [A]",
    "bond_std": "CA-CA distance, standard deviation [A]",
    "bond_near": "CA-CA distances within 3.8 +- 0.1 A",
    "clashes": "clashes (CAs below 3 A) per 100 residues",
    "clashing": "chains with a clash",
    "radius": "radius of gyration [A]",
    "relative_radius": "radius of gyration over 2.2 N^0.38 A",
    "helix_right": "right-handed helix",
    "helix_left": "left-handed helix",
    "chirality": "chirality (mirror image: the negative)",
}
_FRACTIONS = ("bond_near", "clashing", "helix_right", "helix_left")


@dataclass(frozen=True, kw_only=True)
class SamplesRequest(Request):
    """What ``equivbench analyze samples`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("analyze", "samples")

    model: str = option(
        MISSING,
        "The record, id or checkpoint of a flow run, or a model as `measure` takes it.",
        flag=None,
        metavar="MODEL",
        completes="models",
    )
    count: int = option(32, "Number of backbones.")
    length: int | None = option(
        None, "Residues of each backbone. The default is the lengths of the test chains."
    )
    steps: int = option(100, "Number of steps of the ODE.")
    method: Literal["euler", "heun"] = option(
        "euler", "The integrator; heun calls the network twice a step."
    )
    schedule: Literal["log", "uniform"] = option(
        "log", "The lengths of the steps; log, as published, has shorter ones towards the data."
    )
    seed: int = option(0, "The seed of the noise.")
    device: str = option("auto", "Where to compute: auto, cpu, cuda or cuda:N.", recorded=False)
    out: str | None = option(None, "Write the samples into this file (.pdb or .npz).")
    plot: str | None = option(None, "Draw the samples into this file (.png, .pdf or .svg).")


@takes(SamplesRequest)
def samples(request: SamplesRequest, json: Json = False) -> None:
    """Sample backbones from a trained flow model and compare their structure with that of the test
    chains."""
    from equivbench.execution.loading import find_model
    from equivbench.execution.plan import resolve_device
    from equivbench.report.figures import require_drawable, save_figure
    from equivbench.studies.flow_samples.structure import (
        draw_structures,
        structure_statistics,
        write_npz,
        write_pdb,
    )

    out, plot = (None if each is None else Path(each) for each in (request.out, request.plot))
    if request.count < 1:
        raise UsageError(f"--count must be at least 1, not {request.count}")
    if out is not None and out.suffix not in (".pdb", ".npz"):
        raise UsageError(f"--out {out} must end in .pdb or .npz")
    if plot is not None:
        require_drawable(plot)
    device = resolve_device(request.device)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(request.model)
        if found.task not in (None, "flow"):
            raise UsageError(
                f"{request.model} is for task {found.task}; "
                "backbones are sampled from models of task flow"
            )
        real = _test_chains(found)
        drawn = _draw(found, request, real, device)
    if found.untrained:
        message("note", f"{request.model} has random weights, so its samples are noise")
    compared = {
        "samples": structure_statistics(drawn.positions, drawn.mask),
        "test": structure_statistics(real.positions, real.mask),
    }
    if out is not None and out.suffix == ".pdb":
        write_pdb(out, drawn.positions, drawn.mask)
    elif out is not None:
        write_npz(out, drawn.positions, drawn.mask)
    if plot is not None:
        title = f"{found.name}, {counted(request.steps, f'{request.method} step')}"
        save_figure(draw_structures(drawn, real, title=title), plot)
    if json:
        asked = asdict(request) | {"model": found.name}
        for name in ("device", "out", "plot"):
            del asked[name]
        # What is not a number becomes null.
        known = {
            name: {key: value if value == value else None for key, value in asdict(each).items()}
            for name, each in compared.items()
        }
        print_json(asked | known)
        return
    print_table(structure_table(**compared))
    for path in filter(None, (out, plot)):
        message("written", str(path))


def structure_table(samples: StructureStatistics, test: StructureStatistics) -> Table:
    """The statistics of samples beside those of the test chains."""
    columns = (
        Column("statistic", heading=" ", key=True),
        Column("samples", kind="number", digits=4),
        Column("test chains", kind="number", digits=4),
    )
    rows = [
        (label, *(_cell(name, each) for each in (samples, test))) for name, label in _LABELS.items()
    ]
    return Table("", columns, rows)


def _cell(name: str, statistics: StructureStatistics) -> Cell:
    value: float = getattr(statistics, name)
    if value != value:
        return None
    return percent_text(value) if name in _FRACTIONS else value


def _test_chains(found: FoundModel) -> Traces:
    """The chains of the test split, in A."""
    import torch

    from equivbench.measure.equivariance import default_dataset
    from equivbench.studies.flow_samples.structure import Traces

    source = default_dataset("flow") if found.dataset is None else found.dataset
    split = source.load().split("test")
    batch = split.collate(torch.arange(len(split)))
    return Traces(_ANGSTROM * batch["x1"].double().numpy(), batch["mask"].numpy(), "test chain")


def _draw(found: FoundModel, request: SamplesRequest, real: Traces, device: str) -> Traces:
    """Samples in A, drawn in the precision that the model was trained in."""
    import torch

    from equivbench.measure.caller import Caller, evaluating
    from equivbench.registry import TASKS, resolve
    from equivbench.studies.flow_samples.sampler import sample_backbones
    from equivbench.studies.flow_samples.structure import Traces

    if request.length is None:
        # Evenly over those of the test chains in ascending order.
        known, count = sorted(real.mask.sum(1).tolist()), request.count
        lengths = [known[(2 * index + 1) * len(known) // (2 * count)] for index in range(count)]
    else:
        lengths = [request.length] * request.count
    where = torch.device(device)
    caller = Caller(
        resolve(TASKS.get("flow").factory)(),
        found.model.to(where),
        found.precision or "float32",
        where,
    )
    generator = torch.Generator(where).manual_seed(request.seed)
    with evaluating(found.model):
        x1, mask = sample_backbones(
            lambda **inputs: caller.outputs(inputs),
            lengths,
            generator=generator,
            steps=request.steps,
            method=request.method,
            schedule=request.schedule,
        )
    return Traces(_ANGSTROM * x1.double().cpu().numpy(), mask.cpu().numpy(), "sample")
