"""Pretrained networks whose symmetry is known, and which fail in known ways, in a package that pip
installs from a folder."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from equivbench.pretrained.networks import Family, LoadCall, PretrainedNetwork

SOURCE = '''
import os
import sys
import time

import numpy as np

STRENGTH = 0.7


class Springs:
    """Every atom is pulled to the mean of all: equivariant."""

    def get_forces(self, atoms):
        print("a package that prints")
        away = atoms.get_positions()
        return -2 * STRENGTH * (away - away.mean(0))


class Field(Springs):
    """Only along the first axis: two thirds of the squared force are a symmetry error."""

    def get_forces(self, atoms):
        return super().get_forces(atoms) * np.array([1.0, 0.0, 0.0])


class Lattice(Springs):
    """Equivariant only if the cell turns with the atoms."""

    def get_forces(self, atoms):
        return super().get_forces(atoms) + atoms.cell.array[0]


class Fails(Springs):
    def __init__(self, how):
        self.how = how
        if how == "no weights":
            raise OSError("Connection refused: weights.example")

    def get_forces(self, atoms):
        right = super().get_forces(atoms)
        if self.how == "raises":
            raise ValueError("no such element: Xx")
        if self.how == "dies":
            sys.stderr.write("Fatal: out of luck\\n")
            os._exit(7)
        if self.how == "is killed":
            os.kill(os.getpid(), 9)
        if self.how == "hangs":
            time.sleep(600)
        if self.how == "babbles":
            for pipe in range(3, 20):
                try:
                    os.write(pipe, b"what is this that comes instead of an answer")
                except OSError:
                    pass
            time.sleep(600)
        return {
            "wrong shape": right[1:],
            "no numbers": right.astype(int),
            "not finite": right * np.nan,
        }[self.how]
'''
FAMILY = Family("toys", ("toy-networks==1.0",), ("toy-networks",), "a test")


def toy(name: str, where: str, **arguments: object) -> PretrainedNetwork:
    """A toy network on the shipped molecules, without a reference."""
    call = LoadCall(f"toy_networks:{where}", arguments)
    summary = f"The toy {where}."
    return PretrainedNetwork(name, FAMILY, summary, call, "so3", "gfn2-small", compared=False)


SPRINGS, FIELD = toy("springs", "Springs"), toy("field", "Field")


def make_wheel(folder: Path, name: str, version: str, source: str = SOURCE) -> None:
    """A wheel of one module in ``folder``, where pip finds it with ``PIP_FIND_LINKS``."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def offline(folder: Path) -> dict[str, str]:
    """Environment variables with which pip sees the wheels in ``folder`` and nothing else, and
    environments are made beside them."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "EQUIVBENCH_CACHE": str(folder / "cache"),
    }


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.decode().rstrip('=')}"
