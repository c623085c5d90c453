"""The program that runs in a network's own environment: it loads the network, then answers
questions until its input ends. It needs numpy and what the network needs, nothing of equivbench.

A message is a line ``equivbench``, 8 bytes of length, and that many bytes of a .npz archive. One
with ``load`` says what to load, in place of what was loaded before; others go to what is loaded.
The answer to each is arrays, or ``error``, a text, after which the program ends.
"""

import importlib
import importlib.metadata
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"equivbench\n"
Arrays = Mapping[str, NDArray[Any]]
Answering = Callable[[Arrays], dict[str, Any]]


def called(what: Any) -> Any:
    """What the call ``what`` gives, its arguments called first; anything else is a value."""
    if not isinstance(what, dict) or "call" not in what:
        return what
    module, _, path = what["call"].partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found(**{name: called(each) for name, each in what["arguments"].items()})


def forces_of(calculator: Any) -> Answering:
    """Answers ``numbers`` [atoms], ``positions`` [atoms, 3] A and maybe ``cell`` [3, 3] A and
    ``pbc`` [3] with ``forces`` [atoms, 3] eV/A of an ASE calculator, and ``seconds``."""
    from ase import Atoms

    if "torch" in sys.modules:
        # Sums of several threads otherwise come in another order each time: a difference in the
        # last digits that is no property of the network, and that leaves no verdict on it.
        torch = sys.modules["torch"]
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False

    def answer(asked: Arrays) -> dict[str, Any]:
        periodic = {name: asked[name] for name in ("cell", "pbc") if name in asked}
        atoms = Atoms(asked["numbers"], positions=asked["positions"], **periodic)
        if hasattr(calculator, "reset"):
            calculator.reset()  # or the same atoms again would be answered from its memory
        start = time.perf_counter()
        atoms.calc = calculator
        forces = np.asarray(atoms.get_forces())
        return {"forces": forces, "seconds": time.perf_counter() - start}

    return answer


RESOLUTION, SIDE = 0.5, 23.5
"""A: of the grids that GNINA's networks were trained on."""
CHANNELS = 28
"""Of these grids: 14 kinds of atoms of the receptor, 14 of the ligand."""


def scores_of(network: Any) -> Answering:
    """Answers ``positions`` [orientations, atoms, 3] A about the grid's centre, ``channels``
    [atoms] and ``radii`` [atoms] A of a complex with the ``affinity`` [orientations] that one of
    GNINA's networks predicts, and ``seconds``."""
    import molgrid
    import torch

    network.eval()
    grids = molgrid.GridMaker(resolution=RESOLUTION, dimension=SIDE)
    shape = tuple(grids.grid_dimensions(CHANNELS))

    def answer(asked: Arrays) -> dict[str, Any]:
        start = time.perf_counter()
        positions, channels, radii = (
            torch.from_numpy(np.ascontiguousarray(asked[name], dtype=np.float32))
            for name in ("positions", "channels", "radii")
        )
        found = torch.zeros((len(positions), *shape), dtype=torch.float32)
        for orientation, grid in zip(positions, found, strict=True):
            # What is written into must be a grid, not a tensor that becomes one for the call.
            view = molgrid.Grid4f(molgrid.tofloatptr(grid.data_ptr()), *shape)
            grids.forward((0.0, 0.0, 0.0), orientation, channels, radii, view)
        with torch.no_grad():
            _, affinity = network(found)
        return {
            "affinity": affinity.reshape(len(positions)).double().numpy(),
            "seconds": time.perf_counter() - start,
        }

    return answer


DOORS: dict[str, Callable[[Any], Answering]] = {"forces": forces_of, "scores": scores_of}


def versions(names: list[str]) -> dict[str, str]:
    """Of those packages that are installed here."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read(questions: BinaryIO) -> dict[str, NDArray[Any]] | None:
    """The next message, or None at the end."""
    head = questions.read(len(MAGIC) + 8)
    if len(head) < len(MAGIC) + 8:
        return None
    data = questions.read(int.from_bytes(head[len(MAGIC) :], "big"))
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def write(answers: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Send one message."""
    buffer = io.BytesIO()
    found = {name: np.asarray(each) for name, each in arrays.items()}
    np.savez(buffer, **found)  # type: ignore[arg-type]  # names are no keywords of it
    data = buffer.getvalue()
    answers.write(MAGIC + len(data).to_bytes(8, "big") + data)
    answers.flush()


def main() -> None:
    """Answer messages until there are no more."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Whatever a package prints goes to the log, and none can read the questions.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    answer: Answering | None = None
    try:
        while (asked := read(questions)) is not None:
            if "load" in asked or answer is None:
                load = json.loads(str(asked["load"]))
                answer = DOORS[load["door"]](called(load["network"]))
                about = {"packages": versions(load["packages"])}
                write(answers, {"about": json.dumps(about)})
            else:
                write(answers, answer(asked))
    # A network is somebody's code, which may raise anything.
    except Exception as error:
        write(answers, {"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    # The last line of the log is what the other side shows.
    sys.excepthook = lambda kind, error, _: sys.stderr.write(f"{kind.__name__}: {error}\n")
    main()
