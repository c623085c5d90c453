"""The force-field pairs: which arms, at which sizes, and why each is fair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equivbench.specs import ArmSpec, Augmentation, PairPreset, PairSpec, Recipe
from equivbench.tasks.pairs import STEP_TIME, Configs, arm, pair, sizes, targets, tuning

_PRESETS = {
    "dev": PairPreset(
        "gfn2-small",
        "60steps",
        rungs=2,
        rotations=2,
        test_samples=32,
        part_samples=16,
        baselines={"zero": 2.361091130463725, "linear": 0.9056932886389257},
    ),
    "small": PairPreset(
        "gfn2-small",
        "60s",
        rotations=2,
        baselines={"zero": 2.7905024362813027, "linear": 1.1133196519536628},
        baselines_on={"gfn2-20k": {"zero": 2.8045629028249794, "linear": 1.0887692141752936}},
    ),
    "paper": PairPreset("mace-off", "1h", rotations=2, test_samples=4096),
}

_ESCAIP_WIDTHS: dict[str, int | str] = {"hidden": "heads", "atom": 1, "distance": 1, "direction": 1}
_WIDTHS: Mapping[str, Mapping[str, int | str]] = {
    "painn": {"features": 1},
    "plain-vectors": {"features": 1},
    "relaxed-painn": {"features": 1, "free_features": 1},
    "escaip": _ESCAIP_WIDTHS,
    "escaip-tied": _ESCAIP_WIDTHS,
    "nequip": {"channels": 1, "hidden": 1},
    "vector-transformer": {"width": "heads"},
    "platonic-transformer": {"features": "heads"},
    "esen": {"channels": 1, "hidden": 1, "edge": 1},
    "orb": {"width": 1, "hidden": 1},
}
"""By model. Bases of distances and angles (radial, orders) are resolutions, not widths."""


def _arm(
    name: str,
    model: str,
    configs: Configs,
    batches: tuple[int, int],
    rates: tuple[float, float],
    tuned: Mapping[str, Any],
    wrapper: str | None = None,
    augmentation: Augmentation | None = None,
    **changes: Any,
) -> ArmSpec:
    """An arm with batches and rates of ``small`` and ``paper``, and the one ``dev`` recipe of all
    arms; ``changes`` as in :func:`equivbench.tasks.pairs.arm`. Only the augmented one is trained on
    rotated samples, unless ``augmentation`` says."""
    recipes = {
        "dev": Recipe(5e-3, 8, "none", warmup_steps=10),
        "small": Recipe(rates[0], batches[0], "none"),
        "paper": Recipe(
            rates[1], batches[1], "none", warmup_steps=1000, precision="tf32", compile=True
        ),
    }
    return arm(
        name,
        model,
        configs,
        recipes,
        _WIDTHS[model],
        wrapper=wrapper,
        small=tuned,
        augmentation=augmentation or ("haar" if name == "augmented" else "none"),
        **changes,
    )


def _equigrad(
    model: str, configs: Configs, batches: tuple[int, int], rates: tuple[float, float]
) -> ArmSpec:
    """The augmented arm of such a ``model``, with a penalty on the torque of forces that are an
    energy's gradient."""
    return _arm(
        "equigrad",
        model,
        configs,
        batches,
        rates,
        {},
        augmentation="haar",
        needs={"forces": "conservative"},
        # Where errors of forces know nothing of each other, of the order of the objective's own
        # part of the forces.
        symmetry_loss=5.0,
        symmetry_loss_kind="rotational-gradient",
    )


_PAINN = sizes(
    "features layers radial cutoff", (16, 2, 8, 4.0), (32, 3, 20, 5.0), (128, 3, 20, 5.0)
)
# Mixing 4 F channels with one MLP takes more weights than mixing F scalars and F vectors: fewer
# channels, the same parameters.
_PLAIN = sizes(
    "features layers radial cutoff", (14, 2, 8, 4.0), (28, 3, 20, 5.0), (112, 3, 20, 5.0)
)
_RELAXED = sizes(
    "features free_features relaxation layers radial cutoff",
    (14, 6, 0.1, 2, 8, 4.0),
    (28, 12, 0.1, 3, 20, 5.0),
    (112, 48, 0.1, 3, 20, 5.0),
)
_VECTOR_TUNING = tuning("60s", "e9ce5fef347b96b6227f41e6afd28e73ca15e9ec5cee73e13e006489ea101653")

