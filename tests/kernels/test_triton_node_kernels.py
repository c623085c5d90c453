"""The written Triton source of the symmetric contraction and of the edge product: what is not asked
for is neither read nor written, and each result is written once."""

import ast
import itertools
from typing import Any

import pytest

from equivbench.kernels.fused import triton_contraction_source as contraction
from equivbench.kernels.fused import triton_product_source as product
from equivbench.kernels.operations import EdgeProduct, SymmetricContraction

CONTRACTION = SymmetricContraction(40, 2, 1)
PRODUCT = EdgeProduct(40, 2)


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
    ],
    ids=["outputs", "gradients", "around", "products", "product gradients", "unravel"],
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
    assert of_contraction("gradients", ("x", "weights")) == of_contraction(
        "gradients", ("weights", "x")
    )
