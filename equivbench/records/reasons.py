"""Somebody's words as a part of a record: on one line, with nothing that acts on a terminal and
nothing that tells the machine they were said on; and a record's other texts without places."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from equivbench.records.files import shown

LONGEST_REASON = 2000
"""Most characters of a reason."""
_LEAST_NAME = 4
"""Characters of a host name below which it is taken for a word."""
_PATH = re.compile(
    r"""(?<![\w.:/\\)\]~-])      # not inside a word, a URL, a unit such as (eV/A), or a path
    (?: file:/+ | ~?/ | [A-Za-z]:[\\/] | \\\\ )
    (?: [^\s'"`<>|:;,()\[\]{}\\/]+ [\\/]+ )*
    (?P<name> [^\s'"`<>|:;,()\[\]{}\\/]+ )[\\/]*
    """,
    re.VERBOSE,
)
"""An absolute path, of which the last part may be said."""


def plain_reason(text: object, most: int = LONGEST_REASON) -> str:
    """``text`` (an exception, a line of a log) as a reason in a record: one line of about ``most``
    characters, paths cut to their last part, the host's name left out, unseen characters
    escaped."""
    return shown(without_places(" ".join(str(text).split())), most)


def without_places_in(value: Any) -> Any:
    """``value`` (what JSON can hold) with the absolute paths in its texts cut to their last part,
    spaces included where a text is a path as a whole. The host's name stays: it may be a word of a
    command, such as that of a pair."""
    if isinstance(value, str):
        name = _absolute(value)
        return _without_paths(value) if name is None else f".../{name}"
    if isinstance(value, Mapping):
        return {name: without_places_in(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places_in(each) for each in value]
    return value


def names_place(value: Any) -> bool:
    """Whether a text in ``value`` (what JSON can hold) holds an absolute path. What the folders of
    this machine are called has no say in it: it is the same answer wherever it is asked."""
    if isinstance(value, str):
        return _absolute(value) is not None or _PATH.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(names_place, value.values()))
    return isinstance(value, list | tuple) and any(map(names_place, value))


def without_places(text: str) -> str:
    """``text`` with absolute paths cut to their last part (``.../worker.log``) and without the name
    of this host."""
    text = _without_paths(text)
    host = platform.node()
    if len(host) >= _LEAST_NAME:
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", "<host>", text)
    return text


def _absolute(text: str) -> str | None:
    """The last part of ``text`` where it is an absolute path as a whole."""
    if not text.startswith(("/", "~/", "\\")) and text[1:2] != ":":
        return None
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.name and (path.is_absolute() or text.startswith("~/")):
            return path.name
    return None


def _without_paths(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text
    # Known folders first: their names may hold spaces, at which a path would seem to end.
    for folder in _known_folders():
        text = text.replace(folder + os.sep, f"{os.sep}.{os.sep}")
    return _PATH.sub(lambda found: f".../{found['name']}", text)


def _known_folders() -> tuple[str, ...]:
    """Folders of this machine that errors name, the longest first."""
    named = {sys.prefix, sys.base_prefix}
    # On a bad day they are not there: a working folder that was removed, a disk without a place
    # for temporary files, a user without a home.
    for find in (Path.home, Path.cwd, tempfile.gettempdir):
        with contextlib.suppress(OSError, RuntimeError):
            named.add(str(find()))
    return tuple(sorted((each for each in named if each.count(os.sep) > 1), key=len, reverse=True))
