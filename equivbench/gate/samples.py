"""What `check --interleave` measured of a revision, on disk: a JSON line a benchmark, with the
least seconds of every round."""

from __future__ import annotations

import msgspec

from equivbench.records.schema import Environment, Git

GATE_SCHEMA_VERSION = 1


class GateSamples(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One benchmark of one revision: entry i of ``rounds`` comes from the i-th fresh process of
    that side."""

    schema_version: int = GATE_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    session: str
    """Names the interleaved measurement: rounds of two sides with one session were taken next to
    each other."""
    revision: str
    """As the user wrote it; ``git.commit`` is what it stood for."""
    benchmark: str
    version: str
    """Of the benchmark itself: samples of two versions are not comparable."""
    control: bool
    rounds: list[float]
    """Seconds a call, the least of each round."""
    problem: str | None = None
    """Why it could not be measured; ``rounds`` is then short or empty."""
    environment: Environment
    git: Git


class RoundLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one worker process (one round of one side) says about one benchmark."""

    benchmark: str
    version: str
    control: bool
    seconds: float | None
    """Least seconds a call; None where it failed."""
    problem: str | None


class RoundResult(msgspec.Struct, kw_only=True):
    """All that one worker process measured; other revisions may add fields."""

    package: str
    """The folder that the package was imported from."""
    environment: Environment
    lines: list[RoundLine]