VECTOR = pair(
    "forcefield/vector",
    "PaiNN (first-order equivariant) against the same trunk with unconstrained vectors",
    (
        _arm("equivariant", "painn", _PAINN, (16, 64), (8e-3, 5e-4), _VECTOR_TUNING),
        _arm("augmented", "plain-vectors", _PLAIN, (8, 64), (4e-3, 5e-4), _VECTOR_TUNING),
        *(
            _arm(wrapper, "plain-vectors", _PLAIN, (8, 64), (4e-3, 5e-4), {}, wrapper)
            for wrapper in ("frames", "stochastic-frames", "canonical")
        ),
        _arm(
            "symmetry-loss",
            "plain-vectors",
            _PLAIN,
            (8, 64),
            (4e-3, 5e-4),
            {},
            augmentation="haar",
            # Of the order of the objective's own weight of a force, 100.
            symmetry_loss=100.0,
        ),
        _equigrad("plain-vectors", _PLAIN, (8, 64), (4e-3, 5e-4)),
        _arm(
            "relaxed",
            "relaxed-painn",
            _RELAXED,
            (16, 64),
            (8e-3, 5e-4),
            {},
            augmentation="haar",
        ),
    ),
    _PRESETS,
    "One trunk: embedding, radial basis, gated messages along r_ij, residual updates and readouts, "
    "layer for layer. The augmented arm treats x, y, z as ordinary channels: its gates and filters "
    "see raw vectors and one MLP mixes all 4 F channels of an atom; the equivariant arm mixes "
    "vectors by component-blind maps, norms and products. Widths are set so that the parameters "
    "agree: what differs is the constraint, not the capacity. The third arm, frames, trains the "
    "plain trunk in four principal frames.",
    "parameters within 15%",
    parameters=((9409, 8824), (47841, 45896), (652161, 625748)),
    seconds=(0.024, 27.0, 16.0, 160.0),
    targets=targets(
        "60s",
        "676db766ac74e269683de5778cea74f1a45349e2",
        "2026-11-29",
        equivariant=0.088246,
        augmented=0.16655,
    ),
)

# The paper preset is the published SPICE model of 6M parameters.
_ESCAIP = sizes(
    "hidden layers heads cutoff max_neighbours radial distance atom orders direction",
    (16, 1, 2, 4.0, 12, 12, 16, 8, 4, 4),
    (48, 2, 4, 4.0, 12, 24, 32, 24, 6, 12),
    (128, 6, 8, 12.0, 20, 600, 512, 128, 10, 64),
)
_ESCAIP["paper"]["elements"] = 110
_TIED_TUNING = tuning(
    "6400samples", "2e59089e1592cbd95c6ea1ec0eb941e364a0a785f016af613eaa473bc0baf188"
)

# Published: 1e-5 over 445,000 steps. An hour is about a tenth of that, hence a higher rate.
TIED_HEAD = pair(
    "forcefield/tied-head",
    "EScAIP attention on invariants: tied force head (equivariant) against the published three-row "
    "head",
    (
        _arm("equivariant", "escaip-tied", _ESCAIP, (8, 64), (4e-3, 2e-4), _TIED_TUNING),
        _arm("augmented", "escaip", _ESCAIP, (8, 64), (4e-3, 2e-4), _TIED_TUNING),
    ),
    _PRESETS,
    "The same network to the last layer: the augmented arm's force head has three rows, one for "
    "each of x, y, z, the equivariant arm's one row for all three. Nothing else differs, so "
    "symmetry costs nothing here and removes 2 x hidden weights. A zero-cost pair, and a mild "
    "stand-in for a non-equivariant network: both arms' features are invariant.",
    "everything but two rows of the force head: parameters and step time within 15%",
    parameters=((18705, 18737), (211418, 211514), (6136966, 6137222)),
    seconds=(0.059, 23.0, 36.0, 160.0),
)

