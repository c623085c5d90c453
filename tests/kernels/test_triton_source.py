"""The written Triton source: what is not asked for is neither read nor written, and every part is
done once."""

import ast
from dataclasses import replace

import pytest

from equivbench.kernels.fused.triton_source import INPUTS, TritonRequest, parts, write
from equivbench.kernels.operations import Convolution, PaiNNMessage

OPERATION = Convolution((128, 64, 32), 2, 2)


def request(
    kind: str = "neighbours", tangents: tuple[str, ...] = (), wanted: tuple[str, ...] = INPUTS
) -> TritonRequest:
    return TritonRequest(OPERATION, kind, frozenset(tangents), frozenset(wanted), "float32", 64)  # type: ignore[arg-type]


def names(source: str) -> set[str]:
    """The names that are used, arguments of functions apart."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id.startswith("rows")
        ):
            node.args = []
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_parts_cover_all_channels_once() -> None:
    assert parts(OPERATION, 64) == ((0, 0), (0, 1), (1, 0), (2, 0))


@pytest.mark.parametrize("wanted", INPUTS)
def test_gradients_that_nobody_wants_cost_nothing(wanted: str) -> None:
    used = names(write(request(wanted=(wanted,))))
    assert {name for name in used if name.startswith("gradient_")} == {f"gradient_{wanted}"}
    # The gradient by an input does not read that input: the form is linear in it.
    assert wanted not in used


def test_the_convolution_reads_no_cotangent_and_writes_one_output() -> None:
    used = names(write(request("centres", wanted=())))
    assert {*INPUTS, "output"} <= used
    assert not {name for name in used if name.startswith(("gradient_", "tangent_", "cotangent"))}


@pytest.mark.parametrize("vectors", [True, False])
def test_paths_to_the_same_features_are_one_sum_that_is_written_once(vectors: bool) -> None:
    message = replace(request("centres", wanted=()), operation=PaiNNMessage(32, vectors))
    # The scalars and the three components of the vectors.
    assert write(message).count("tl.store(output ") == 4


def test_every_tangent_that_is_given_is_read() -> None:
    used = names(write(request(tangents=INPUTS)))
    assert {f"tangent_{name}" for name in INPUTS} <= used


def test_the_same_request_gives_the_same_source() -> None:
    assert write(request(tangents=("x", "weights"))) == write(request(tangents=("weights", "x")))
