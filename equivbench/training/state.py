"""Everything that a run is at a step: the live tensors, and the plain facts that go beside them
into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from equivbench.records.schema import Test, TracePoint
from equivbench.training.ema import Average
from equivbench.training.optimiser import named_state

if TYPE_CHECKING:
    from equivbench.measure.equivariance import Measurement


class GroupTrace(msgspec.Struct):
    """Errors by independent group at each trace point (see
    :class:`equivbench.records.schema.GroupErrors`)."""

    weights: list[float] = []
    total: list[list[float]] = []
    equivariance: list[list[float]] = []

    def add(self, measurement: Measurement) -> None:
        """Append one evaluation."""
        self.weights = measurement.group_weights.tolist()
        self.total.append(measurement.group_total.tolist())
        self.equivariance.append(measurement.group_equivariance.tolist())


class Facts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The part of a run's state that is not tensors. There is no generator state: see
    ``training.streams``."""

    identity: dict[str, Any]
    """What must agree for a checkpoint to belong to a run."""
    job: dict[str, Any]
    """The :class:`equivbench.training.job.Job` that wrote it, for rebuilding the model."""
    step: int = 0
    samples: int = 0
    clock: dict[str, float] = {}
    budget: str
    extends: str | None = None
    points: list[float]
    """Spent budget of the evaluations still to come."""
    trace: list[TracePoint] = []
    groups: GroupTrace = msgspec.field(default_factory=GroupTrace)
    verified: bool | None = None
    """Whether the declared symmetry held at the last evaluation."""
    diverged: str | None = None
    restarts: int = 0
    lost_seconds: float = 0.0
    joules: float | None = None

    @property
    def finished(self) -> bool:
        """The budget is spent and the last evaluation made, or the arm diverged."""
        return self.diverged is not None or not self.points

    @property
    def final(self) -> Test | None:
        """The last evaluation, if there was one."""
        return self.trace[-1].test if self.trace else None


def live_tensors(
    model: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights, buffers, averaged weights and optimiser state by name; writing into them changes the
    run."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    parts: dict[str, Mapping[str, Tensor]] = {
        "model": {**weights, **buffers},
        "ema": average.average,
        "optimizer": named_state(optimizer, model),
    }
    return {
        f"{part}.{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def put_back(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write ``values`` into the live ``tensors`` of the same names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])
