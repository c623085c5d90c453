"""The flow-matching task: the end point of a noisy protein backbone (CA atoms), and how well it is
predicted over all times."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.tasks.base import Feedback, Split, Task, TaskData
from equivbench.tasks.flow.declarations import BOARD_UNIT, FIELDS
from equivbench.tasks.flow.schedule import (
    TIMES,
    board_quadrature,
    centred,
    draw_times,
    interpolate,
    objective_quadrature,
    objective_weight,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from equivbench.tasks.base import Batch


class FlowMatching(Task):
    """Predict x1 from x_t; the board metric is |x1 - x1_hat|^2 in nm^2 per residue, averaged over
    residues and t in [0, 1].

    The mean over t is a fixed quadrature through the eight published times, at each of which every
    test sample is judged with noise of its own. The noise x0 is standard normal in nm, centred on
    the mean of the residues.
    """

    name = "flow"
    prediction = "x1"
    index_field = None
    board_unit = BOARD_UNIT
    fields = FIELDS
    test_points: ClassVar[int] = len(TIMES)
    feedback: ClassVar[Feedback | None] = Feedback(input="x_sc", output="x1", probability=0.5)

    def noise(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """x0, times of the training distribution, and the objective's weights of those."""
        t = draw_times(len(batch["mask"]), generator)
        return self._noise(batch, generator, t, objective_weight(t), torch.ones_like(t))

    def test_noise(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """x0 for every row, the eight times in turn, and their weights in the objective and in the
        board metric.

        The mean over rows of ``weight`` times the error is the expectation of the training
        objective.
        """
        turns = len(batch["mask"]) // len(TIMES)
        t, weight, quadrature = (
            values.float().repeat(turns).to(generator.device)
            for values in (
                torch.tensor(TIMES),
                objective_quadrature() * len(TIMES),
                board_quadrature(),
            )
        )
        return self._noise(batch, generator, t, weight, quadrature)

    def _noise(
        self,
        batch: Batch,
        generator: torch.Generator,
        t: Tensor,
        weight: Tensor,
        quadrature: Tensor,
    ) -> dict[str, Tensor]:
        mask = batch["mask"].to(generator.device)
        x0 = torch.randn(*mask.shape, 3, generator=generator, device=generator.device)
        return {"x0": centred(x0, mask), "t": t, "weight": weight, "quadrature": quadrature}

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs x_t, x_sc (zeros), t, mask and residue; targets x1 and, for the objective, mask
        and weight.

        Nothing else can be required: that is a ``UsageError``.
        """
        if requires:
            raise UsageError(
                f"task flow builds no input {min(requires)!r}; its models take x_t, x_sc, t, mask "
                "and residue"
            )
        x_t = interpolate(noise["x0"], batch["x1"], noise["t"])
        inputs = {
            "x_t": x_t,
            "x_sc": torch.zeros_like(x_t),
            "t": noise["t"],
            "mask": batch["mask"],
            "residue": batch["residue"],
        }
        return inputs, {"x1": batch["x1"], "mask": batch["mask"], "weight": noise["weight"]}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """Mean over samples of weight(t) times the mean over residues of |x1 - x1_hat|^2."""
        mask = targets["mask"]
        error = (outputs["x1"].to(targets["x1"].dtype) - targets["x1"]).masked_fill(
            ~mask[..., None], 0.0
        )
        per_sample = error.square().sum((1, 2)) / mask.sum(1).clamp(min=1)
        loss: Tensor = (targets["weight"] * per_sample).mean()
        return loss

    def samples_in(self, batch: Batch) -> int:
        """Number of backbones."""
        return len(batch["mask"])

    def weights(self, batch: Batch) -> Tensor:
        """[samples, residues, 1]: the residues that exist, times their sample's weight in the mean
        over t."""
        return (batch["mask"] * batch["quadrature"][:, None])[..., None]

    def strata(self, batch: Batch) -> tuple[tuple[str, ...], Tensor]:
        """The samples by flow time."""
        times = torch.tensor(TIMES, dtype=batch["t"].dtype, device=batch["t"].device)
        return tuple(f"t={t:g}" for t in TIMES), (batch["t"][:, None] - times).abs().argmin(1)

    def baseline(self, split: Split) -> float:
        """Mean over residues of |x1|^2: the error at every time of predicting the centre, the mean
        over all orientations."""
        total, residues = 0.0, 0
        for indices in torch.split(torch.arange(len(split)), 1024):
            batch = split.collate(indices)
            total += float(
                batch["x1"].double().masked_fill(~batch["mask"][..., None], 0.0).square().sum()
            )
            residues += int(batch["mask"].sum())
        return total / residues

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, torch.nn.Module]:
        """``linear``: a Gaussian chain with the training split's mean squared distances;
        ``isotropic``: one without bonds."""
        from equivbench.tasks.flow.baseline import GaussianChain

        return {
            "linear": GaussianChain.fit(data.train),
            "isotropic": GaussianChain.unbonded(self.baseline(data.train)),
        }
