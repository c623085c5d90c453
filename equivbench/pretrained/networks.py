"""The pretrained networks that are known, as plain declarations: what is installed, what is called,
what is promised. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from equivbench.errors import unknown_name
from equivbench.specs import Symmetry

Door = Literal["forces", "scores"]
"""What a network is asked for: forces on some atoms, or scores of a complex."""
WEIGHTS = "{weights}"
"""Stands in a declaration for the file that the user gives with ``--weights``."""


@dataclass(frozen=True)
class LoadCall:
    """A call in the network's own environment: ``package.module:attribute``, and its arguments,
    which may be calls themselves."""

    where: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def plain(self, weights: str | None = None) -> dict[str, Any]:
        """As JSON can hold it, with the user's file of ``weights`` in its place."""
        arguments = {
            name: each.plain(weights)
            if isinstance(each, LoadCall)
            else weights
            if each == WEIGHTS
            else each
            for name, each in self.arguments.items()
        }
        return {"call": self.where, "arguments": arguments}

    @property
    def takes_weights(self) -> bool:
        """Whether the user must give a file of weights."""
        return any(
            each.takes_weights if isinstance(each, LoadCall) else each == WEIGHTS
            for each in self.arguments.values()
        )


@dataclass(frozen=True)
class Family:
    """Networks that come with one package."""

    name: str
    requirements: tuple[str, ...]
    """What pip installs, with versions."""
    packages: tuple[str, ...]
    """Whose versions a record names."""
    source: str
    """Where it was published."""


@dataclass(frozen=True)
class PretrainedNetwork:
    """One set of weights."""

    name: str
    family: Family
    summary: str
    load: LoadCall
    """Gives an ASE calculator, or a network of a grid that holds a complex."""
    symmetry: Symmetry
    """What its authors declare; ``none`` where they declare none."""
    dataset: str
    """What it is measured on: a data set of the task ``forcefield``, or the shipped ``complex``."""
    door: Door = "forces"
    offline: bool = True
    """Whether the weights come inside the package."""
    compared: bool = True
    """Whether the forces of the data set are of a kind that it predicts; if not, its own squared
    prediction stands in for the loss."""


MOLECULES, CRYSTALS, COMPLEX = "gfn2-small", "crystals", "complex"
SO3LR = Family(
    "so3lr",
    ("so3krates-torch==0.2.1",),
    ("so3krates-torch",),
    "Kabylda et al., J. Am. Chem. Soc. 2025, doi:10.1021/jacs.5c09558",
)
SEVENNET = Family(
    "sevennet",
    ("sevenn==0.13.0", "pandas", "scikit-learn", "joblib", "cloudpickle"),
    ("sevenn", "e3nn"),
    "Park et al., J. Chem. Theory Comput. 2024, doi:10.1021/acs.jctc.4c00190",
)
CHGNET = Family(
    "chgnet",
    ("chgnet==0.4.2", "pymatgen==2025.10.7"),
    ("chgnet", "pymatgen"),
    "Deng et al., Nat. Mach. Intell. 2023, doi:10.1038/s42256-023-00716-3",
)
DIEP = Family(
    "diep",
    ("diep==2.0.0",),
    ("diep",),
    "Tawfik et al., Digital Discovery 2024, diep 2.0 on the package index",
)
GNINA = Family(
    "gnina",
    ("gninatorch==0.0.2", "molgrid==0.5.5"),
    ("gninatorch", "molgrid"),
    "McNutt et al., J. Cheminform. 2021, doi:10.1186/s13321-021-00522-2",
)
ORB = Family(
    "orb",
    ("orb-models==0.5.5",),
    ("orb-models",),
    "Rhodes et al. 2025, arXiv:2504.06231",
)
PET = Family(
    "pet",
    ("upet==0.3.1",),
    ("upet", "metatrain"),
    "Mazitov et al., Nat. Commun. 2025, arXiv:2503.14118",
)
MACE = Family(
    "mace-off",
    ("mace-torch==0.3.16",),
    ("mace-torch", "e3nn"),
    "Kovács et al., J. Am. Chem. Soc. 2025, arXiv:2312.15211",
)
FAIRCHEM = Family(
    "fairchem",
    ("fairchem-core==2.24.0",),
    ("fairchem-core",),
    "Wood et al. 2025, arXiv:2506.23971",
)
ESCAIP = Family(
    "escaip",
    ("fairchem-core==2.24.0",),
    ("fairchem-core",),
    "Qu and Krishnapriyan, NeurIPS 2024, arXiv:2410.24169",
)


def _sevennet(name: str, summary: str, model: str, **arguments: object) -> PretrainedNetwork:
    call = LoadCall(
        "sevenn.calculator:SevenNetCalculator", {"model": model, "device": "cpu", **arguments}
    )
    return PretrainedNetwork(name, SEVENNET, summary, call, "so3", MOLECULES)


def _chgnet(name: str, version: str, summary: str) -> PretrainedNetwork:
    network = LoadCall(
        "chgnet.model.model:CHGNet.load",
        {"model_name": version, "use_device": "cpu", "verbose": False},
    )
    call = LoadCall(
        "chgnet.model.dynamics:CHGNetCalculator",
        {"model": network, "use_device": "cpu", "on_isolated_atoms": "ignore"},
    )
    return PretrainedNetwork(name, CHGNET, summary, call, "o3", CRYSTALS, compared=False)


