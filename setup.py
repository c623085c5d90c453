"""Writes into what is built its commit, so that records made from an installed wheel name it. All
else about the build is in ``pyproject.toml``."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
NAME = Path("equivbench", "_build.py")
NAMED = {"COMMIT": "HEAD", "TREE": "HEAD:equivbench"}
PACKAGED = ("equivbench", "pyproject.toml", "setup.py")
"""A change to any of these makes the package another one than the commit's."""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write_commit(folder: Path) -> None:
    """Write ``equivbench/_build.py`` below ``folder``, which is never the source itself.

    Outside a checkout of this very repository nothing is written: a source archive carries the
    file already. COMMIT is None where the package differs from its commit.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return
    clean = _git("status", "--porcelain", "--", *PACKAGED) == ""
    made = {name: _git("rev-parse", what) if clean else None for name, what in NAMED.items()}
    file = folder / NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name} = {value!r}\n" for name, value in made.items())
    file.write_text(f'"""The commit that this was built from."""\n\n{lines}')


class BuildPackage(build_py):
    """Adds the file to a wheel; an editable installation asks git each time instead."""

    def run(self) -> None:
        """Copy the package, then write the commit beside it."""
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib))


class SourceArchive(sdist):
    """Adds the file to a source archive."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Lay out the archive, then write the commit into it."""
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir))


setup(cmdclass={"build_py": BuildPackage, "sdist": SourceArchive})
