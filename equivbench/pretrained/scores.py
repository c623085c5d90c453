"""The symmetry of a pretrained network that scores a complex on a voxel grid: how its affinity
varies with the orientation, split into what was not learned and what is the grid's."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.measure.precision import EPS
from equivbench.pretrained.outcome import WARM_UP, Asked, Outcome
from equivbench.pretrained.processes import NetworkProcess
from equivbench.records.pretrained import GridErrors
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.tasks.archives import verified_content

SHIPPED = Path(__file__).with_name("data") / "complex.npz"
HALF_CELL = 0.25
"""A: half the distance of neighbouring grid points."""
UNIT = "pK^2"
_BATCH, _TIMED = 8, 5
"""Orientations a call, but for the calls that are timed, which are of one each."""
_ONE = "one complex is measured, which has no spread over complexes"
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class BoundComplex:
    """A protein with its ligand, as GNINA's grids take it."""

    name: str
    sha256: str
    positions: Vectors
    """[atoms, 3] A about the centre of the ligand."""
    atoms: Mapping[str, NDArray[Any]]
    """``channels`` [atoms] and ``radii`` [atoms] A."""
    affinity: float
    """Measured, as pK."""
    source: str
    """Of the affinity."""


@dataclass(frozen=True)
class Answers:
    """What a network says of the complex, in pK."""

    turned: Vectors
    """[poses, 24] under random rotations, each followed by those of the cube."""
    moved: Vectors
    """[poses, 8] in each pose, moved by half a cell along none, some or all of the axes."""
    rounded: Vectors
    """[poses] the complex as it is, after a round trip through the pose in float32."""
    plain: float
    """The complex as it is."""


def shipped_complex(path: Path = SHIPPED) -> BoundComplex:
    """The complex of the package; raises ``FailedError`` where the file is broken."""
    content, card = verified_content(path)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        positions = arrays["positions"].astype(np.float64)
        atoms = {name: arrays[name] for name in ("channels", "radii")}
    return BoundComplex(
        card["name"],
        card["sha256"],
        positions,
        atoms,
        card["affinity"]["pk"],
        card["affinity"]["source"],
    )


def measure_scores(process: NetworkProcess, asked: Asked, bound: BoundComplex) -> Outcome:
    """What the network behind ``process`` shows on ``bound``.

    The poses are independent, so that over them and the cube's rotations the law of total variance
    gives the equivariance error: the variance within a pose is under rotations that take grid
    points to grid points, and has nothing to do with the grid.
    """

    def affinities(orientations: Vectors) -> tuple[Vectors, float]:
        answer = process.ask({"positions": orientations.astype(np.float32), **bound.atoms})
        found = answer.get("affinity")
        if found is None or found.shape != orientations.shape[:1] or not np.isfinite(found).all():
            raise FailedError(f"{process.name} gives no finite number for each affinity")
        return found.astype(np.float64), float(answer["seconds"])

    def batched(orientations: Vectors) -> Vectors:
        parts = np.split(orientations, range(_BATCH, len(orientations), _BATCH))
        return np.concatenate([affinities(each)[0] for each in parts])

    answers = _answers(batched, bound.positions, asked)
    seconds = [affinities(bound.positions[None])[1] for _ in range(WARM_UP + _TIMED)]
    return _outcome(answers, bound, seconds[WARM_UP:])


def _answers(affinities: Callable[[Vectors], Vectors], positions: Vectors, asked: Asked) -> Answers:
    generator = torch.Generator().manual_seed(asked.seed)
    poses = random_rotations(asked.poses, generator=generator, dtype=torch.float64).numpy()
    cube = octahedral_rotations(torch.float64).numpy()
    steps = np.array(list(itertools.product((0.0, HALF_CELL), repeat=3)))
    posed = positions @ poses.transpose(0, 2, 1)
    turned = (posed[:, None] @ cube.transpose(0, 2, 1)).reshape(-1, *positions.shape)
    moved = (posed[:, None] + steps[:, None]).reshape(-1, *positions.shape)
    rounded = posed.astype(np.float32).astype(np.float64) @ poses
    return Answers(
        affinities(turned).reshape(len(poses), len(cube)),
        affinities(moved).reshape(len(poses), len(steps)),
        affinities(rounded),
        float(affinities(positions[None])[0]),
    )


def _outcome(answers: Answers, bound: BoundComplex, seconds: list[float]) -> Outcome:
    poses, turns = answers.turned.shape
    learning = float(answers.turned.var(axis=1).mean())
    grid = float(answers.turned.mean(axis=1).var(ddof=1))
    translation = float(answers.moved.var(axis=1).mean())
    total = float(np.square(answers.turned - bound.affinity).mean())
    # What rounding the positions does, and no less than rounding the affinity once.
    rounding = float(np.square(answers.rounded - answers.plain).mean())
    once = float(np.square(answers.turned * EPS["float32"]).mean())
    floor = max(rounding, once) / total
    equivariance = learning + grid
    return Outcome(
        data=bound.name,
        data_sha256=bound.sha256,
        reference=bound.source,
        unit=UNIT,
        samples=1,
        atoms=len(bound.positions),
        rotations=poses * turns,
        group="so3",
        symmetry_verified=None,
        verdict=(
            "none is declared; the standard deviation of the affinity is "
            f"{equivariance**0.5:.2g} pK over rotations, {learning**0.5:.2g} over those of the "
            f"cube, {translation**0.5:.2g} over half-cell translations"
        ),
        total=total,
        twirled=total - equivariance,
        equivariance=equivariance,
        share=equivariance / total,
        share_low=None,
        share_high=None,
        floor=floor,
        explained=None,
        seconds=seconds,
        grid=GridErrors(poses=poses, learning=learning, grid=grid, translation=translation),
        reasons=dict.fromkeys(("share_low", "share_high", "explained"), _ONE),
    )
