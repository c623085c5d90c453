"""What all written Triton kernels share: a block of channels, the loop over the members of a group,
and no line whose value nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Accumulate = Literal["float32", "float64"]
_NAME = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENT = re.compile(r"(\w+) (\+?=) (.*)")


@dataclass(frozen=True)
class ChannelBlock:
    """The lanes of a program: a block of the channels of one row."""

    channels: int
    """Of the row."""
    size: int
    """Of the block, a power of two; the last block of a row may be cut short."""
    accumulate: Accumulate

    @property
    def count(self) -> int:
        """Blocks of a row."""
        return -(-self.channels // self.size)

    @property
    def mask(self) -> str:
        """What says which lanes have a channel; empty where all have."""
        return "" if self.channels % self.size == 0 else "inside"

    def channel(self, number: str) -> Iterator[str]:
        """The channels of the block ``number``."""
        yield f"channel = {number} * {self.size} + tl.arange(0, {self.size})"
        if self.mask:
            yield f"inside = channel < {self.channels}"

    def zero(self, name: str) -> str:
        """A sum to begin with, a block of channels."""
        return f"{name} = tl.zeros([{self.size}], tl.{self.accumulate})"

    def load(self, name: str, place: str) -> str:
        """A block of channels from ``place`` on."""
        masked = f", mask={self.mask}, other=0" if self.mask else ""
        return f"{name} = tl.load({place} + channel{masked}).to(tl.{self.accumulate})"

    def store(self, place: str, value: str) -> str:
        """A block of channels to ``place`` on."""
        return f"tl.store({place} + channel, {value}{f', mask={self.mask}' if self.mask else ''})"

    def number(self, name: str, place: str) -> str:
        """One number, the same for all channels."""
        return f"{name} = tl.load({place}).to(tl.{self.accumulate})"


def loop(body: Iterable[str], indices: Mapping[str, str]) -> Iterator[str]:
    """``body`` for each step from ``first`` to ``last``, with the ``indices`` of the step, names
    and what they are read from; the next ones are on their way while this step is worked on."""
    for name, pointer in indices.items():
        yield f"next_{name} = tl.load({pointer} + first, mask=first < last, other=0)"
    yield "for step in tl.range(first, last):"
    yield from (f"    {name} = next_{name}" for name in indices)
    for name, pointer in indices.items():
        yield f"    next_{name} = tl.load({pointer} + step + 1, mask=step + 1 < last, other=0)"
    yield from (f"    {line}" for line in body)


def kernel_of_degrees(
    pointers: Sequence[str], row: str, lanes: ChannelBlock, bodies: Sequence[Iterable[str]]
) -> Iterator[str]:
    """The lines of ``kernel``, a program of which does the body of one degree for one row, whose
    number the bodies call ``row``, and one block of channels."""
    arguments, programs = ", ".join(pointers), len(bodies) * lanes.count
    for degree, body in enumerate(bodies):
        yield "@triton.jit"
        yield f"def degree{degree}({arguments}, {row}, number):"
        yield from (f"    {line}" for line in (*lanes.channel("number"), *body))
        yield ""
    yield "@triton.jit"
    yield f"def kernel({arguments}):"
    yield f"    part = tl.program_id(0) % {programs}"
    # 64 bits: rows times columns outgrow 32 from some million edges on.
    yield f"    {row} = (tl.program_id(0) // {programs}).to(tl.int64)"
    yield f"    number = part % {lanes.count}"
    for degree in range(len(bodies)):
        yield f"    {'elif' if degree else 'if'} part // {lanes.count} == {degree}:"
        yield f"        degree{degree}({arguments}, {row}, number)"


def pruned(lines: Sequence[str], read: set[str]) -> list[str]:
    """``lines``, one after the other, without the assignments to what no later line reads.

    ``read`` are the names that are read after the last of them; it becomes those that are read from
    the first of them on.
    """
    kept = []
    for line in reversed(lines):
        assignment = _ASSIGNMENT.fullmatch(line)
        if assignment is not None:
            name, operator, line_reads = assignment.groups()
            if name not in read:
                continue
            if operator == "=":
                read.discard(name)
        else:
            line_reads = line
        kept.append(line)
        read.update(_NAME.findall(line_reads))
    return kept[::-1]


def total(terms: Iterable[str]) -> str:
    """The sum of ``terms``."""
    return " + ".join(terms)
