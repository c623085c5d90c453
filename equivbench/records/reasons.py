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
        for kind in (PurePosixPath, PureWindowsPath):
            path = kind(value)
            if path.name and (path.is_absolute() or value.startswith("~/")):
                return f".../{path.name}"
        return _without_paths(value)
    if isinstance(value, Mapping):
        return {name: without_places_in(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places_in(each) for each in value]
    return value


def without_places(text: str) -> str:
    """``text`` with absolute paths cut to their last part (``.../worker.log``) and without the name
    of this host."""
    text = _without_paths(text)
    host = platform.node()
    if len(host) >= _LEAST_NAME:
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", "<host>", text)
    return text


def _without_paths(text: str) -> str:
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
