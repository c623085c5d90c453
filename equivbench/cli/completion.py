"""What the shell completes: names of what is registered, plug-ins included, without torch.

A completer is handed to typer as ``autocompletion``. Whatever goes wrong in it ends as no
suggestion: a line that is being typed is no place for an error.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from equivbench.option import Completes
from equivbench.registry import (
    DATASETS,
    EXECUTORS,
    KERNEL_BACKENDS,
    MODELS,
    PAIRS,
    TASKS,
    Registry,
)
from equivbench.request import QUICK_START_PAIR

REGISTRIES: Mapping[str, Registry[Any]] = {
    "tasks": TASKS,
    "pairs": PAIRS,
    "models": MODELS,
    "kernels": KERNEL_BACKENDS,
    "datasets": DATASETS,
    "executors": EXECUTORS,
}
"""By the kinds of ``equivbench list``."""
LONGEST = 70
"""Characters of the line beside a name: what does not fit a line is broken by the shell's own
means."""
Suggestions = list[tuple[str, str]]
"""Names with a line on each, which shells that can do so show beside it."""


def completer(names: Completes | Iterable[str]) -> Callable[[str], Suggestions]:
    """A completer of ``names``: those of a kind of ``equivbench list``, or the names themselves."""

    def complete(incomplete: str) -> Suggestions:
        found = _registered(names) if isinstance(names, str) else dict.fromkeys(names, "")
        return [(name, _short(line)) for name, line in found.items() if name.startswith(incomplete)]

    return complete


def _short(line: str) -> str:
    """``line`` without what typer would take for markup of its own, cut to fit."""
    line = line.replace("[", "(").replace("]", ")")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _registered(kind: str) -> Mapping[str, str]:
    """The names of ``kind`` with a line on each; none where the registry cannot be read."""
    # A plug-in may print or warn as it is loaded, which the shell would take for suggestions.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if kind == "arms":
                pairs = sorted(
                    PAIRS.entries().items(), key=lambda each: each[0] != QUICK_START_PAIR
                )
                return {arm.name: arm.model for _, each in pairs for arm in each.value.arms}
            entries = sorted(REGISTRIES[kind].entries().items())
            return {name: entry.value.summary for name, entry in entries}
        except Exception:  # noqa: BLE001  a plug-in's defect is told by the command itself
            return {}
