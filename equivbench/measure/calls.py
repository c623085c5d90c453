"""Calling somebody's model: it may use autograd of its own, what it is lent comes back whole, what
it gives back is checked, and what it does to its process is undone and refused."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from equivbench.errors import ModelError
from equivbench.kernels.process_settings import Settings
from equivbench.tasks.base import Batch, Task


@contextlib.contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """No gradient reaches ``parameters`` inside the block, and autograd is on all the same, so that
    a model may differentiate what it computes by its inputs (forces from an energy).

    One that does not builds no graph: it runs the same kernels as under ``torch.no_grad``.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad = False
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


def call(model: nn.Module, inputs: Mapping[str, Tensor], *, copied: bool = False) -> object:
    """What ``model`` returns for ``inputs``, which it is given by keyword.

    ``copied``: it gets copies, with which it may do what it likes. Else it gets the tensors' own
    storage, under other names where they could be marked (``requires_grad_``). A call costs some
    10 us more than that of the model alone: it is made in every training step.

    Raises ``ModelError`` where it wrote to an input that was not copied, and where it leaves a
    setting of the process other than it was; the setting is put back.
    """
    lent = {name: tensor.clone() if copied else tensor for name, tensor in inputs.items()}
    versions = [_version(tensor) for tensor in lent.values()]
    before = Settings.now()
    try:
        returned: object = model(
            **{
                name: tensor.detach() if tensor.is_floating_point() else tensor
                for name, tensor in lent.items()
            }
        )
    finally:
        changed = before.put_back()
    if changed:
        raise ModelError(
            f"a call of {type(model).__name__} changed {' and '.join(changed)} of the process; "
            "leave that to whoever runs the model"
        )
    if not copied:
        for (name, tensor), version in zip(lent.items(), versions, strict=True):
            if _version(tensor) != version:
                raise ModelError(
                    f"{type(model).__name__} wrote into its input {name!r}; work on a copy of it "
                    f"({name} = {name}.clone())"
                )
    return returned


def checked(task: Task, outputs: object, like: Mapping[str, Tensor]) -> Batch:
    """``outputs`` if they are what ``task`` declares.

    ``like`` holds tensors of the shape, on the device, that each declared output has here; floating
    point where it is. Raises ``ModelError`` that says what is wrong with which output.
    """
    fed_back = [] if task.feedback is None else [task.feedback.output]
    needed = [task.prediction, *task.also_needed, *fed_back]
    if not isinstance(outputs, Mapping) or not all(name in outputs for name in needed):
        found = _kind(outputs)
        if isinstance(outputs, Mapping):
            found = f"the outputs {', '.join(map(str, outputs))}"
        raise ModelError(
            f"the model returned {found}; task {task.name!r} needs a mapping with "
            f"{' and '.join(map(repr, dict.fromkeys(needed)))}{task.advice}"
        )
    for name, wanted in like.items():
        if name in outputs:
            problem = _problem(outputs[name], wanted)
            if problem is not None:
                raise ModelError(f"the model's {name!r} {problem} of task {task.name!r} here")
    return outputs


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _problem(output: object, wanted: Tensor) -> str | None:
    """What is wrong with ``output``, to be followed by ``of task ...``."""
    if not isinstance(output, Tensor):
        return f"is {_kind(output)}, not the tensor"
    if output.shape != wanted.shape:
        return f"has shape {tuple(output.shape)}, not the shape {tuple(wanted.shape)}"
    if output.dtype != wanted.dtype and not output.is_floating_point():
        return f"is {output.dtype}, not the floating-point numbers"
    if output.device != wanted.device:
        return f"is on {output.device}, not on {wanted.device}, the device"
    return None


# --- what must be afterwards as it was before


@contextlib.contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Raises ``ModelError`` where the weights or saved buffers of ``model`` are others after the
    block than before: a model that is judged must not learn."""
    before = fingerprints(saved_tensors(model))
    yield
    after = fingerprints(saved_tensors(model))
    # A lazy layer gets its weights at the first call.
    changed = [name for name, value in before.items() if value != after.get(name)]
    if changed:
        raise ModelError(
            f"{type(model).__name__} changed its own {min(changed)!r} while it was evaluated; "
            "change weights and saved buffers in training mode only"
        )


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint would save of ``model``."""
    return {name: each for name, each in model.state_dict().items() if isinstance(each, Tensor)}


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, bytes]]:
    """(number of elements, SHA-256 of the bytes) of each tensor, by name: whoever is judged by them
    must not be able to find others that are alike, as with a checksum. Those that have no bytes of
    their own (lazy, sparse) are left out."""
    return {
        name: (tensor.numel(), hashlib.sha256(_bytes(tensor)).digest())
        for name, tensor in tensors.items()
        if tensor.layout == torch.strided and not nn.parameter.is_lazy(tensor)
    }


def _bytes(tensor: Tensor) -> memoryview:
    host = tensor.detach().cpu().contiguous().reshape(-1)
    return host.view(torch.uint8).numpy().data


def _version(tensor: Tensor) -> int:
    """Counts what was written to the tensor, or to any view of it."""
    try:
        return tensor._version
    except RuntimeError:  # those made in inference mode do not count
        return 0