def _gnina(weights: str) -> PretrainedNetwork:
    name = weights.replace("_default2018", "").replace("_", "-")
    call = LoadCall("gninatorch.gnina:load_gnina_model", {"gnina_model": weights})
    trained_on = weights.partition("_")[0]
    return PretrainedNetwork(
        f"gnina-{name}",
        GNINA,
        f"Affinity on a voxel grid, trained on {trained_on} data under random rotations.",
        call,
        "none",
        COMPLEX,
        door="scores",
    )


_GNINA_WEIGHTS = tuple(
    f"{data}_default2018{number}"
    for data in ("crossdock", "redock", "general")
    for number in ("", "_1", "_2", "_3", "_4")
)
NETWORKS: Mapping[str, PretrainedNetwork] = {
    each.name: each
    for each in (
        PretrainedNetwork(
            "so3lr",
            SO3LR,
            "Equivariant transformer with long-range physics for (bio)molecules, PBE0+MBD.",
            LoadCall("so3krates_torch.calculator.so3:SO3LRCalculator", {"device": "cpu"}),
            "so3",
            MOLECULES,
        ),
        _sevennet("7net-0", "Equivariant, inorganic PBE, July 2024.", "7net-0"),
        _sevennet("7net-0-may", "The same network, May 2024.", "7net-0_22May2024"),
        _sevennet("7net-l3i5", "Larger (degree 3, 5 layers), inorganic PBE.", "7net-l3i5"),
        _sevennet(
            "7net-mf-0", "Several levels of theory; asked for PBE.", "7net-mf-0", modal="PBE"
        ),
        _chgnet("chgnet-0.3.0", "0.3.0", "Invariant graph network with charges, MPtrj."),
        _chgnet("chgnet-0.2.0", "0.2.0", "Its predecessor."),
        _chgnet("chgnet-r2scan", "r2scan", "The same, carried over to r2SCAN."),
        PretrainedNetwork(
            "diep",
            DIEP,
            "Graph network on integrals of the external potential, MatPES r2SCAN.",
            LoadCall("diep.pretrained:make_calculator", {"device": "cpu"}),
            "o3",
            CRYSTALS,
            compared=False,
        ),
        *map(_gnina, _GNINA_WEIGHTS),
        PretrainedNetwork(
            "orb-v3",
            ORB,
            "Unconstrained graph network, conservative forces, OMat24.",
            LoadCall(
                "orb_models.forcefield.calculator:ORBCalculator",
                {
                    "model": LoadCall(
                        "orb_models.forcefield.pretrained:orb_v3_conservative_inf_omat",
                        {"device": "cpu", "precision": "float32-highest"},
                    ),
                    "device": "cpu",
                },
            ),
            "none",
            MOLECULES,
            offline=False,
        ),
        PretrainedNetwork(
            "pet-mad-s",
            PET,
            "Unconstrained point-edge transformer, MAD, r2SCAN.",
            LoadCall(
                "upet.ase:UPETCalculator",
                {"model": "pet-mad-s", "version": "1.6.0", "device": "cpu"},
            ),
            "none",
            MOLECULES,
            offline=False,
        ),
        PretrainedNetwork(
            "mace-off23-small",
            MACE,
            "Equivariant, organic molecules, SPICE.",
            LoadCall(
                "mace.calculators:mace_off",
                {"model": "small", "device": "cpu", "default_dtype": "float64"},
            ),
            "o3",
            MOLECULES,
            offline=False,
        ),
        PretrainedNetwork(
            "uma-s",
            FAIRCHEM,
            "Equivariant mixture of linear experts, asked as for molecules (OMol25); needs a "
            "licence on the model hub.",
            LoadCall(
                "fairchem.core:FAIRChemCalculator",
                {
                    "predict_unit": LoadCall(
                        "fairchem.core.calculate.pretrained_mlip:get_predict_unit",
                        {
                            "model_name": "uma-s-1p2",
                            "device": "cpu",
                            "inference_settings": "high-precision",
                        },
                    ),
                    "task_name": "omol",
                },
            ),
            "so3",
            MOLECULES,
            offline=False,
        ),
        PretrainedNetwork(
            "escaip",
            ESCAIP,
            "Unconstrained attention network; its weights are a file that you give with --weights.",
            LoadCall(
                "fairchem.core:FAIRChemCalculator.from_model_checkpoint",
                {
                    "name_or_path": WEIGHTS,
                    "task_name": "omol",
                    "device": "cpu",
                    "inference_settings": "high-precision",
                },
            ),
            "none",
            MOLECULES,
            offline=False,
        ),
    )
}
"""By name, in the order of the table."""


def chosen(names: tuple[str, ...]) -> list[PretrainedNetwork]:
    """The networks and families called ``names``, each network once, in their order; without any,
    those whose weights are offline. Raises ``UsageError`` for an unknown name."""
    if not names:
        return [each for each in NETWORKS.values() if each.offline]
    found: dict[str, PretrainedNetwork] = {}
    families = {each.family.name for each in NETWORKS.values()}
    for name in names:
        if name not in NETWORKS and name not in families:
            raise unknown_name("pretrained network", name, {*NETWORKS, *families})
        found |= {
            each.name: each for each in NETWORKS.values() if name in (each.name, each.family.name)
        }
    return list(found.values())
