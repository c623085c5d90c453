"""Makes a folder of packages for a machine that has no registry: what it lacks, out of the archive
of ``tools/gpu_pack.sh``, and the entry points of this checkout, as an installation would have them.

``python tools/gpu_site.py FOLDER [ARCHIVE]``; FOLDER then goes on PYTHONPATH.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOR_PYTHON = (3, 12)
"""What the archive's compiled modules are for."""


def main() -> None:
    """Fill the folder that is named."""
    site = Path(sys.argv[1])
    site.mkdir(parents=True, exist_ok=True)
    archive = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / ".gpu" / "pack.tar.xz"
    if not archive.is_file():
        print(f"{archive} is not there: nothing is unpacked; tools/gpu_pack.sh makes it")
    elif sys.version_info[:2] != FOR_PYTHON:
        print(f"{archive} is for Python {'.'.join(map(str, FOR_PYTHON))}: nothing is unpacked")
    else:
        print("unpacked", ", ".join(sorted(unpack(archive, site))) or "nothing")
    write_metadata(site)
    commit = ROOT / ".gpu" / "_build.py"
    if commit.is_file() and not (ROOT / ".git").exists():
        shutil.copy(commit, ROOT / "equivbench")


def unpack(archive: Path, site: Path) -> set[str]:
    """Unpack the distributions of ``archive`` of which no module is installed here, so that nothing
    that the machine has is hidden; returns the names of their modules."""
    with tarfile.open(archive) as file:
        members = [each for each in file.getmembers() if each.name not in (".", "")]
        tops = {_top(each.name) for each in members}
        known = {top for top in tops if _is_installed(top)}
        file.extractall(
            site, [each for each in members if _top(each.name) not in known], filter="data"
        )
    return {top for top in tops - known if not top.endswith((".dist-info", ".libs"))}


def _top(name: str) -> str:
    """The first folder or file of a member's path."""
    return name.removeprefix("./").partition("/")[0]


def _is_installed(top: str) -> bool:
    if top.endswith(".dist-info"):
        try:
            importlib.metadata.distribution(top.partition("-")[0])
        except importlib.metadata.PackageNotFoundError:
            return False
        return True
    module = top.partition(".")[0]
    return module.isidentifier() and importlib.util.find_spec(module) is not None


def write_metadata(site: Path) -> None:
    """Write what an installation of this checkout would say of itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = _version((ROOT / "equivbench" / "__init__.py").read_text(encoding="utf-8"))
    folder = site / f"equivbench-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: equivbench\nVersion: {version}\n"
    (folder / "METADATA").write_text(metadata, encoding="utf-8")
    (folder / "entry_points.txt").write_text(entry_points(project), encoding="utf-8")


def entry_points(project: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """The entry points of ``project``, as the file of that name holds them."""
    groups: dict[str, Mapping[str, str]] = dict(project["entry-points"])
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in points.items()), ""]
    return "\n".join(lines)


def _version(source: str) -> str:
    found = re.search(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
    assert found is not None, "the package states its version"
    return found[1]


if __name__ == "__main__":
    main()