_NEQUIP = sizes(
    "channels layers lmax radial hidden cutoff neighbours",
    (8, 2, 2, 8, 8, 4.0, 12.0),
    (32, 3, 2, 8, 32, 4.0, 12.0),
    (64, 4, 2, 8, 64, 5.0, 17.0),
)
_TRANSFORMER = sizes(
    "width layers heads radial cutoff neighbours",
    (24, 2, 4, 8, 4.0, 12.0),
    (128, 4, 8, 12, 4.0, 12.0),
    (256, 8, 8, 20, 5.0, 17.0),
)
_NARROW = sizes(
    "width layers heads radial cutoff neighbours",
    (16, 1, 4, 8, 4.0, 12.0),
    (48, 4, 8, 12, 4.0, 12.0),
    (80, 8, 8, 20, 5.0, 17.0),
)
_TENSOR_TUNING = tuning(
    "6400samples", "fc1bc23211f719bed5370fe17d3d8a05c48e6deab8087c37f428048b40fc92d1"
)
_PARAMETERS_TUNING = tuning(
    "60s", "da5d5a21c1b20b08a3b96539b79159949fd671af98e9a011faef14ff231f96d5"
)

TENSOR_PRODUCT = pair(
    "forcefield/tensor-product",
    "NequIP tensor-product message passing to l = 2 against a plain transformer on raw relative "
    "vectors",
    (
        _arm("equivariant", "nequip", _NEQUIP, (8, 32), (5.66e-3, 2e-3), _TENSOR_TUNING),
        _arm(
            "augmented",
            "vector-transformer",
            _TRANSFORMER,
            (8, 32),
            (1.41e-3, 5e-4),
            _TENSOR_TUNING,
        ),
    ),
    _PRESETS,
    "What each side would run given the same device-seconds a step: higher-order equivariant "
    "features against a wider plain transformer whose attention sees raw relative vectors. Same "
    "cutoff, batch size and objective; parameters are stated, not matched.",
    STEP_TIME,
    parameters=((5945, 16780), (102273, 715396), (533569, 5449988)),
    steps=(0.0421, 0.0436),
    seconds=(0.042, 24.0, 55.0, 160.0),
)

TENSOR_PRODUCT_PARAMETERS = pair(
    "forcefield/tensor-product-parameters",
    "the tensor-product pair with as many parameters on both sides: where the gap is read per "
    "kernel backend",
    (
        _arm("equivariant", "nequip", _NEQUIP, (2, 32), (5.65e-3, 2e-3), _PARAMETERS_TUNING),
        _arm(
            "augmented",
            "vector-transformer",
            _NARROW,
            (8, 32),
            (3.99e-3, 5e-4),
            _PARAMETERS_TUNING,
        ),
    ),
    _PRESETS,
    "The networks of forcefield/tensor-product, the transformer narrowed to the equivariant "
    "network's number of parameters. Step times are left as they are, so a faster kernel backend "
    "(`--kernels`) moves the gap and leaves the match alone. Same cutoff, batch size and "
    "objective.",
    "parameters within 15%",
    parameters=((5945, 5604), (102273, 106996), (533569, 548564)),
    seconds=(0.014, 24.0, 25.0, 160.0),
    targets=targets(
        "60s",
        "3aa937ae125e9c45ad2aa2dfab378abf41ff8fcf",
        "2026-12-01",
        equivariant=0.081807,
        augmented=0.19303,
    ),
)

_PLATONIC = sizes(
    "features heads layers radial cutoff neighbours",
    (4, 1, 2, 8, 4.0, 12.0),
    (4, 1, 4, 12, 4.0, 12.0),
    (16, 2, 8, 20, 5.0, 17.0),
)
# 24 times the features and heads of a frame.
_TWIN = sizes(
    "width heads layers radial cutoff neighbours",
    (96, 24, 2, 8, 4.0, 12.0),
    (96, 24, 4, 12, 4.0, 12.0),
    (384, 48, 8, 20, 5.0, 17.0),
)
_PLATONIC_TUNING = tuning("60s", "69ab46b9e8bc690bb7c2c8ea7ddf6b9866ad229fd702967dd22e94b680bb0d00")

