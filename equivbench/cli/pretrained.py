"""``equivbench pretrained``: the symmetry decomposition of public pretrained networks, as one
table."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from equivbench.cli.ending import ending_by_signal
from equivbench.cli.options import takes
from equivbench.cli.output import Exit, message, print_json, print_table
from equivbench.errors import EquivbenchError, FailedError, UsageError, unknown_name
from equivbench.pretrained.networks import NETWORKS, PretrainedNetwork, chosen
from equivbench.records.line_files import PRETRAINED_FILE
from equivbench.report.table import Column, Table
from equivbench.request import THREADS, Request, option

if TYPE_CHECKING:
    from equivbench.records.pretrained import PretrainedMeasurement

GROUPS = ("so3", "o3")


@dataclass(frozen=True, kw_only=True)
class PretrainedRequest(Request):
    """What ``equivbench pretrained`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("pretrained",)

    networks: tuple[str, ...] = option(
        (),
        "Networks or families (default: those whose weights come inside a package). "
        "--list says which there are.",
        flag=None,
        metavar="[NAME]...",
        completes=tuple(NETWORKS),
    )
    samples: int = option(16, "Molecules or crystals, spread over the test split.")
    rotations: int = option(4, "Rotations drawn for each of them.")
    group: str = option("so3", "so3, or o3 with reflections; of force fields.", completes=GROUPS)
    poses: int = option(
        4, "Random orientations of a complex on a grid; each is turned by the cube's 24 rotations."
    )
    seed: int = option(0, "Seed of rotations and poses.")
    threads: int | None = option(None, f"{THREADS}.")
    weights: str | None = option(
        None, "A file of weights, for a network that takes one (escaip).", recorded=False
    )
    out: str | None = option(None, "Keep the measurements in this results folder.", recorded=False)


@takes(PretrainedRequest)
def pretrained(
    request: PretrainedRequest,
    list_them: Annotated[
        bool, typer.Option("--list", help="Say which networks there are, and measure none.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Make the environments, load each network once, which fetches its weights, and "
            "measure none: afterwards no network connection is needed.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, one a network.")
    ] = False,
) -> None:
    """Measure public pretrained networks: how much of their error is a symmetry error, what a call
    costs, and what averaging over rotations would buy.

    Each runs in an environment of its own, which is made in the cache when it is first asked for;
    that, and weights that are not inside a package, take a network connection. One that cannot be
    measured is said so and the others go on: exit 3.
    """
    found = chosen(request.networks)
    if list_them:
        print_table(_networks_table([each.name for each in found]), json=as_json)
        return
    _check(request, found)
    from equivbench.execution.plan import default_threads
    from equivbench.pretrained.measuring import Campaign
    from equivbench.pretrained.outcome import Asked

    threads = request.threads or default_threads()
    import torch

    torch.set_num_threads(threads)
    campaign = Campaign(
        asked=Asked(
            samples=request.samples,
            rotations=request.rotations,
            group="o3" if request.group == "o3" else "so3",
            poses=request.poses,
            seed=request.seed,
        ),
        threads=threads,
        command=request.command(recorded=True),
        weights=None if request.weights is None else str(Path(request.weights).resolve()),
        said=_say,
    )
    lines: list[PretrainedMeasurement] = []
    ready: list[str] = []
    refused: set[str] = set()
    """What was said: an environment that cannot be made is one sentence for all its networks."""
    interrupted = False
    results = campaign.preparations(found) if prepare else campaign.measurements(found)
    with ending_by_signal(), contextlib.closing(results):
        try:
            # Packages print and warn as they are used; stdout is for the result.
            with contextlib.redirect_stdout(sys.stderr):
                for network, result in results:
                    if isinstance(result, EquivbenchError):
                        if str(result) not in refused:
                            _say("")
                            message("error", _sentence(network.name, result))
                        refused.add(str(result))
                    elif isinstance(result, dict):
                        ready.append(network.name)
                    else:
                        lines.append(result)
                        if request.out is not None:
                            PRETRAINED_FILE.keep([result], Path(request.out))
        except KeyboardInterrupt:
            interrupted = True
    _say("")
    if prepare and as_json:
        print_json([{"name": name} for name in ready])
    elif prepare:
        typer.echo(f"ready: {', '.join(ready) or 'none'}")
    elif as_json:
        print_json(lines)
    elif lines:
        from equivbench.report.pretrained import pretrained_table

        print_table(pretrained_table(lines))
    if interrupted:
        done = len(ready) if prepare else len(lines)
        what = "ready" if prepare else "measured"
        message("error", f"interrupted; {done} of {len(found)} networks are {what}")
        raise typer.Exit(Exit.INTERRUPTED)
    if refused:
        raise typer.Exit(Exit.FAILED)


def _check(request: PretrainedRequest, networks: list[PretrainedNetwork]) -> None:
    """Raise ``UsageError`` for numbers that make no sense and weights that are not given,
    ``FailedError`` for weights that are not there."""
    least = {"samples": 1, "rotations": 2, "poses": 2, "seed": 0}
    for name, smallest in least.items():
        if getattr(request, name) < smallest:
            raise UsageError(f"--{name} must be at least {smallest}, not {getattr(request, name)}")
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"--threads must be at least 1, not {request.threads}")
    if request.group not in GROUPS:
        raise unknown_name("group", request.group, GROUPS)
    if request.weights is not None and not Path(request.weights).is_file():
        raise FailedError(f"{request.weights} is not there; give a file of weights")
    lacking = [each.name for each in networks if each.load.takes_weights]
    if lacking and request.weights is None:
        raise UsageError(
            f"the weights of {lacking[0]} are not in any package; give their file with --weights"
        )


def _sentence(name: str, error: EquivbenchError) -> str:
    """Why the network ``name`` was not measured."""
    said = str(error)
    return said if name in said.split(":")[0] else f"{name}: {said}"


def _networks_table(names: list[str]) -> Table:
    from equivbench.pretrained.environments import is_made

    rows = []
    for each in (NETWORKS[name] for name in names):
        rows.append(
            [
                each.name,
                each.family.name,
                each.symmetry,
                each.dataset,
                "with the package" if each.offline else "fetched",
                "made" if is_made(each.family) else "not yet",
                each.summary,
            ]
        )
    columns = (
        Column("name", key=True),
        *map(Column, ("family", "declared", "data", "weights", "environment")),
        Column("summary", wraps=True),
    )
    return Table("", columns, rows)


def _say(text: str) -> None:
    """What happens now, on a terminal only, in one line that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
