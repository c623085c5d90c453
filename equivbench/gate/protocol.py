"""What ``check --interleave`` and the process of one side say to each other, a JSON object a line:
what two revisions must share to be compared. Later revisions may add fields."""

from __future__ import annotations

import msgspec

from equivbench.records.schema import Environment


class Use(msgspec.Struct, tag="use", frozen=True):
    """Build the benchmark ``name`` in place of the one before; answered by :class:`Built` or
    :class:`Refused`."""

    name: str


class Sample(msgspec.Struct, tag="sample", frozen=True):
    """Take one sample of it; answered by :class:`Took` or :class:`Refused`."""


Question = Use | Sample


class Declared(msgspec.Struct, frozen=True):
    """A benchmark that this side has."""

    name: str
    version: str
    control: bool


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """The first line of a side: where its code lies, and what it can measure."""

    package: str
    """The folder that the package was imported from."""
    environment: Environment
    benchmarks: list[Declared]


class Built(msgspec.Struct, tag="built", frozen=True):
    """It is built and warm."""


class Took(msgspec.Struct, tag="took", frozen=True):
    """The sample."""

    seconds: float
    """A call."""


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """There is nothing to time."""

    problem: str | None
    """What the benchmark raised; None where it cannot run on this machine."""


Reply = Hello | Built | Took | Refused
