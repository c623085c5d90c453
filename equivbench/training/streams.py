"""Random streams as pure functions of (seed, name, counters): resuming a run needs no generator
state."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, stream: str, *counters: int) -> int:
    """A 63-bit seed for one draw of a named stream, e.g. ``stream_seed(0, "rotations", step)``.

    Streams of different names or counters are independent for our purposes (BLAKE2b of the exact
    triple). torch's CPU generator keeps the low 32 bits, so two of 10^5 draws may coincide by
    chance; each draw is still Haar or normal.
    """
    text = repr((int(seed), stream, tuple(int(counter) for counter in counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(
    seed: int, stream: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator on ``device`` at the start of that draw; two calls with the same arguments give
    the same numbers."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, *counters))


def seed_global(seed: int, stream: str, *counters: int) -> None:
    """Set torch's global generators (weight initialisation, dropout) to that draw.

    ``torch.manual_seed`` without its queue for devices that are not there, which costs 0.2 ms a
    call and grows.
    """
    drawn = stream_seed(seed, stream, *counters)
    torch.default_generator.manual_seed(drawn)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(drawn)
