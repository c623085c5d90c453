"""A measurement through files, for what cannot be imported here: the rotated inputs are written,
any program predicts for them, and its predictions are read back and measured.

``.npz``: every call's inputs as ``N/NAME``. ``.xyz`` or ``.extxyz``: one frame a molecule and
rotation, for tasks of atoms. Both hold what the inputs are made from, so that the predictions are
measured against the very same.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equivbench.errors import FailedError, IncomparableError, UsageError
from equivbench.measure.equivariance import dataset_named, default_dataset_name
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import Measurement
from equivbench.records.files import write_atomically
from equivbench.registry import TASKS, resolve
from equivbench.specs import By, Group
from equivbench.tasks.archives import cannot_be_read
from equivbench.tasks.base import Task
from equivbench.tasks.forcefield.extended_xyz import Frame, frame_lines, frames

MOST_BYTES = 4 * 2**30
"""Of the inputs of one file, which are in memory while they are written."""
_ABOUT = "about"
_XYZ = (".xyz", ".extxyz")
_PREFIX = "equivbench_"
_SAME = 1e-4
"""A: how far positions and cells that a program wrote back may be from those that it was given."""


class About(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the inputs of a file are made from."""

    task: str
    dataset: str
    split: str
    group: Group
    rotations: int | str
    """Draws of each sample, or ``quadrature:DEGREE``."""
    seed: int
    samples: int | None
    requires: dict[str, float]
    calls: int = 0
    sha256: str = ""
    """Of all inputs, in order."""


def export_inputs(
    path: Path, about: About, told: Callable[[int, int], None] = lambda calls, size: None
) -> About:
    """Write the rotated inputs that ``about`` asks for to ``path``; returns it with their number
    and checksum. ``told`` is called with the number of calls and about the bytes of their inputs
    before these are made.

    Raises ``UsageError`` for a suffix that is none of .npz, .xyz, .extxyz, for names that are not
    registered, for inputs of more than ``MOST_BYTES`` and for a task that feeds a model's output
    back; ``FailedError`` where the disk or
    the data set refuses.
    """
    if path.suffix not in (".npz", *_XYZ):
        raise UsageError(f"--export {path}: a file of inputs ends in .npz, .xyz or .extxyz")
    evaluator = _evaluator(about)[1]
    calls = _bounded_calls(evaluator, told)
    about = msgspec.structs.replace(about, calls=len(calls), sha256=_sha256(calls))
    content = _npz(about, calls) if path.suffix == ".npz" else _xyz(about, calls)
    write_atomically(path, content)
    return about


def measure_predictions(path: Path, by: By = "stratum") -> tuple[About, Measurement]:
    """What the predictions in ``path`` say, made by any program for inputs that
    :func:`export_inputs` wrote.

    ``.npz``: ``about`` as it was in the file of inputs, and each output either by call, as
    ``N/NAME``, or as one array NAME of all rows in their order. ``.xyz``: the frames of the file of
    inputs, with ``forces`` a column and ``energy`` in the header, which is not compared. ``by``:
    what the parts of the measurement are of, anything but ``layer``.

    Raises ``FailedError`` for a file that cannot be read, or whose predictions are too few, too
    many, not finite or in another order; ``IncomparableError`` where the inputs here are not those
    that they were made for.
    """
    if by == "layer":
        raise UsageError("a file of predictions tells nothing of layers; choose another --by")
    found: list[Frame] = []
    if path.suffix == ".npz":
        about, outputs = _read_npz(path)
    else:
        found = list(frames(path, periodic=True))
        about, outputs = _read_xyz(path, found)
    task, evaluator = _evaluator(about, by)
    calls = _bounded_calls(evaluator) if evaluator.calls == about.calls else []
    if len(calls) != about.calls or _sha256(calls) != about.sha256:
        raise IncomparableError(
            f"the inputs that {path} was made for are not those of {about.dataset} here: another "
            "version of the data, of equivbench or of torch; export them again"
        )
    if task.prediction not in outputs:
        raise FailedError(
            f"{path} holds no {task.prediction!r}, the prediction of task {task.name}; it has "
            f"{', '.join(outputs) or 'no predictions'}"
        )
    rows = [len(_rows(task, inputs)) for inputs in calls]
    predictions = _by_call(path, task.prediction, outputs[task.prediction], rows)
    _check_order(path, found, calls)
    replayed = _Replayed([{task.prediction: each} for each in predictions])
    return about, evaluator.evaluate(replayed, floor=False)


