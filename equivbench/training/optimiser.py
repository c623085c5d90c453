"""The optimisers that a recipe may name, as both arms use them: fused where torch has it, state
laid out before step one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from equivbench.specs import Optimizer, Recipe

Make = Callable[[Sequence[nn.Parameter], float], torch.optim.Optimizer]
"""(parameters, weight decay) to an optimiser at rate zero."""
_FACTORIES: Mapping[Optimizer, Make] = {
    "adamw": lambda parameters, decay: torch.optim.AdamW(
        parameters, lr=0.0, weight_decay=decay, fused=True
    ),
    "adam": lambda parameters, decay: torch.optim.Adam(
        parameters, lr=0.0, weight_decay=decay, fused=True
    ),
    "nadam": lambda parameters, decay: torch.optim.NAdam(
        parameters, lr=0.0, weight_decay=decay, decoupled_weight_decay=True
    ),
    "radam": lambda parameters, decay: torch.optim.RAdam(
        parameters, lr=0.0, weight_decay=decay, decoupled_weight_decay=True
    ),
    "adamax": lambda parameters, decay: torch.optim.Adamax(parameters, lr=0.0, weight_decay=decay),
    "rmsprop": lambda parameters, decay: torch.optim.RMSprop(
        parameters, lr=0.0, weight_decay=decay
    ),
    "sgd": lambda parameters, decay: torch.optim.SGD(
        parameters, lr=0.0, weight_decay=decay, momentum=0.9, fused=True
    ),
}
_STARTS_AT_ONE = ("mu_product",)
"""State that is a product over the steps (NAdam's momenta); all other state is a sum or a mean and
starts at zero."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters alike, with torch's defaults (betas .9 and .999)
    and SGD's momentum .9.

    Weight decay is decoupled in adamw, nadam and radam, and added to the gradient in the others. It
    spares no parameter: equivariant layers keep their weights in flat vectors, so the usual rule
    "matrices only" would decay the plain arm and not the other. The state exists, as it is before
    any step, on return, so that a checkpoint has one layout at every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _FACTORIES[recipe.optimizer](parameters, recipe.weight_decay)
    # A step at rate zero makes torch create the state without moving the weights.
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        for name, value in state.items():
            value.fill_(float(name in _STARTS_AT_ONE))
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def named_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors (moments and step counts), live, named ``<parameter>.<key>``."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }
