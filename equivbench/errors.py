"""The errors a user can cause or meet, each carrying the exit code that the command line ends
with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EquivbenchError(Exception):
    """Base class. The message is one plain sentence: what is wrong, where, what to do."""

    exit_code = 3


class UsageError(EquivbenchError, ValueError):
    """An argument that cannot be parsed, an unknown name, a bad budget, a dirty tree."""

    exit_code = 2


class ModelError(UsageError):
    """A model breaks the contract of its task: in how it is called, in what it returns, or in what
    it does to what it is lent. In a run it is the failure of its arm alone."""

    exit_code = 3


class FailedError(EquivbenchError, RuntimeError):
    """Something that should be there is missing, broken, empty or diverged."""

    exit_code = 3


class IncomparableError(EquivbenchError, ValueError):
    """Two results that must not be compared: other hardware, rules, data, preset or budget."""

    exit_code = 4


class InterruptedRunError(EquivbenchError):
    """The user stopped a run; its state is saved and the message says how to resume."""

    exit_code = 130


class EquivbenchWarning(UserWarning):
    """Something was left out and the rest goes on; the command line shows it as one line."""


def unknown_name(kind: str, name: str, known: Iterable[str], otherwise: str = "") -> UsageError:
    """A :class:`UsageError` for an unregistered ``name``, with the close matches among ``known``;
    where there are none, with all of these and what to do ``otherwise``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    # A far match beside a near one only distracts: `lsit` is list, not plot.
    near = [difflib.SequenceMatcher(a=name, b=each).ratio() for each in close]
    close = [each for each, ratio in zip(close, near, strict=True) if ratio > 0.7 * max(near)]
    all_known = f"known: {', '.join(names) or 'none'}{otherwise}"
    hint = f"did you mean {' or '.join(close)}?" if close else all_known
    return UsageError(f"unknown {kind} {name!r}; {hint}")
