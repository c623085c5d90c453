"""The references: derivatives against finite differences, and the symmetries that make each
operation what it is."""

import math
from dataclasses import replace

import pytest
import torch
from e3nn import o3
from test_backend_plain import CPU, SMALL
from torch import Tensor

from equivbench.kernels.backends.plain.wigner import WignerToAxis, whole_matrices
from equivbench.kernels.operations import (
    Case,
    Convolution,
    CubeConvolution,
    EdgeProduct,
    InvariantPointAttention,
    Linear,
    Operation,
    PaiNNMessage,
    SO2Convolution,
    SO2Message,
    SphericalHarmonics,
    SteerableConvolution,
    SymmetricContraction,
    case,
)
from equivbench.kernels.operations.edge_frames import frame_elements, frame_rows
from equivbench.kernels.problem import make_inputs
from equivbench.symmetry.grids import permute_grid
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations

ROTATION = random_rotations(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[0]
SIZES = {"nodes": 4, "edges": 6, "elements": 2, "samples": 1, "residues": 3, "size": 3}
# One channel of each kind is enough for a formula, and keeps finite differences quick.
FORMULAS: tuple[tuple[Operation, int], ...] = (
    (Convolution((2, 1), 1, 2), 2),
    (Convolution((1, 1), 1, 1, parity=False), 2),
    (PaiNNMessage(2), 2),
    (PaiNNMessage(1, vectors=False), 2),
    (EdgeProduct(1, 1), 2),
    (SymmetricContraction(1, 2, 1), 2),
    (SO2Convolution(1, 2, 1, 1), 2),
    (SO2Message(1, 2, 2, 1, 1), 2),
    (SphericalHarmonics(3), 2),
    (Linear((2, 1), (1, 2)), 2),
    (InvariantPointAttention(1, 2, 1, 1), 1),
    (SteerableConvolution((1, 1), (1, 1), 1, 2.5, 2), 1),
    (CubeConvolution(1, 1, 3), 1),
)


def drawn(operation: Operation, sizes: dict[str, int] = SIZES) -> dict[str, Tensor]:
    return make_inputs(Case("test", operation, sizes, 2, ""), dtype=torch.float64, device=CPU)


@pytest.mark.parametrize(
    ("operation", "order"), FORMULAS, ids=lambda value: getattr(value, "name", None)
)
def test_derivatives_are_those_of_finite_differences(operation: Operation, order: int) -> None:
    inputs = drawn(operation)
    by = operation.differentiable
    fixed = {name: value for name, value in inputs.items() if name not in by}

    def function(*values: Tensor) -> Tensor:
        return operation.reference(**dict(zip(by, values, strict=True)), **fixed)

    arguments = tuple(inputs[name].requires_grad_() for name in by)
    # Random projections of the Jacobian: all its entries would take minutes.
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True, check_forward_ad=True)
    assert order == 1 or torch.autograd.gradgradcheck(
        function, arguments, fast_mode=True, check_fwd_over_rev=True
    )


