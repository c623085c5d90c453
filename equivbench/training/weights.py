"""The weights of a run's result in a file of their own (safetensors, no code in it): written into
the cache, read, and put into a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from equivbench.errors import FailedError
from equivbench.records.files import read_bounded, shown, write_atomically
from equivbench.records.weight_files import LIMIT, cached_weights

FORMAT = "equivbench-weights-1"


def keep_weights(model: nn.Module) -> str:
    """Put parameters and buffers of ``model`` into the cache; returns the SHA-256 of the file.

    Raises ``FailedError`` where the cache cannot be written.
    """
    # One contiguous host copy each: safetensors refuses views and shared storage.
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    content = safetensors.torch.save(tensors, {"format": FORMAT})
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomically(cached_weights(sha256), content)
    return sha256


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """(the tensors by name, the SHA-256) of a file of weights; raises ``FailedError`` where it is
    none, is a link or is larger than ``LIMIT``."""
    content = read_bounded(path, follow=False, limit=LIMIT)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FailedError(f"{shown(path)} is no file of weights ({shown(reason)})") from error
    return tensors, hashlib.sha256(content).hexdigest()


def put_into(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Give ``model`` the weights read from ``path``; raises ``FailedError`` where they are another
    network's."""
    own = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    its = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    unlike = sorted(name for name in {**own, **its} if own.get(name) != its.get(name))
    if unlike:
        raise FailedError(
            f"{shown(path)} has the weights of another network: {len(unlike)} tensors are not "
            f"those of this one, such as {shown(unlike[0])}"
        )
    model.load_state_dict(tensors)
