"""``equivbench data``: prepares, verifies or locates a data set."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.completion import completer
from equivbench.cli.options import Json
from equivbench.cli.output import print_json

if TYPE_CHECKING:
    from equivbench.tasks.base import DatasetSource

HELP = """Prepare, verify or locate a data set (`equivbench list datasets` names them).

Shipped sets are in the package. Others are built once into the cache (EQUIVBENCH_CACHE, by default
the user's cache folder): gfn2-20k and conformers-10k by generators, which takes about 10 minutes on
two cores (pip install 'equivbench[generate]'), and gfn2-100k in about 40, which goes on where it
was interrupted; spice, mace-off, md17-*, rmd17-*, ca-folder, ca-windows-64, geom-drugs, qm9 and
qm9-32 from files that you have and whose place you name:

\b
EQUIVBENCH_DATA_SPICE      the file SPICE.hdf5 (pip install 'equivbench[spice]')
EQUIVBENCH_DATA_MACE_OFF   the folder of train_large_neut_no_bad_clean.xyz and
                           test_large_neut_all.xyz
EQUIVBENCH_DATA_MD17       torch_geometric's MD17 folder; what it lacks is fetched
EQUIVBENCH_DATA_CA_FOLDER  a folder of mmCIF or PDB files, .gz too
                           (pip install 'equivbench[structures]')
EQUIVBENCH_DATA_CA_PACKAGES the folder in which you run `pip download` as `data prepare
                           ca-windows-64` says (pip install 'equivbench[structures]')
EQUIVBENCH_DATA_MOSES      for gfn2-100k: the wheel that
                           `pip download --no-deps molsets==0.3.1` brings
EQUIVBENCH_DATA_GEOM_DRUGS the folder of train_data.pickle, val_data.pickle and
                           test_data.pickle (MiDi's split)
EQUIVBENCH_DATA_QM9        the wheel that `pip download --no-deps qm9pack==1.0.3` brings

By default they are looked for under `sources` in the cache.
"""

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=HELP)

Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A name of `equivbench list datasets`.",
        autocompletion=completer("datasets"),
    ),
]


@app.command()
def prepare(dataset: Dataset, json: Json = False) -> None:
    """Build or fetch a data set.

    It goes into the cache unless it is there; its SHA-256 is checked and its path printed.
    """
    source = _source(dataset)
    source.prepare()
    _show(dataset, source, source.verify(), json)


@app.command()
def verify(dataset: Dataset, json: Json = False) -> None:
    """Check a data set's SHA-256.

    Exits 3 if it is missing, cut short or changed.
    """
    source = _source(dataset)
    _show(dataset, source, source.verify(), json)


@app.command()
def path(dataset: Dataset, json: Json = False) -> None:
    """Print where a data set is.

    Exits 3 if it is not there, or not whole.
    """
    from equivbench.tasks.archives import ArchiveSource, not_prepared

    source = _source(dataset)
    if isinstance(source, ArchiveSource):
        problem = source.problem(dataset)
    else:
        problem = None if source.path().exists() else not_prepared(dataset, source.path())
    if problem is not None:
        raise problem
    _show(dataset, source, None, json)


def _source(dataset: str) -> DatasetSource:
    from equivbench.registry import DATASETS, resolve

    source: DatasetSource = resolve(DATASETS.get(dataset).factory)()
    return source


def _show(dataset: str, source: DatasetSource, sha256: str | None, json: bool) -> None:
    if json:
        print_json({"name": dataset, "path": str(source.path()), "sha256": sha256})
        return
    sys.stdout.write(f"{source.path()}\n")
    if sha256 is not None:
        sys.stderr.write(f"{dataset}: SHA-256 {sha256}, as on its card\n")