def turn(features: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
    """[rows, features] of (degree, channels) blocks, channels innermost, after ROTATION."""
    parts = features.split([(2 * degree + 1) * channels for degree, channels in blocks], dim=1)
    # Wigner matrices from harmonics, which e3nn has in float64.
    out = []
    for part, (degree, channels) in zip(parts, blocks, strict=True):
        points = torch.randn(
            4 * degree + 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        before, after = (
            o3.spherical_harmonics(degree, one, normalize=True)
            for one in (points, points @ ROTATION.T)
        )
        matrix = torch.linalg.lstsq(before, after).solution.T
        out.append((matrix @ part.reshape(-1, 2 * degree + 1, channels)).flatten(1))
    return torch.cat(out, dim=1)


def assert_same(found: Tensor, expected: Tensor) -> None:
    # Float64 rounding of sums of tens of terms; an unturned input is wrong by all of it.
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parity", [True, False])
def test_the_convolution_turns_with_its_features_and_harmonics(parity: bool) -> None:
    operation = Convolution((2, 3, 1), 2, 3, parity)
    inputs = drawn(operation)
    source = list(enumerate(operation.channels))
    target = [(path.target, operation.channels[path.source]) for path in operation.paths]
    turned = {
        **inputs,
        "x": turn(inputs["x"], source),
        "harmonics": turn(inputs["harmonics"], [(l, 1) for l in range(3)]),
    }
    function = operation.reference
    assert_same(function(**turned), turn(function(**inputs), target))


def test_the_convolution_is_the_sum_written_out() -> None:
    operation = Convolution((2,), 1, 1)
    inputs = drawn(operation)
    expected = torch.zeros(4, 2 + 6, dtype=torch.float64)
    for edge, (source, centre) in enumerate(inputs["edge_index"].T.tolist()):
        scalars, harmonics, weights = (
            inputs["x"][source],
            inputs["harmonics"][edge],
            inputs["weights"][edge],
        )
        expected[centre, :2] += weights[:2] * scalars * harmonics[0]
        # 3j(1, 0, 1) is the identity over the root of 3, which the normalisation takes away.
        expected[centre, 2:] += (harmonics[1:, None] * weights[2:] * scalars).flatten()
    assert_same(operation.reference(**inputs), expected)


def test_painns_message_is_the_sum_written_out() -> None:
    inputs = drawn(PaiNNMessage(2))
    expected = torch.zeros(4, 8, dtype=torch.float64)
    for edge, (source, centre) in enumerate(inputs["edge_index"].T.tolist()):
        for_scalars, for_directions, *vectors = inputs["x"][source].view(5, 2)
        filters = inputs["weights"][edge].view(3, 2)
        rows = [filters[0] * for_scalars]
        for component, vector in zip(inputs["directions"][edge], vectors, strict=True):
            rows.append(component * filters[1] * for_directions + filters[2] * vector)
        expected[centre] += torch.cat(rows)
    assert_same(PaiNNMessage(2).reference(**inputs), expected)


def test_painns_message_turns_with_its_vectors_and_directions() -> None:
    operation = PaiNNMessage(3)
    inputs = drawn(operation)
    turned = {
        **inputs,
        "x": turn(inputs["x"], [(0, 6), (1, 3)]),
        "directions": inputs["directions"] @ ROTATION.T,
    }
    function = operation.reference
    assert_same(function(**turned), turn(function(**inputs), [(0, 3), (1, 3)]))


def test_the_edge_product_turns_with_its_features_and_harmonics() -> None:
    operation = EdgeProduct(2, 2)
    inputs = drawn(operation)
    blocks = [(degree, 2) for degree in range(3)]
    turned = {
        **inputs,
        "x": turn(inputs["x"], blocks),
        "harmonics": turn(inputs["harmonics"], [(l, 1) for l in range(3)]),
    }
    function = operation.reference
    assert_same(function(**turned), turn(function(**inputs), blocks))


def test_the_symmetric_contraction_turns_with_its_features() -> None:
    operation = SymmetricContraction(2, 3, 2)
    inputs = drawn(operation)
    function = operation.reference
    blocks = [(degree, 2) for degree in range(4)]
    turned = {**inputs, "x": turn(inputs["x"], blocks)}
    assert_same(function(**turned), turn(function(**inputs), blocks[:3]))


def test_the_symmetric_contraction_keeps_the_parity_of_its_features() -> None:
    operation = SymmetricContraction(2, 3, 2)
    inputs = drawn(operation)
    signs = torch.tensor([(-1.0) ** degree for degree in range(4) for _ in range(2 * degree + 1)])
    mirrored = {**inputs, "x": inputs["x"] * signs.repeat_interleave(2)}
    function = operation.reference
    assert_same(function(**mirrored), function(**inputs) * signs[:9].repeat_interleave(2))


def test_the_so2_convolution_turns_with_its_features_and_vectors() -> None:
    operation = SO2Convolution(2, 3, 2, 1)
    inputs = drawn(operation)
    turned = {
        **inputs,
        "x": turn(inputs["x"], [(l, 2) for l in range(3)]),
        "vectors": inputs["vectors"] @ ROTATION.T,
    }
    function = operation.reference
    assert_same(function(**turned), turn(function(**inputs), [(l, 3) for l in range(3)]))


def of_vectors(vectors: Tensor) -> Tensor:
    """The Wigner matrices of l <= 3 and |m| <= 2, for a message."""
    return WignerToAxis(3, 2).double()(vectors)


def test_esens_message_turns_with_its_features_and_vectors() -> None:
    operation = SO2Message(2, 3, 3, 2, 2)
    inputs = drawn(operation)
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stands = {**inputs, "frames": of_vectors(vectors)}
    turned = {
        **inputs,
        "frames": of_vectors(vectors @ ROTATION.T),
        "x": turn(inputs["x"], [(l, 2) for l in range(4)]),
    }
    function = operation.reference
    assert_same(function(**turned), turn(function(**stands), [(l, 2) for l in range(3)]))


def test_esens_message_does_not_see_turns_about_the_edge() -> None:
    operation = SO2Message(2, 3, 3, 2, 2)
    inputs = drawn(operation)
    rows = frame_rows(3, 2)
    about = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for n, (l, m) in enumerate(rows):
        about[n, n] = math.cos(0.7 * m)
        if m:
            about[n, rows.index((l, -m))] = math.sin(0.7 * m)
    whole = about @ whole_matrices(3, 2, inputs["x"])(inputs["frames"])
    places = frame_elements(3, 2)
    turned = {**inputs, "frames": torch.stack([whole[:, row, one] for row, one in places], dim=1)}
    assert (turned["frames"] - inputs["frames"]).abs().max() > 0.1
    assert_same(operation.reference(**turned), operation.reference(**inputs))


def test_harmonics_are_e3nns() -> None:
    vectors = drawn(SphericalHarmonics(4), {"edges": 20})["vectors"]
    expected = o3.spherical_harmonics(
        [0, 1, 2, 3, 4], vectors, normalize=True, normalization="component"
    )
    assert_same(SphericalHarmonics(4).reference(vectors=vectors), expected)


def test_point_attention_does_not_see_a_rotation_of_everything() -> None:
    operation = InvariantPointAttention(2, 4, 2, 3)
    inputs = drawn(operation)
    turned = {
        **inputs,
        "frames": inputs["frames"] @ ROTATION.T,
        "positions": inputs["positions"] @ ROTATION.T
        + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
    }
    function = operation.reference
    assert_same(function(**turned), function(**inputs))


@pytest.mark.parametrize("number", [1, 7, 16])
def test_voxel_convolutions_turn_with_the_cube(number: int) -> None:
    element = octahedral_rotations(torch.float64)[number]
    operation = CubeConvolution(1, 2, 3)
    inputs = drawn(operation)
    function = operation.reference
    assert_same(
        function(**{**inputs, "x": regular(inputs["x"], element)}),
        regular(function(**inputs), element),
    )


def regular(x: Tensor, element: Tensor) -> Tensor:
    """(g f)(h, r) = f(g^-1 h, g^-1 r) for grids [1, 24 features, size, size, size]."""
    elements = octahedral_rotations(torch.float64)
    order = torch.cdist((element.T @ elements).flatten(1), elements.flatten(1)).argmin(1)
    fields = torch.unflatten(x, 1, (-1, 24))[:, :, order].flatten(1, 2)
    return permute_grid(fields, element[None])


def test_inputs_are_fixed_by_the_seed_and_the_same_in_every_dtype() -> None:
    for one in SMALL:
        first = make_inputs(one, dtype=torch.float64, device=CPU)
        single = make_inputs(one, dtype=torch.float32, device=CPU)
        other = make_inputs(one, dtype=torch.float64, device=CPU, seed=1)
        assert all(torch.equal(first[name], single[name].to(first[name].dtype)) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
        assert not any(value.requires_grad for value in first.values())


def test_edges_come_in_both_directions_and_not_sorted_by_centre() -> None:
    index = make_inputs(case("convolution-c8-l2"), dtype=torch.float32, device=CPU)["edge_index"]
    edges = {tuple(edge) for edge in index.T.tolist()}
    assert len(edges) == index.shape[1]
    assert {(second, first) for first, second in edges} == edges
    assert all(first != second for first, second in edges)
    assert not torch.equal(index[1], index[1].sort().values)


@pytest.mark.slow
def test_the_largest_case_has_its_second_derivatives_in_six_gib() -> None:
    resource = pytest.importorskip("resource", reason="peak memory is read by the resource module")
    operation = case("convolution-c64-l3").operation
    # A tenth of the edges; all of them take 10 times as long and no more than 6 GiB (measured).
    one = replace(case("convolution-c64-l3"), sizes={"nodes": 200, "edges": 1_000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inputs = make_inputs(one, dtype=torch.float64, device=CPU)
    by = [inputs[name].requires_grad_() for name in operation.differentiable]
    output = operation.reference(**inputs)
    first = torch.autograd.grad(
        output, by, torch.ones_like(output, requires_grad=True), create_graph=True
    )
    torch.autograd.grad(first, by, [torch.ones_like(part) for part in first])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: 1 GiB
