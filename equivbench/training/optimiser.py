"""AdamW as both arms use it: fused where torch has it, its state laid out before the first step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equivbench.pairs.base import Recipe


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over all parameters alike, betas (0.9, 0.999).

    Weight decay spares no parameter: equivariant layers keep their weights in flat vectors, so the usual rule "matrices
    only" would decay the plain arm and not the other. The moments exist (as zeros) on return, so that a checkpoint has
    one layout at every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=recipe.weight_decay, fused=True)
    # A step at rate zero makes torch create the state without moving the weights.
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()
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
