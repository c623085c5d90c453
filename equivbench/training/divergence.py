"""Whether an arm has diverged: a loss, gradient norm or evaluation that is not a finite number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from equivbench.measure.equivariance import Measurement


class DivergenceWatch:
    """Collects losses and gradient norms without waiting for the device; :meth:`verdict` waits once
    and judges them all.

    NaN and inf survive summation, so a sum over the steps since the last verdict is enough.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._norm: Tensor | None = None
        self._count = 0
        self.recent: float | None = None
        """Mean training objective of recent steps."""

    def see(self, loss: Tensor, norm: Tensor) -> None:
        """Take note of one step."""
        self._loss = loss if self._loss is None else self._loss + loss
        self._norm = norm if self._norm is None else self._norm + norm
        self._count += 1

    def verdict(self, step: int) -> str | None:
        """Why the steps since the last verdict, which end at ``step``, mean divergence; None if
        they do not."""
        if self._loss is None or self._norm is None:
            return None
        loss, norm = torch.stack((self._loss.double(), self._norm.double())).tolist()
        count = self._count
        self.forget()
        where = f"at step {step}" if count == 1 else f"in steps {step - count + 1} to {step}"
        if not math.isfinite(loss):
            return f"the loss is {loss} {where}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm} {where}"
        self.recent = (
            loss / count
            if self.recent is None
            else self.recent + 0.1 * (loss / count - self.recent)
        )
        return None

    def forget(self) -> None:
        """Drop what was seen since the last verdict."""
        self._loss = self._norm = None
        self._count = 0

    @staticmethod
    def of_measurement(measurement: Measurement, step: int) -> str | None:
        """Why an evaluation after ``step`` steps means divergence; None if it does not."""
        for name in ("objective", "total", "twirled", "equivariance"):
            value = getattr(measurement, name)
            if value is not None and not math.isfinite(value):
                return f"the evaluation's {name} is {value} after {step} steps"
        return None
