"""The exit codes of the command line and the rule for which one wins."""

from __future__ import annotations

from collections.abc import Iterable

DONE = 0
REGRESSION = 1
USAGE = 2
FAILED = 3
INCOMPARABLE = 4
INCONCLUSIVE = 5
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports it: the reader went away, so nothing can be said about the
result."""

PRECEDENCE = (USAGE, INCOMPARABLE, FAILED, REGRESSION, INCONCLUSIVE, DONE)


def overall(codes: Iterable[int]) -> int:
    """The code to end with when several apply: the first of 2, 4, 3, 1, 5, 0; none at all is 0."""
    applying = set(codes)
    unknown = applying.difference(PRECEDENCE)
    if unknown:
        raise ValueError(f"exit codes {sorted(unknown)} are not among {PRECEDENCE}")
    return next((code for code in PRECEDENCE if code in applying), DONE)
