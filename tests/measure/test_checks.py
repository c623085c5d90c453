"""Models whose predictions depend on the other samples of a batch, and models that keep weights
where nobody looks, are refused; honest ones are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cheats import Doing
from known_symmetries import ANSWERS
from torch import Tensor, nn
from toy_task import Central, Clouds, Raw, clouds

from equivbench.errors import ModelError
from equivbench.measure.checks import check_weights, unregistered
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.evaluator import Evaluator
from equivbench.symmetry.wrappers import wrap

TASK = Clouds()


class Others(nn.Module):
    """An honest network that also looks at the rest of the batch in one of several ways."""

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.look = Central(), look

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": self.look(self.model(z=z, pos=pos, batch=batch)["pull"])}


LOOKS: dict[str, Callable[[Tensor], Tensor]] = {
    "statistics of the batch": lambda out: out / out.std(),
    "mean of the batch": lambda out: out + 0.1 * out.abs().mean(),
    "position in the batch": lambda out: out * (1 + 0.05 * torch.arange(len(out))[:, None]),
    "number of samples": lambda out: out * (1 + 0.01 * len(out)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_prediction_that_depends_on_the_others_of_its_batch_is_refused(
    look: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(ModelError, match="depends on the others of its batch"):
        measure_equivariance(Others(look), TASK, split=clouds(60))
    judge = Evaluator(TASK, clouds(60), requires={})
    with pytest.raises(ModelError, match="depends on the others of its batch"):
        judge.check(Others(look))


@pytest.mark.parametrize("name", ANSWERS)
def test_honest_networks_pass(name: str) -> None:
    Evaluator(TASK, clouds(60), requires={}).check(ANSWERS[name].build())


@pytest.mark.parametrize(
    "wrapper", ["frames", "stochastic-frames", "canonical", "twirl-4", "twirl-octahedral"]
)
def test_symmetrised_networks_pass(wrapper: str) -> None:
    judge = Evaluator(TASK, clouds(60), requires={})
    judge.check(wrap(wrapper, Raw(), TASK.fields, TASK.index_field))


def test_one_sample_has_no_others() -> None:
    Evaluator(TASK, clouds(1), requires={}).check(Others(LOOKS["statistics of the batch"]))


class InAList(Central):
    def __init__(self) -> None:
        super().__init__()
        self.heads = [nn.Linear(3, 3), {"deeper": [nn.Linear(3, 3)]}]


class BesideParameters(Central):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3, requires_grad=True)


class Behind(Central):
    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "hidden", nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (InAList, r"heads\[0\].weight, heads\[0\].bias, heads\[1\]\['deeper'\]\[0\].weight"),
        (BesideParameters, r"\(scale\)"),
        (Behind, "hidden.weight, hidden.bias"),
        (lambda: nn.Sequential(InAList()), r"0.heads\[0\].weight"),
    ],
)
def test_weights_that_parameters_does_not_give_are_named(
    build: Callable[[], nn.Module], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        check_weights(build())


def test_shared_and_frozen_weights_and_caches_are_no_hidden_ones() -> None:
    model = Central()
    object.__setattr__(model, "same", model.radial)
    model.table = [torch.ones(3), torch.zeros(2, dtype=torch.int64)]  # type: ignore[assignment]
    model.cached = next(model.parameters()) * 2
    frozen = nn.Linear(2, 2).requires_grad_(False)
    object.__setattr__(model, "teacher", frozen)
    assert list(unregistered(Doing(model, "pull"))) == []
