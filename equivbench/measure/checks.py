"""What a model must be to be trained and judged like any other: its weights are known, and what it
predicts for a sample does not depend on the others of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from equivbench.errors import ModelError
from equivbench.measure.caller import Caller
from equivbench.measure.precision import EPS
from equivbench.measure.rotated_set import Chunk, ChunkDraws
from equivbench.symmetry.decomposition import broadcast_weights

_AMPLIFIED = 1e4
"""How many unit roundoffs of its size a prediction may move where sums are made in another order.
Batch statistics move it by more than a hundredth."""
_MOST_ROUNDING = 1e-3
"""The same, squared, at most: in bfloat16 the bound would be none."""
_OF_NOISE = 1e2
"""Times what two passes over the same batch differ by."""
_DEPTH = 3
"""Levels of lists and mappings that are looked through for weights."""
_REGISTERED = ("_parameters", "_buffers", "_modules")


def check_companions(caller: Caller, chunk: Chunk) -> None:
    """Raises ``ModelError`` where the model's prediction for most rows of ``chunk`` changes by more
    than rounding with the samples that are predicted beside them.

    Half of the samples, in reverse order, are predicted again alone. Costs two and a half passes
    over the chunk, whose draws must be :class:`ChunkDraws`.
    """
    task, draws = caller.task, chunk.draws
    graphs = int(chunk.index.max()) + 1 if chunk.index is not None else len(chunk.target)
    if graphs < 2 or not isinstance(draws, ChunkDraws):
        return
    first = next(iter(draws))
    name = task.prediction
    whole, again = (caller.outputs(first.inputs, first.targets)[name].double() for _ in range(2))
    inputs, rows = draws.alone(torch.arange(graphs // 2).flip(0).to(whole.device))
    alone = caller.outputs(inputs, {name: whole[rows]})[name].double()
    weights = None if chunk.weights is None else broadcast_weights(chunk.weights, whole.shape)

    def squares(values: Tensor, of: Tensor | slice) -> Tensor:
        if weights is not None:
            values = (weights[of] * values.square()).masked_fill(weights[of] == 0, 0)
        else:
            values = values.square()
        return values.reshape(len(values), -1).sum(1)

    power = float(squares(whole, slice(None)).mean())
    if not power > 0:
        return
    moved = float(squares(alone - whole[rows], rows).median()) / power
    noise = float(squares(again - whole, slice(None)).mean()) / power
    allowed = min((_AMPLIFIED * EPS[caller.precision]) ** 2, _MOST_ROUNDING)
    if moved > max(allowed, _OF_NOISE * noise):
        raise ModelError(
            f"what {type(caller.model).__name__} predicts for a sample depends on the others of "
            f"its batch: with half of them left out it moves by {moved:.1e} of its square; predict "
            "each sample by itself (batch statistics belong to training)"
        )


def check_weights(model: nn.Module) -> None:
    """Raises ``ModelError`` where ``model`` keeps weights that ``parameters()`` does not give: they
    would be neither counted, nor averaged, nor saved."""
    found = list(islice(unregistered(model), 3))
    if found:
        raise ModelError(
            f"{type(model).__name__} keeps weights that parameters() does not give "
            f"({', '.join(found)}); register them with nn.ModuleList, nn.ParameterList or "
            "register_parameter, or they are neither counted nor saved"
        )


def unregistered(model: nn.Module) -> Iterator[str]:
    """Paths of tensors that want gradients and that ``model.parameters()`` does not give, in the
    attributes of its modules, in lists and mappings there, and in modules that lie there."""
    known = {id(parameter) for parameter in model.parameters()}
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if name not in _REGISTERED:
                yield from _wanting(value, f"{path}.{name}".lstrip("."), known, _DEPTH)


def _wanting(value: object, path: str, known: set[int], depth: int) -> Iterator[str]:
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf and id(value) not in known:
            yield path
    elif isinstance(value, nn.Module):
        for name, parameter in value.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                yield f"{path}.{name}"
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for position, each in enumerate(value):
            yield from _wanting(each, f"{path}[{position}]", known, depth - 1)
    elif depth and isinstance(value, Mapping):
        for key, each in value.items():
            yield from _wanting(each, f"{path}[{key!r}]", known, depth - 1)
