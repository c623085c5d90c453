"""The written Triton source of the symmetric contraction, of the edge product and of what takes
features into the frames of edges or back: what is not asked for is neither read nor written, and
each result is written once."""

import ast
import itertools
from typing import Any

import pytest

from equivbench.kernels.fused import triton_contraction_source as contraction
from equivbench.kernels.fused import triton_frames_source as frames
from equivbench.kernels.fused import triton_product_source as product
from equivbench.kernels.operations import EdgeProduct, SymmetricContraction
from equivbench.kernels.operations.edge_frames import FrameTurn

CONTRACTION = SymmetricContraction(40, 2, 1)
PRODUCT = EdgeProduct(40, 2)
# Two ends, and elements of the matrices that are not used; the same back.
TURNS = {False: FrameTurn(70, 2, 2, 2, 2, 1), True: FrameTurn(70, 1, 2, 2, 1, 1)}
ARGUMENTS = tuple(frames.LETTERS)


def of_contraction(kind: Any, tangents: Any = (), wanted: Any = ("x", "weights")) -> str:
    request = contraction.ContractionRequest(
        CONTRACTION, kind, frozenset(tangents), frozenset(wanted), "float32", 32
    )
    return contraction.write_contraction(request)


def of_product(kind: Any, tangents: Any = (), wanted: Any = product.INPUTS) -> str:
    along = frozenset(tangents)
    chosen = frozenset(wanted) & product.reached(along)
    request = product.ProductRequest(PRODUCT, kind, along, chosen, "float32", 32)
    return product.write_product(request)


def of_turn(back: bool, tangents: Any = (), wanted: Any = ARGUMENTS) -> str:
    along = frozenset(tangents)
    chosen = frozenset(wanted) & frames.reached(along)
    request = frames.TurnRequest(TURNS[back], back, along, chosen, "float32", 64)
    return frames.write_turn(request)


def used(source: str) -> set[str]:
    """The names in loads, stores and what is computed, arguments of the written functions apart."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("degree"):
            node.args = []
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def subsets(names: Any) -> list[tuple[str, ...]]:
    return [
        chosen for count in range(len(names) + 1) for chosen in itertools.combinations(names, count)
    ]


def assert_whole(source: str) -> None:
    """Every name that a function reads is there, and every one that it assigns is read."""
    functions = [one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef)]
    for function in functions:
        known = {"tl", "triton", *(one.name for one in functions)}
        known |= {argument.arg for argument in function.args.args}
        assigned: set[str] = set()
        read: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else assigned).add(node.id)
        assert read <= known | assigned
        assert assigned <= read | {"step"}


@pytest.mark.parametrize("tangents", subsets(contraction.INPUTS), ids=str)
@pytest.mark.parametrize("kind", ["outputs", "gradients"])
def test_a_contraction_computes_what_it_writes(kind: str, tangents: tuple[str, ...]) -> None:
    source = of_contraction(kind, tangents)
    assert_whole(source)
    assert {f"tangent_{name}" for name in tangents} <= used(source)


@pytest.mark.parametrize("tangents", subsets(product.INPUTS), ids=str)
@pytest.mark.parametrize("kind", ["around", "products", "gradients", "unravel"])
def test_a_product_computes_what_it_writes(kind: str, tangents: tuple[str, ...]) -> None:
    assert_whole(of_product(kind, tangents))


@pytest.mark.parametrize("tangents", subsets(ARGUMENTS), ids=str)
@pytest.mark.parametrize("back", [False, True])
def test_a_turn_computes_what_it_writes(back: bool, tangents: tuple[str, ...]) -> None:
    source = of_turn(back, tangents)
    assert_whole(source)
    assert {f"tangent_{name}" for name in tangents} <= used(source)


@pytest.mark.parametrize("wanted", contraction.INPUTS)
def test_gradients_of_a_contraction_that_nobody_wants_cost_nothing(wanted: str) -> None:
    names = used(of_contraction("gradients", wanted=(wanted,)))
    assert ("gradient_x" in names) is (wanted == "x")
    assert ("shares" in names) is (wanted == "weights")
    # S is linear in the weights.
    assert ("weights" in names) is (wanted == "x")


@pytest.mark.parametrize("wanted", product.INPUTS)
def test_gradients_of_a_product_that_nobody_wants_cost_nothing(wanted: str) -> None:
    names = used(of_product("gradients", wanted=(wanted,)))
    own = wanted if wanted in ("x", "weights") else "around"
    assert {name for name in names if name.startswith("gradient_")} == {f"gradient_{own}"}
    # The gradient by an argument does not read it: the form is linear in it.
    assert own not in names


@pytest.mark.parametrize("wanted", ARGUMENTS)
@pytest.mark.parametrize("back", [False, True])
def test_derivatives_of_a_turn_that_nobody_wants_cost_nothing(back: bool, wanted: str) -> None:
    names = used(of_turn(back, wanted=(wanted,)))
    assert {name for name in names if name.startswith("gradient_")} == {f"gradient_{wanted}"}
    # The form is linear in each argument.
    assert names & set(ARGUMENTS) == set(ARGUMENTS) - {wanted}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_along_one_argument_of_a_turn_all_others_are_reached(name: str) -> None:
    assert frames.reached(frozenset((name,))) == set(ARGUMENTS) - {name}
    assert frames.reached(frozenset()) == frames.reached(frozenset(ARGUMENTS)) == set(ARGUMENTS)


@pytest.mark.parametrize("name", ["harmonics", "environment"])
def test_along_one_factor_of_the_environment_the_other_is_reached_and_it_is_not(name: str) -> None:
    other = ({"harmonics", "environment"} - {name}).pop()
    assert product.reached(frozenset((name,))) == {"x", "weights", other}


@pytest.mark.parametrize(
    ("source", "results"),
    [
        (of_contraction("outputs"), 4),
        # Nine rows of x and a share for each path.
        (of_contraction("gradients"), 9 + len(CONTRACTION.paths)),
        (of_product("around"), 9),
        (of_product("products"), 9),
        # Nine rows of x, nine of e for each of three degrees, a share for each path.
        (of_product("gradients"), 9 + 27 + len(PRODUCT.paths)),
        (of_product("unravel"), 9 + 3),
        # Of each end 7 rows of features, 5 of weights and 25 elements; 9 rows of a node.
        (of_turn(False), 2 * (7 + 5 + 25) + 9),
        # 4 rows of features, a share of the scale for each degree, 10 elements; 4 rows of a node.
        (of_turn(True), 4 + 2 + 10 + 4),
    ],
    ids=[
        *("outputs", "gradients", "around", "products", "product gradients", "unravel"),
        *("into frames", "back"),
    ],
)
def test_each_row_of_a_result_is_written_once(source: str, results: int) -> None:
    places = [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.store"
    ]
    assert len(set(places)) == len(places) == results


def test_the_same_request_gives_the_same_source() -> None:
    assert of_product("gradients", ("x", "weights")) == of_product("gradients", ("weights", "x"))
    assert of_turn(True, ("frames", "weights")) == of_turn(True, ("weights", "frames"))
    assert of_contraction("gradients", ("x", "weights")) == of_contraction(
        "gradients", ("weights", "x")
    )
