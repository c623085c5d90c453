"""The weights of a run's result in a file of their own (safetensors, no code in it): written into
the cache, read, and put into a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from equivbench.errors import FailedError
from equivbench.measure.calls import saved_tensors
from equivbench.records.files import read_bounded, shown, write_atomically
from equivbench.records.weight_files import cached_weights

FORMAT = "equivbench-weights-1"
_HEADER = 2**24
"""Bytes before the numbers at most: names, shapes and places of some 100,000 tensors."""


def keep_weights(model: nn.Module) -> str:
    """Put parameters and buffers of ``model`` into the cache; returns the SHA-256 of the file.

    Raises ``FailedError`` where the cache cannot be written.
    """
    # One contiguous host copy each: safetensors refuses views and shared storage.
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in saved_tensors(model).items()
    }
    content = safetensors.torch.save(tensors, {"format": FORMAT})
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomically(cached_weights(sha256), content)
    return sha256


def load_weights(model: nn.Module, path: Path) -> str:
    """Give ``model`` the weights in the file at ``path``; returns the SHA-256 of the file.

    Raises ``FailedError`` where it is no file of weights, is a link, or has another network's.
    """
    own = saved_tensors(model)
    most = _HEADER + sum(tensor.nbytes for tensor in own.values())
    # A stranger's file may be of any size.
    if path.is_file() and path.stat().st_size > most:
        raise FailedError(
            f"{shown(path)} has the weights of another network: it is larger than the {most} bytes "
            "that this one's can take"
        )
    content = read_bounded(path, follow=False, limit=most)
    try:
        found = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FailedError(f"{shown(path)} is no file of weights ({shown(reason)})") from error
    kinds, its = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        for tensors in (own, found)
    )
    unlike = sorted(name for name in {**kinds, **its} if kinds.get(name) != its.get(name))
    if unlike:
        raise FailedError(
            f"{shown(path)} has the weights of another network: {len(unlike)} tensors are not "
            f"those of this one, such as {shown(unlike[0])}"
        )
    # What else a network saves (its extra state) is not in the file.
    model.load_state_dict(found, strict=False)
    return hashlib.sha256(content).hexdigest()
