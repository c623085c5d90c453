"""Verifies a symmetry on the test set: chooses the probes, has them predicted, and takes them again
where the error is largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.measure.caller import Caller
from equivbench.measure.checks import check_companions
from equivbench.measure.elements import elements_for
from equivbench.measure.measurement import Verdict
from equivbench.measure.passes import PassErrors
from equivbench.measure.precision import EvaluationPrecision
from equivbench.measure.rotated_set import Chunk, RotatedSet, spread
from equivbench.measure.verification import (
    Floor,
    Probes,
    by_interpolation,
    by_precision,
    covers,
    interpolation_floor,
    nothing_to_verify,
    probe,
)
from equivbench.specs import Group
from equivbench.symmetry.decomposition import sum_by_group
from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.base import Task


@dataclass(frozen=True)
class Verifier:
    """How the symmetry of models is verified on one test set."""

    task: Task
    group: Group
    """That the test set is rotated by."""
    promised: Group
    """That the verdict is about."""
    samples: Tensor
    """[samples] indices into the split."""
    groups: Tensor
    """[samples] the independent unit of each."""
    count: int
    """How many samples are probed."""
    seed: int
    rotated: Callable[..., RotatedSet]
    """The rotated set of some samples: ``rotated(samples, matrices, precision, batch_size,
    round_trip)``."""

    def verify(
        self, caller: Caller, judged: PassErrors, linear: Callable[[], PassErrors | None]
    ) -> tuple[Floor | None, Verdict]:
        """The floor of the share, and whether the promised symmetry holds.

        ``judged``: the errors of the model behind ``caller`` on all samples; ``linear`` gives those
        of the task's linear baseline, where it has one.
        """
        task, promised, share = self.task, self.promised, judged.errors.share
        probes = self._probes(caller, self._chosen())
        if probes.deterministic:
            self.check_companions(caller)
        floor = probes.floor() if probes.deterministic else None
        if task.interpolates and self.group != "octahedral":
            reference = linear()
            floor = (
                None
                if reference is None
                else interpolation_floor(reference.errors, judged.errors, judged.strata)
            )
        objection = nothing_to_verify(probes)
        if objection is not None:
            return floor, objection
        if self._by_interpolation:
            if not covers(promised, self.group):
                return floor, Verdict(
                    None, f"{promised} is declared, and more than that was measured on a grid"
                )
            verdict = by_interpolation(share, floor, self.group)
            if verdict.holds and promised != self.group:
                inverted = by_precision(probes, None, "inversion")
                verdict = Verdict(inverted.holds, f"{verdict.reason}; {inverted.reason}")
            return floor, verdict
        covered = covers(promised, self.group)
        verdict = by_precision(probes, share if covered else None, promised)
        if verdict.holds and covered and floor is not None and share > floor.allowed:
            # Few probes may have missed what is rare, such as a molecule without a unique frame.
            probes = self._probes(caller, self._worst(judged))
            verdict = by_precision(probes, None, f"{promised} where the error is largest")
        if verdict.holds and task.interpolates and promised != "octahedral":
            only = f"{promised} is declared and only the cube's rotations were made"
            verdict = Verdict(None, f"{only}; {verdict.reason}")
        return floor, verdict

    @property
    def _by_interpolation(self) -> bool:
        """Whether the elements of the group that tell are not exact on the task's grid."""
        return self.task.interpolates and "octahedral" not in (self.group, self.promised)

    def _probes(self, caller: Caller, samples: Tensor) -> Probes:
        """Passes over ``samples`` under two elements of the promised group each."""
        group, count = self.promised, len(samples) * self.task.test_points
        rotations = elements_for("so3", 2, count, self.seed).matrices
        identity = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
        if self._by_interpolation:
            rotations = torch.stack((identity, identity))
        elif self.task.interpolates or group == "octahedral":
            # Quarter turns about different axes, which make the whole group between them.
            elements = octahedral_rotations(torch.float64)
            turns = elements[elements.diagonal(dim1=1, dim2=2).sum(1) == 1]
            rotations = torch.stack((identity, turns[torch.arange(count) % len(turns)]))
        if group == "o3":
            rotations = rotations * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)

        def made(precision: EvaluationPrecision, round_trip: bool = False) -> Chunk:
            return next(iter(self.rotated(samples, rotations, precision, len(samples), round_trip)))

        own = caller.precision
        needed = not self._by_interpolation or group != self.group
        return probe(
            caller,
            made(own),
            (lambda: made("float32" if own == "float64" else "float64")) if needed else None,
            lambda: made(own, round_trip=True),
        )

    def check_companions(self, caller: Caller) -> None:
        """Raises ``ModelError`` where what the model predicts for a probe depends on the others."""
        samples = self._chosen()
        count = len(samples) * self.task.test_points
        as_they_are = torch.eye(3, dtype=torch.float64).expand(1, count, 3, 3)
        chunks = self.rotated(samples, as_they_are, batch_size=len(samples))
        check_companions(caller, next(iter(chunks)))

    def _worst(self, judged: PassErrors) -> Tensor:
        """Samples of the groups with the largest equivariance errors."""
        sums = sum_by_group(judged.errors.equivariance, judged.errors.groups)
        rank = torch.empty_like(sums).scatter_(
            0, sums.argsort(descending=True), torch.arange(len(sums)).to(sums)
        )
        _, index = torch.unique(self.groups, return_inverse=True)
        chosen = rank.cpu()[index].sort(stable=True).indices[: self.count]
        return self.samples[chosen].sort().values

    def _chosen(self) -> Tensor:
        return self.samples[spread(self.groups, self.count)]
