"""What ``package.module:attribute`` names, in the current folder too, and what it returns when
called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from equivbench.errors import EquivbenchError, FailedError, UsageError
from equivbench.kernels.process_settings import settings_kept
from equivbench.records.files import shown
from equivbench.registry import resolve

_LONGEST = 500
"""Most characters of somebody's exception."""


def imported(text: str) -> Any:
    """What ``package.module:attribute`` names, in the current folder too.

    Raises ``UsageError`` where there is no such name, ``FailedError`` where there is one that
    cannot be imported.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with settings_kept():
            return resolve(text)
    except UsageError as error:
        cause = error.__cause__
        if cause is None or _no_such_name(cause, text.partition(":")[0]):
            raise
        raise FailedError(str(error)) from cause
    except SystemExit as error:
        raise FailedError(f"{text} cannot be imported: it ends the process") from error
    finally:
        sys.path.remove(here)


def _no_such_name(cause: BaseException, module: str) -> bool:
    """Whether ``module``, or the attribute, is not there at all, where one of the modules that it
    imports would be a broken environment."""
    if isinstance(cause, ModuleNotFoundError):
        return f"{module}.".startswith(f"{cause.name}.")
    return isinstance(cause, AttributeError)


def called(name: str, value: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """``value(*arguments)``; raises ``FailedError`` where it raises."""
    try:
        with settings_kept():
            return value(*arguments)
    except EquivbenchError:
        raise
    except (Exception, SystemExit) as error:  # someone's code, which may raise anything
        raise FailedError(
            f"{name} failed to build its model: {type(error).__name__}: "
            f"{shown(' '.join(str(error).split()), _LONGEST)}"
        ) from error
