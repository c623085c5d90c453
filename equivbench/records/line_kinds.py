"""Which kinds of files of lines there are: kernel samples, and what the studies declare."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from equivbench.records.kernels import KERNEL_FILE
from equivbench.records.line_files import LineFile


@functools.cache
def line_files() -> Mapping[str, LineFile[Any]]:
    """Every kind of file by its name: kernel samples, and what the studies declare.

    A study declares its files in the entry-point group ``equivbench.result_files``. Only those of
    equivbench itself are loaded: validating someone's records never runs code of a plug-in.
    """
    files: list[LineFile[Any]] = [KERNEL_FILE]
    # Without metadata equivbench runs from a folder that was never installed.
    with contextlib.suppress(PackageNotFoundError):
        declared = distribution("equivbench").entry_points.select(group="equivbench.result_files")
        files += [point.load() for point in declared]
    return {file.name: file for file in files}
