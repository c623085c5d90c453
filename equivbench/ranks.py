"""The ranks of an arm: the processes that train it together, one a device, and what passes between
their devices (torch.distributed)."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from equivbench.errors import FailedError


class LostRankError(FailedError):
    """Another rank of the arm does not answer any more."""


class Ranks:
    """The ranks of one arm, each on one of ``devices``, as rank ``number`` sees them.

    Rank 0 leads: it decides what is done next and has the others ``tell`` of it before it does its
    own part. Sums, copies and meetings are made by all ranks in the same order. Each raises
    :class:`LostRankError` where a rank is gone, or has not come for as long as
    :meth:`joined` was told to wait.
    """

    def __init__(
        self,
        number: int,
        devices: Sequence[torch.device],
        tell: Callable[[Any], None] = lambda act: None,
    ) -> None:
        self.number, self.devices, self.tell = number, tuple(devices), tell
        self.count, self.device = len(devices), devices[number]

    @classmethod
    def joined(
        cls,
        store: Any,
        number: int,
        devices: Sequence[torch.device],
        patience: float,
        tell: Callable[[Any], None] = lambda act: None,
    ) -> Ranks:
        """Meet the other ranks at ``store``, and wait for all of them; ``patience``: seconds that
        each waits for the others, now and from then on."""
        on_gpu = devices[number].type == "cuda"
        if sys.platform.startswith("linux"):
            # By the name of the machine it might be an interface that this one does not answer on.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with _answered():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=store,
                rank=number,
                world_size=len(devices),
                timeout=timedelta(seconds=patience),
                device_id=devices[number] if on_gpu else None,
            )
        return cls(number, devices, tell)

    def part(self, total: int) -> slice:
        """Which of ``total`` things in a row are this rank's: parts that are equal to one."""
        return slice(self.number * total // self.count, (self.number + 1) * total // self.count)

    def add_up(self, tensor: Tensor) -> None:
        """Make ``tensor`` the sum of those of all ranks, the same bits on each."""
        with _answered():
            dist.all_reduce(tensor)

    def copy_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Write those of rank 0 into ``tensors``, which have the same names and shapes on each."""
        with torch.no_grad(), _answered():
            for name in sorted(tensors):
                sent = tensors[name].contiguous()
                dist.broadcast(sent, 0)
                tensors[name].copy_(sent)

    def gathered(self, value: Any) -> list[Any]:
        """On rank 0 the ``value`` of every rank, by number, tensors on its own device; on the
        others an empty list."""
        buffer = io.BytesIO()
        torch.save(value, buffer)
        found: list[Any] | None = [None] * self.count if self.number == 0 else None
        with _answered():
            dist.gather_object(buffer.getvalue(), found, 0)
        # Of processes of this run: nobody else can have written it.
        return [
            torch.load(io.BytesIO(each), map_location=self.device, weights_only=False)
            for each in found or ()
        ]

    def meet(self) -> None:
        """Wait for all ranks; on a GPU, whoever then waits for the device waits for theirs."""
        self.add_up(torch.zeros(1, device=self.device))


def meeting_place(host: str, count: int) -> Any:
    """A store for ``count`` ranks, made by rank 0 on a free port of this machine, ``host``."""
    # The kernel chooses the port: one that is chosen before could be another's by now.
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, 0, count, is_master=True, wait_for_workers=False
    )


def store_at(host: str, port: int, count: int) -> Any:
    """The store that rank 0 made at ``port`` of ``host``."""
    with _answered():
        return dist.TCPStore(host, port, count, is_master=False)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """What torch.distributed raises inside, as an error of ours."""
    try:
        yield
    except RuntimeError as error:  # of which all of its errors are
        said = " ".join(str(error).split())
        raise LostRankError(f"another rank of the arm does not answer ({said})") from error
