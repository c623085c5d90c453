"""A task of Ray: one unit of a plan on the node that Ray chose. Imports no Ray."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from equivbench.environment import cache_dir
from equivbench.errors import EquivbenchError
from equivbench.execution.interrupt import Interrupt
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.unit import run_unit_of
from equivbench.records.files import write_atomically


class Sent(msgspec.Struct, kw_only=True, frozen=True):
    """What goes to a node."""

    unit: Unit
    results: str
    """The results folder of the process that planned it, which the node may see or not."""
    owner: str
    """Of leases: one for each process that plans, which leaves a file of this name in its plan's
    folder (:func:`mark`)."""


class SentBack(msgspec.Struct, kw_only=True, frozen=True):
    """What comes back."""

    seen: bool
    """Whether the node sees the results folder, so that everything is there already."""
    failure: str | None = None
    """What went wrong, as a sentence."""
    files: dict[str, str] = {}
    """Records and weights beside them, by their names in the results folder, in base 64."""
    unit: Unit | None = None
    """The unit with its attempts."""


def run_sent(message: bytes) -> bytes:
    """Run the unit of a :class:`Sent`, and give the :class:`SentBack`."""
    sent = msgspec.json.decode(message, type=Sent)
    seen = mark(PlanFolder(sent.results), sent.owner).is_file()
    # The same place each time: a task that is begun again on this node goes on there.
    own = cache_dir() / "ray" / sent.unit.digest / sent.unit.name
    folder = PlanFolder(sent.results if seen else own)
    path = folder.path(sent.unit.digest)
    if not path.is_file():
        write_atomically(path, msgspec.json.encode(sent.unit))
    failure = None
    try:
        run_unit_of(path, sent.owner, Interrupt())
    except EquivbenchError as error:
        failure = str(error)
    back = SentBack(seen=seen, failure=failure)
    if not seen:
        back = msgspec.structs.replace(
            back, files=_files_of(folder.results), unit=folder.read(sent.unit.digest)
        )
    return msgspec.json.encode(back)


def mark(folder: PlanFolder, owner: str) -> Path:
    """The file by which a node tells that it sees the very folder of the process that planned."""
    return folder.folder / f".{owner.replace(':', '-')}"


def _files_of(results: Path) -> dict[str, str]:
    """All records in ``results``, which holds those of one unit, and the weights beside them."""
    found = (path for path in results.glob("*/*/*/*/*") if path.is_file())
    return {
        path.relative_to(results).as_posix(): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(found)
    }