class _Replayed(nn.Module):
    """Gives the predictions of a file, call by call."""

    def __init__(self, answers: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return next(self._answers)


def _evaluator(about: About, by: By = "stratum") -> tuple[Task, Evaluator]:
    task: Task = resolve(TASKS.get(about.task).factory)()
    if task.feedback is not None:
        raise UsageError(
            f"task {task.name} feeds a model's output {task.feedback.output!r} back as an input, "
            "so its inputs cannot be written before the model is there"
        )
    data = dataset_named(about.dataset, about.task).load()
    return task, Evaluator(
        task,
        data.split(about.split),
        requires=about.requires,
        rotations=about.rotations,
        group=about.group,
        seed=about.seed,
        samples=about.samples,
        by=by,
        untrained=lambda: task.untrained(data),
    )


def asked(
    task: str | None,
    *,
    dataset: str | None = None,
    split: str,
    group: Group,
    rotations: int | str,
    seed: int,
    samples: int | None,
) -> About:
    """What the options of the command ask for, on ``dataset`` or the task's default data set."""
    if task is None:
        raise UsageError("say which task the inputs are of, with --task")
    TASKS.get(task)
    return About(
        task=task,
        dataset=default_dataset_name(task) if dataset is None else dataset,
        split=split,
        group=group,
        rotations=rotations,
        seed=seed,
        samples=samples,
        requires=_on_request(task),
    )


def _on_request(task: str) -> dict[str, float]:
    """What the inputs hold that not every model is given: the cells of periodic data."""
    return {"cell": 1.0} if task == "forcefield" else {}


def _bounded_calls(
    evaluator: Evaluator, told: Callable[[int, int], None] = lambda calls, size: None
) -> list[dict[str, NDArray[Any]]]:
    calls: list[dict[str, NDArray[Any]]] = []
    for inputs in evaluator.inputs():
        calls.append({name: tensor.cpu().numpy() for name, tensor in inputs.items()})
        if len(calls) > 1:
            continue
        # Calls are about alike: the first one tells what all take.
        size = evaluator.calls * sum(each.nbytes for each in calls[0].values())
        if size > MOST_BYTES:
            raise UsageError(
                f"{evaluator.calls} calls have inputs of about {size / 2**30:.0f} GiB, more than "
                f"the {MOST_BYTES // 2**30} that a file may hold; ask for fewer with --samples or "
                "--rotations"
            )
        told(evaluator.calls, size)
    return calls


def _rows(task: Task, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """An input with a row for each row of the prediction."""
    per = {field.name: field.per for field in task.fields}
    return next(tensor for name, tensor in inputs.items() if per.get(name) == per[task.prediction])


def _sha256(calls: list[dict[str, NDArray[Any]]]) -> str:
    digest = hashlib.sha256()
    for inputs in calls:
        for name, values in inputs.items():
            digest.update(f"{name} {values.dtype} {values.shape} ".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


# --- .npz


def _npz(about: About, calls: list[dict[str, NDArray[Any]]]) -> bytes:
    arrays = {
        f"{number}/{name}": each for number, one in enumerate(calls) for name, each in one.items()
    }
    buffer = io.BytesIO()
    arrays[_ABOUT] = np.array(msgspec.json.encode(about).decode())
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # names are no keywords of it
    return buffer.getvalue()


_DAMAGED = (
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    # Encrypted, or packed in a way that Python does not know.
    RuntimeError,
    NotImplementedError,
    msgspec.DecodeError,
)


def _read_npz(path: Path) -> tuple[About, dict[str, list[NDArray[Any]]]]:
    outputs: dict[str, dict[int, NDArray[Any]]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > MOST_BYTES:
            raise FailedError(
                f"{path} unpacks to {unpacked / 2**30:.0f} GiB, more than the "
                f"{MOST_BYTES // 2**30} that a file may hold"
            )
        with np.load(path, allow_pickle=False) as arrays:
            about = msgspec.json.decode(str(arrays[_ABOUT]), type=About)
            for key in arrays.files:
                call, slash, name = key.partition("/")
                if key != _ABOUT:
                    outputs.setdefault(name if slash else key, {})[int(call) if slash else 0] = (
                        arrays[key]
                    )
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except _DAMAGED as error:
        raise FailedError(
            f"{path} is no file of predictions ({error}): it holds 'about' as the file of inputs "
            "does, and the outputs by name"
        ) from error
    return about, {name: [found[call] for call in sorted(found)] for name, found in outputs.items()}


# --- extended XYZ


def _xyz(about: About, calls: list[dict[str, NDArray[Any]]]) -> bytes:
    facts = msgspec.to_builtins(about)
    header = " ".join(
        f"{_PREFIX}{name}={value}" for name, value in facts.items() if not isinstance(value, dict)
    )
    lines, frame = [], 0
    for inputs in calls:
        if not {"z", "pos", "batch"} <= inputs.keys():
            raise UsageError(
                f"task {about.task} is not one of atoms, which extended XYZ holds; export .npz"
            )
        for molecule in range(int(inputs["batch"][-1]) + 1):
            own = inputs["batch"] == molecule
            cell = {name: inputs[name][molecule] for name in ("cell", "pbc") if name in inputs}
            info = f"{header} {_PREFIX}frame={frame}"
            lines += frame_lines(inputs["z"][own], inputs["pos"][own], info, **cell)
            frame += 1
    return ("\n".join(lines) + "\n").encode()


def _read_xyz(path: Path, found: list[Frame]) -> tuple[About, dict[str, list[NDArray[Any]]]]:
    """What the predictions were made for, and the forces; ``found`` are the frames of ``path``."""
    about: About | None = None
    for number, frame in enumerate(found):
        facts: dict[str, Any] = {
            name.removeprefix(_PREFIX): value
            for name, value in frame.info.items()
            if name.startswith(_PREFIX)
        }
        if facts.pop("frame", None) != str(number):
            raise FailedError(
                f"frame {number} of {path} does not say {_PREFIX}frame={number}: predictions come "
                "in the order of the inputs, with what their headers say"
            )
        if facts.get("rotations", "").isdigit():
            facts["rotations"] = int(facts["rotations"])
        try:
            told = msgspec.convert(
                {
                    **facts,
                    "samples": None if facts.get("samples") == "None" else facts.get("samples"),
                    "requires": _on_request(facts.get("task", "")),
                },
                About,
                strict=False,
            )
        except msgspec.ValidationError as error:
            raise FailedError(f"the header of frame {number} of {path}: {error}") from error
        if about not in (None, told):
            raise FailedError(f"frame {number} of {path} is of other inputs than the frames before")
        about = told
    if about is None:
        raise FailedError(f"{path} holds no frame")
    # Energies have a zero of their own in every program, so they are not compared.
    return about, {"forces": [np.concatenate([frame.forces for frame in found])]}


def _check_order(path: Path, found: list[Frame], calls: list[dict[str, NDArray[Any]]]) -> None:
    """Raise ``FailedError`` where a frame is not of the molecule and rotation it stands for."""
    wanted = (
        (
            inputs["z"][inputs["batch"] == each],
            inputs["pos"][inputs["batch"] == each],
            inputs["cell"][each] if "cell" in inputs else None,
        )
        for inputs in calls
        for each in range(int(inputs["batch"][-1]) + 1)
    )
    for number, (frame, (z, pos, cell)) in enumerate(zip(found, wanted, strict=False)):
        same = np.array_equal(frame.z, z)
        if not (same and _near(frame.pos, pos) and _near(frame.cell, cell)):
            raise FailedError(
                f"frame {number} of {path} is not the structure that was exported there: keep the "
                "order of frames and atoms, the orientation and the cell, and wrap no atoms into it"
            )


def _near(found: NDArray[Any] | None, wanted: NDArray[Any] | None) -> bool:
    """Whether what a program wrote back is what it was given, or both are nothing."""
    if found is None or wanted is None:
        return found is wanted
    return found.shape == wanted.shape and bool(abs(found - wanted).max() <= _SAME)


# ---


def _by_call(path: Path, name: str, found: list[NDArray[Any]], rows: list[int]) -> list[Tensor]:
    """The predictions of each call, as they are or as parts of one array of all rows."""
    if not all(isinstance(each, np.ndarray) and each.ndim for each in found):
        raise FailedError(f"{name!r} in {path} is no array of rows")
    if not all(np.issubdtype(each.dtype, np.floating) for each in found):
        raise FailedError(f"{name!r} in {path} is not floating point")
    if not all(bool(np.isfinite(each).all()) for each in found):
        raise FailedError(f"{name!r} in {path} is not finite everywhere")
    if len(found) == 1 and len(rows) > 1:
        total = sum(rows)
        if len(found[0]) != total:
            raise FailedError(
                f"{name!r} in {path} has {len(found[0])} rows where the inputs have {total}"
            )
        return [torch.from_numpy(each) for each in np.split(found[0], np.cumsum(rows)[:-1])]
    if len(found) != len(rows):
        raise FailedError(
            f"{name!r} in {path} is given for {len(found)} of {len(rows)} calls; write every one"
        )
    return [torch.from_numpy(np.ascontiguousarray(each)) for each in found]