PLATONIC = pair(
    "forcefield/platonic",
    "transformer whose weights are shared among the 24 frames of the cube against the same without "
    "sharing",
    (
        _arm(
            "equivariant",
            "platonic-transformer",
            _PLATONIC,
            (8, 32),
            (3.99e-3, 5e-4),
            _PLATONIC_TUNING,
            augmentation="haar",
        ),
        _arm("augmented", "vector-transformer", _TWIN, (8, 32), (5.64e-3, 5e-4), _PLATONIC_TUNING),
    ),
    {name: replace(each, group="octahedral") for name, each in _PRESETS.items()},
    "One transformer, layer for layer and product for product: the equivariant arm runs the plain "
    "arm's dense products with weights that 24 frames share, so symmetry costs no operations and "
    "leaves a 24th of the weights. It is exact under the cube's rotations, by which the pair is "
    "judged, each sample in a random pose; for all others both arms are trained on rotated "
    "samples. A zero-cost pair.",
    STEP_TIME,
    parameters=((9133, 219172), (16981, 407524), (508561, 12205444)),
    steps=(0.0634, 0.0565),
    hardware="amd-epyc-f25m1-1t",
    seconds=(0.048, 24.0, 55.0, 160.0),
    targets=targets(
        "60s",
        "39b04c707b31b45c50b19d347f181296c03e3617",
        "2026-12-01",
        equivariant=0.58606,
        augmented=0.40974,
    ),
)

_ESEN = sizes(
    "channels hidden edge layers lmax mmax radial cutoff neighbours",
    (8, 8, 8, 2, 2, 2, 8, 4.0, 12.0),
    (16, 16, 16, 3, 3, 2, 8, 4.0, 12.0),
    (128, 128, 128, 10, 3, 2, 20, 5.0, 17.0),
)
_ORB = sizes(
    "width hidden layers lmax radial cutoff neighbours",
    (16, 24, 2, 2, 8, 4.0, 12.0),
    (40, 64, 4, 3, 8, 4.0, 12.0),
    (256, 1216, 5, 3, 20, 5.0, 17.0),
)

_SO2_TUNING = tuning("60s", "709bc61d2da36c9fa7cf8d13011f519380876ab57bc172aad05739e398a25f78")

# The paper preset is eSEN-30M; Orb-v3 has perceptrons of 1024.
SO2_CONVOLUTION = pair(
    "forcefield/so2-convolution",
    "eSEN (gated SO(2) convolutions in the frames of edges, l = 3) against an Orb-type graph "
    "network on raw relative vectors",
    (
        _arm("equivariant", "esen", _ESEN, (4, 32), (1.13e-2, 5e-4), _SO2_TUNING),
        _arm("augmented", "orb", _ORB, (8, 32), (2e-3, 5e-4), _SO2_TUNING),
        _equigrad("orb", _ORB, (8, 32), (2e-3, 5e-4)),
    ),
    _PRESETS,
    "Two published families that lead the tables of interatomic potentials, one on each side of "
    "the question: both pass messages of edges that see both ends, weighed by the same smooth "
    "cutoff, and both see directions as spherical harmonics of the same degree. The equivariant "
    "arm keeps features of that degree and turns them into the frame of every edge; the augmented "
    "arm takes the harmonics as so many numbers and spends its weights on dense products. Widths "
    "are set so that the parameters agree; step times are what they are. Same cutoff, batch size "
    "and objective.",
    "parameters within 15%",
    parameters=((14281, 13736), (135617, 138108), (29192321, 28647502)),
    # Those of the analyses as for tensor-product, by the time of a step.
    seconds=(0.071, 68.0, 105.0, 305.0),
    targets=targets(
        "60s",
        "39b04c707b31b45c50b19d347f181296c03e3617",
        "2026-12-01",
        equivariant=0.1155,
        augmented=0.42939,
    ),
)

PAIRS: tuple[PairSpec, ...] = (
    VECTOR,
    TIED_HEAD,
    TENSOR_PRODUCT,
    TENSOR_PRODUCT_PARAMETERS,
    PLATONIC,
    SO2_CONVOLUTION,
)
