"""``equivbench analyze samples``: backbones sampled from a flow model, and their structure beside
real ones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from equivbench.execution.models import FoundModel
    from equivbench.studies.flow_samples.figure import Traces
    from equivbench.studies.flow_samples.structure import StructureStatistics

_ANGSTROM = 10.0
"""Per nm, the unit that models of the task see."""
_ROWS: Mapping[str, tuple[str, str]] = {
    "chains": ("chains", "d"),
    "residues": ("residues", "d"),
    "bond_mean": ("CA-CA distance, mean [A]", ".3f"),
    "bond_std": ("CA-CA distance, standard deviation [A]", ".3f"),
    "bond_near": ("CA-CA distances within 3.8 +- .1 A", ".1%"),
    "clashes": ("clashes (CAs below 3 A) per 100 residues", ".2f"),
    "clashing": ("chains with a clash", ".1%"),
    "radius": ("radius of gyration [A]", ".2f"),
    "relative_radius": ("radius of gyration over 2.2 N^.38 A", ".3f"),
    "helix_right": ("right-handed helix", ".1%"),
    "helix_left": ("left-handed helix", ".1%"),
    "chirality": ("chirality (mirror image: the negative)", "+.3f"),
}


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("samples")(samples)


def samples(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A flow run's record, id or checkpoint, or as `measure` takes it."
        ),
    ],
    count: Annotated[int, typer.Option(help="How many backbones.")] = 32,
    length: Annotated[
        int | None, typer.Option(help="Residues of each (default: lengths of the test chains).")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the ODE.")] = 100,
    method: Annotated[str, typer.Option(help="euler or heun (two calls a step).")] = "euler",
    schedule: Annotated[
        str, typer.Option(help="log (published, steps shrink towards the data) or uniform.")
    ] = "log",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the samples here (.pdb or .npz).")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them into this file (.png, .pdf, .svg).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Sample backbones from a trained flow model and compare their structure with that of the test
    chains."""
    from dataclasses import asdict

    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import UsageError
    from equivbench.execution.machine import resolve_device
    from equivbench.execution.models import find_model
    from equivbench.studies.flow_samples.structure import structure_statistics

    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}")
    if out is not None and out.suffix not in (".pdb", ".npz"):
        raise UsageError(f"--out {out} must end in .pdb or .npz")
    if plot is not None:
        from equivbench.report.figures import require_drawable

        require_drawable(plot)
    where = resolve_device(device)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(model)
        if found.task not in (None, "flow"):
            raise UsageError(
                f"{model} is for task {found.task}; backbones are sampled from models of task flow"
            )
        real = _test_chains(found)
        lengths = (
            [length] * count if length is not None else _spread(real.mask.sum(1).tolist(), count)
        )
        drawn = _draw(
            found, lengths, where, seed, {"steps": steps, "method": method, "schedule": schedule}
        )
    if found.untrained:
        message("note", f"{model} has random weights, so its samples are noise")
    compared = {
        "samples": structure_statistics(drawn.positions, drawn.mask),
        "test": structure_statistics(real.positions, real.mask),
    }
    if out is not None:
        _write(out, drawn)
    if plot is not None:
        from equivbench.studies.flow_samples.figure import plot_structures

        plot_structures(drawn, real, plot, title=f"{found.name}, {steps} {method} steps")
    if as_json:
        settings = {
            "count": count,
            "length": length,
            "steps": steps,
            "method": method,
            "schedule": schedule,
            "seed": seed,
        }
        print_json(
            {
                "model": found.name,
                **settings,
                **{name: _known(asdict(each)) for name, each in compared.items()},
            }
        )
        return
    print_table(["", "samples", "test chains"], [_row(name, compared) for name in _ROWS])
    for path in filter(None, (out, plot)):
        message("written", str(path))


def _row(name: str, compared: Mapping[str, StructureStatistics]) -> list[str]:
    label, form = _ROWS[name]
    return [label, *(format(getattr(each, name), form) for each in compared.values())]


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a number becomes null."""
    return {name: value if value == value else None for name, value in values.items()}


def _spread(lengths: list[int], count: int) -> list[int]:
    """``count`` of ``lengths``, evenly over them in ascending order."""
    ordered = sorted(lengths)
    return [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]


def _test_chains(found: FoundModel) -> Traces:
    """The chains of the test split, in A."""
    import torch

    from equivbench.measure.equivariance import default_dataset
    from equivbench.studies.flow_samples.figure import Traces

    split = (
        (default_dataset("flow") if found.dataset is None else found.dataset).load().split("test")
    )
    batch = split.collate(torch.arange(len(split)))
    return Traces(_ANGSTROM * batch["x1"].double().numpy(), batch["mask"].numpy(), "test chain")


def _draw(
    found: FoundModel, lengths: list[int], device: str, seed: int, options: Mapping[str, Any]
) -> Traces:
    """Samples of these lengths, in A, drawn in the precision that the model was trained in."""
    import torch

    from equivbench.measure.forward import Caller, evaluating
    from equivbench.registry import TASKS, resolve
    from equivbench.studies.flow_samples.figure import Traces
    from equivbench.studies.flow_samples.sampler import sample_backbones

    where = torch.device(device)
    caller = Caller(
        resolve(TASKS.get("flow").factory)(),
        found.model.to(where),
        found.precision or "float32",
        where,
    )
    generator = torch.Generator(where).manual_seed(seed)
    with evaluating(found.model):
        drawn = sample_backbones(
            lambda **inputs: caller.outputs(inputs), lengths, generator=generator, **options
        )
    return Traces(_ANGSTROM * drawn.x1.double().cpu().numpy(), drawn.mask.cpu().numpy(), "sample")


def _write(path: Path, drawn: Traces) -> None:
    if path.suffix == ".pdb":
        from equivbench.studies.flow_samples.structure import write_pdb

        write_pdb(path, drawn.positions, drawn.mask)
        return
    import io

    import numpy as np

    from equivbench.records.files import write_atomically

    content = io.BytesIO()
    np.savez_compressed(content, positions=drawn.positions.astype(np.float32), mask=drawn.mask)
    write_atomically(path, content.getvalue())
