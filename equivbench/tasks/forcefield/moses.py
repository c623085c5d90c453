"""The SMILES of MOSES, some 1.6 million lead-like molecules of the ZINC database, from the table in
the wheel of the package molsets. The wheel is read as the archive that it is: nothing of it is
installed or run. Imports no torch."""

from __future__ import annotations

import csv
import gzip
import zipfile
import zlib
from pathlib import Path

from equivbench.errors import FailedError
from equivbench.tasks.archives import cannot_be_read, location, must_exist

WHEEL = "molsets-0.3.1-py3-none-any.whl"
TABLE = "moses/dataset/data/train.csv.gz"
"""In the wheel: a row a molecule, in a column ``SMILES``."""
LICENCE = (
    "SMILES of MOSES (Polykovskiy et al. 2020, molecules of ZINC's Clean Leads) from the wheel of "
    "molsets 0.3.1 (MIT)"
)


def published(_: str = "") -> Path:
    """Where the user has the wheel."""
    return location("MOSES", WHEEL)


def moses_smiles() -> list[str]:
    """The SMILES in the wheel that ``EQUIVBENCH_DATA_MOSES`` names, in its order.

    Raises ``FailedError``, naming the file, if it is missing, is no such wheel or is cut short.
    """
    path = published()
    must_exist(path, "MOSES", "the wheel that `pip download --no-deps molsets==0.3.1` brings")
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(TABLE, mode="r") as packed,
            gzip.open(packed, "rt", encoding="utf-8", newline="") as text,
        ):
            return [row["SMILES"] for row in csv.DictReader(text, restval="")]
    except (
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
        csv.Error,
    ) as error:
        raise FailedError(
            f"{path} is not the wheel of molsets 0.3.1, or is cut short "
            f"({error or type(error).__name__}); fetch it again"
        ) from error
    except OSError as error:
        raise cannot_be_read(path, error) from error
