"""Runs the Triton kernels without a GPU, in a process of its own: whether they are interpreted is
settled as triton is imported.

``python triton_process.py interpret`` prints {configuration: {result: relative error}} and
``compile ARCHITECTURE [LMAX]`` prints {kernel: registers}, as JSON; LMAX (2) is that of the edge
product, the symmetric contraction and the frames of edges.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch
from frame_turns import Turning
from torch import Tensor

from equivbench.kernels.fused import (
    triton_contraction,
    triton_contraction_source,
    triton_frames,
    triton_frames_source,
    triton_launch,
    triton_product,
    triton_product_source,
    triton_source,
)
from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Operation,
    PaiNNMessage,
    SymmetricContraction,
)
from equivbench.kernels.operations.edge_frames import FrameTurn

SMALL = Convolution((3, 2), 1, 1)
PRODUCT = EdgeProduct(3, 1)
CONTRACTION = SymmetricContraction(3, 1, 1)
INTO, BACK = Turning(FrameTurn(2, 2, 1, 1, 1, 1)), Turning(FrameTurn(2, 1, 1, 1, 1, 1), back=True)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "float64": {"operation": Convolution((4, 4, 4), 2, 1), "dtype": torch.float64},
    "float32": {"operation": Convolution((2, 3), 2, 2), "dtype": torch.float32},
    "no parity": {"operation": Convolution((2, 2), 1, 1, parity=False)},
    "a degree that no path reads": {"operation": Convolution((2, 2, 2), 1, 0)},
    "channels in two blocks": {"operation": Convolution((70,), 1, 0), "edges": 4},
    "PaiNN's message": {"operation": PaiNNMessage(3)},
    "PaiNN's first message": {"operation": PaiNNMessage(2, vectors=False)},
    "a message in two blocks": {"operation": PaiNNMessage(70), "edges": 4},
    "no edges": {"edges": 0},
    "one node": {"nodes": 1},
    "not contiguous": {"strided": True},
    "some gradients": {"needs": ("x",)},
    "gradients by harmonics": {"needs": ("harmonics",)},
    "a cotangent of x alone": {"cotangents": ("x",)},
    "a cotangent of the weights alone": {"cotangents": ("weights",)},
    "cotangents of the edges": {
        "cotangents": ("harmonics", "weights"),
        "needs": ("grad", "weights"),
    },
    "product in float64": {"operation": EdgeProduct(2, 2)},
    "product in float32": {"operation": EdgeProduct(2, 2), "dtype": torch.float32, "edges": 4},
    "product of scalars": {"operation": EdgeProduct(1, 0)},
    "product in two blocks": {"operation": EdgeProduct(35, 1), "edges": 4},
    "product without edges": {"operation": PRODUCT, "edges": 0},
    "product not contiguous": {"operation": PRODUCT, "strided": True},
    "product by x": {"operation": PRODUCT, "needs": ("x",)},
    "product by the harmonics": {"operation": PRODUCT, "needs": ("harmonics",)},
    "product along the environment": {"operation": PRODUCT, "cotangents": ("environment",)},
    "product along the harmonics": {"operation": PRODUCT, "cotangents": ("harmonics",)},
    "product along x and the weights": {"operation": PRODUCT, "cotangents": ("x", "weights")},
    "product along the weights": {"operation": PRODUCT, "cotangents": ("weights",)},
    "product along x": {"operation": PRODUCT, "cotangents": ("x",)},
    "contraction in float64": {"operation": SymmetricContraction(2, 2, 1)},
    "contraction in float32": {
        "operation": SymmetricContraction(2, 1, 2),
        "dtype": torch.float32,
    },
    "contraction of one factor": {"operation": SymmetricContraction(2, 1, 1, 1)},
    "contraction of pairs": {"operation": SymmetricContraction(1, 2, 0, 2)},
    "contraction in two blocks": {"operation": SymmetricContraction(35, 1, 0), "nodes": 3},
    "contraction in chunks": {"operation": CONTRACTION, "nodes": 9, "programs": 3},
    "contraction without nodes": {"operation": CONTRACTION, "nodes": 0},
    "contraction not contiguous": {"operation": CONTRACTION, "strided": True},
    "contraction by x": {"operation": CONTRACTION, "needs": ("x",)},
    "contraction by the weights": {"operation": CONTRACTION, "needs": ("weights",)},
    "contraction along x": {"operation": CONTRACTION, "cotangents": ("x",)},
    "contraction along the weights": {"operation": CONTRACTION, "cotangents": ("weights",)},
    "into frames in float64": {"operation": Turning(FrameTurn(2, 2, 2, 2, 2, 1)), "edges": 4},
    "into frames in float32": {
        "operation": Turning(FrameTurn(3, 1, 2, 1, 1, 1)),
        "dtype": torch.float32,
    },
    "into frames in two blocks": {"operation": Turning(FrameTurn(70, 2, 1, 1, 1, 0)), "edges": 4},
    "into frames without edges": {"operation": INTO, "edges": 0},
    "into frames of one node": {"operation": INTO, "nodes": 1, "edges": 3},
    "into frames not contiguous": {"operation": INTO, "strided": True},
    "into frames by the frames": {"operation": INTO, "needs": ("frames",)},
    "into frames by the weights": {"operation": INTO, "needs": ("weights",)},
    "into frames by x": {"operation": INTO, "needs": ("x",)},
    "into frames along the frames": {"operation": INTO, "cotangents": ("frames",)},
    "into frames along the weights": {"operation": INTO, "cotangents": ("weights",)},
    "into frames along x": {"operation": INTO, "cotangents": ("x",)},
    "back in float64": {"operation": Turning(FrameTurn(3, 1, 2, 2, 1, 1), back=True)},
    "back in float32": {
        "operation": Turning(FrameTurn(2, 1, 2, 2, 2, 2), back=True),
        "dtype": torch.float32,
        "edges": 4,
    },
    "back in two blocks": {
        "operation": Turning(FrameTurn(70, 1, 1, 1, 1, 1), back=True),
        "edges": 4,
    },
    "back without edges": {"operation": BACK, "edges": 0},
    "back not contiguous": {"operation": BACK, "strided": True},
    "back by the frames": {"operation": BACK, "needs": ("frames",)},
    "back by the scales": {"operation": BACK, "needs": ("scales",)},
    "back by the output's gradient and z": {"operation": BACK, "needs": ("grad", "z")},
    "back along the frames": {"operation": BACK, "cotangents": ("frames",)},
    "back along the scales": {"operation": BACK, "cotangents": ("scales",)},
    "back along z": {"operation": BACK, "cotangents": ("z",)},
}


def inputs_of(operation: Operation | Turning) -> tuple[str, ...]:
    """The names of the inputs that there are gradients by, as the kernels call them."""
    if isinstance(operation, PaiNNMessage):
        return triton_source.INPUTS
    return operation.differentiable


def shapes_of(operation: Any, nodes: int, edges: int) -> dict[str, tuple[int, ...]]:
    """Of these inputs, of the gradient of the output as ``grad``, and of the indices."""
    if isinstance(operation, Convolution | PaiNNMessage):
        return {
            "grad": (nodes, operation.target_size),
            "x": (nodes, operation.source_size),
            "harmonics": (edges, couplings(operation).harmonics_size),
            "weights": (edges, operation.weight_size),
            "edge_index": (2, edges),
        }
    if isinstance(operation, Turning):
        return operation.shapes(nodes, edges)
    sizes = {"nodes": nodes, "edges": edges, "elements": 4}
    stated = {name: one.shape for name, one in operation.arguments(sizes).items()}
    if isinstance(operation, EdgeProduct):
        return {"grad": stated["x"], **stated}
    return {"grad": (nodes, operation.target_size), **stated}


def reference_of(
    operation: Operation | Turning, nodes: int, index: Tensor
) -> Callable[..., Tensor]:
    """The reference by the inputs alone; that of PaiNN's message for any number in place of
    the 1."""
    if isinstance(operation, Turning):
        return partial(operation.reference, nodes, index)
    if not isinstance(operation, PaiNNMessage):
        return lambda *inputs: operation.reference(*inputs, index)

    def message(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        constant, directions = harmonics.split((1, 3), dim=1)
        ones = torch.ones_like(constant)
        factors = torch.cat([constant, ones, constant], dim=1)
        factors = factors.repeat_interleave(operation.channels, 1)[:, : operation.weight_size]
        return operation.reference(x, directions, weights * factors, index)

    return message


def launch(
    operation: Operation | Turning,
    nodes: int,
    index: Tensor,
    needs: list[bool],
    grad: Tensor | None,
    tangents: list[Tensor | None],
    inputs: list[Tensor],
) -> tuple[Tensor, ...]:
    """The kernels of any operation."""
    if isinstance(operation, Turning):
        return operation.launch(nodes, index, needs, grad, tangents, inputs)
    if isinstance(operation, EdgeProduct):
        return triton_product.launch(operation, needs, grad, tangents, inputs, index)
    function: Any = (
        triton_contraction.launch
        if isinstance(operation, SymmetricContraction)
        else triton_launch.launch
    )
    return function(operation, needs, grad, tangents, *inputs, index)


def errors(
    operation: Operation | Turning = SMALL,
    dtype: torch.dtype = torch.float64,
    nodes: int = 5,
    edges: int = 9,
    strided: bool = False,
    needs: tuple[str, ...] | None = None,
    cotangents: tuple[str, ...] | None = None,
    programs: int = triton_contraction.PROGRAMS,
) -> dict[str, float]:
    """Of the output, the gradients and the second gradients, relative to the reference; 0 for what
    must be empty and is."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return drawn.repeat_interleave(2, 1)[:, ::2] if strided else drawn

    names = inputs_of(operation)
    results = ("grad", *names)
    needs, cotangents = needs or results, cotangents or names
    shapes = shapes_of(operation, nodes, edges)
    # The last node has no edges where there is more than one, and no node is of the last element.
    edge_index = torch.randint(0, max(1, nodes - 1), (2, edges), generator=generator)
    elements = torch.randint(0, 3, (nodes,), generator=generator)
    index = edge_index if "edge_index" in shapes else elements
    given = {name: normal(*shapes[name]) for name in results}
    tangents = {name: normal(*shapes[name]) for name in names if name in cotangents}

    leaves = {name: tensor.double().requires_grad_() for name, tensor in given.items()}
    inputs = [leaves[name] for name in names]
    reference = reference_of(operation, nodes, index)
    output = reference(*inputs)
    first = torch.autograd.grad(output, inputs, leaves["grad"], create_graph=True)
    total = output.sum() * 0
    for name, one in zip(names, first, strict=True):
        total = total + (one * tangents[name].double()).sum() if name in tangents else total
    second = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    # What forward mode asks for: the output along tangents, without a gradient.
    directions = tuple(tangents.get(name, torch.zeros_like(given[name])).double() for name in names)
    (_, moved) = torch.func.jvp(reference, tuple(one.detach() for one in inputs), directions)

    call = partial(launch, operation, nodes, index)
    plain = [given[name] for name in names]
    wanted = [name in needs for name in results]
    output_only = [True, *[False] * len(names)]
    none: list[Tensor | None] = [None] * len(names)
    along = [tangents.get(name) for name in names]
    with patch.object(triton_contraction, "PROGRAMS", programs):
        found = {"output": call(output_only, None, none, plain)[0]}
        _, *gradients = call([False, *wanted[1:]], given["grad"], none, plain)
        seconds = call(wanted, given["grad"], along, plain)
        found["along"] = call(output_only, None, along, plain)[0]
    found |= {f"gradient {name}": one for name, one in zip(names, gradients, strict=True)}
    found |= {f"second {name}": one for name, one in zip(results, seconds, strict=True)}
    expected = {"output": output, "along": moved}
    expected |= {f"gradient {name}": one for name, one in zip(names, first, strict=True)}
    expected |= {f"second {name}": one for name, one in zip(results, second, strict=True)}
    return {
        name: relative(found[name], one)
        if name in ("output", "along") or name.split()[1] in needs
        else float(found[name].numel())
        for name, one in expected.items()
    }


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of the reference, or the norm alone where the reference
    is zero."""
    assert found.shape == expected.shape
    assert found.is_contiguous()
    scale = float(expected.detach().norm()) or 1.0
    return float((found.double() - expected.detach()).norm()) / scale


def kernels(lmax: int) -> Iterator[tuple[str, Any, list[str]]]:
    """Name, function and pointers of what is compiled, of some operations up to degree ``lmax``."""
    edge_operations: tuple[EdgeOperation, ...] = (Convolution((64, 64), 1, 1), PaiNNMessage(128))
    none: frozenset[str] = frozenset()
    for operation, kind in itertools.product(
        edge_operations, get_args(triton_source.TritonKernelKind)
    ):
        request = triton_source.TritonRequest(
            operation, kind, none, frozenset(triton_source.INPUTS), "float32", 64
        )
        yield f"{operation.name} {kind}", triton_launch.kernel(request), request.pointers
    # Second derivatives, which hold the most, along tangents of all inputs.
    for kind in get_args(triton_product_source.ProductKernelKind):
        of_product = triton_product_source.ProductRequest(
            EdgeProduct(64, lmax),
            kind,
            frozenset(triton_product_source.INPUTS),
            frozenset(triton_product_source.INPUTS),
            "float32",
            32,
        )
        function = triton_product.product_kernel(of_product)
        yield f"edge-product {kind}", function, of_product.pointers
    for kind in get_args(triton_contraction_source.ContractionKernelKind):
        of_contraction = triton_contraction_source.ContractionRequest(
            SymmetricContraction(64, lmax, 1),
            kind,
            frozenset(triton_contraction_source.INPUTS),
            frozenset(triton_contraction_source.INPUTS),
            "float32",
            32,
        )
        function = triton_contraction.contraction_kernel(of_contraction)
        yield f"symmetric-contraction {kind}", function, of_contraction.pointers
    arguments = frozenset(triton_frames_source.LETTERS)
    outputs = {"into-frames": "edge_features", "turn-back": "node_features"}
    for ends, (called, output) in zip((2, 1), outputs.items(), strict=True):
        turn = FrameTurn(64, ends, lmax, min(lmax, 2), lmax, min(lmax, 2))
        of_turn = triton_frames_source.TurnRequest(
            turn,
            output == "node_features",
            arguments - {output},
            arguments,
            "float32",
            triton_frames.BLOCK,
        )
        yield called, triton_frames.turn_kernel(of_turn), of_turn.pointers


INDICES = {
    *("order", "others", "starts", "elements", "begins", "ends", "firsts"),
    *("order0", "starts0", "order1", "starts1"),
}
"""Pointers to int64."""


def registers(architecture: int, lmax: int = 2) -> Mapping[str, Mapping[str, int]]:
    """Registers a thread and bytes in local memory, compiled for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    reader = next(
        path for path in Path(triton.__file__).parent.rglob("cuobjdump") if path.is_file()
    )
    options = {"num_warps": 1, "enable_fp_fusion": True}
    found = {}
    for called, function, pointers in kernels(lmax):
        signature = {name: "*i64" if name in INDICES else "*fp32" for name in pointers}
        aligned = {(n,): [["tt.divisibility", 16]] for n in range(len(signature))}
        source = ASTSource(function, signature, constexprs={}, attrs=aligned)
        code = triton.compile(
            source, target=GPUTarget("cuda", architecture, 32), options=options
        ).asm["cubin"]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "code.cubin").write_bytes(code)
            command = [str(reader), "--dump-resource-usage", "code.cubin"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        used = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout))
        found[called] = {
            "registers": int(used["REG"]),
            "spilled": int(used["STACK"]) + int(used["LOCAL"]),
        }
    return found


if __name__ == "__main__":
    if sys.argv[1] == "interpret":
        print(
            json.dumps(
                {name: errors(**configuration) for name, configuration in CONFIGURATIONS.items()}
            )
        )
    else:
        print(json.dumps(registers(*map(int, sys.argv[2:]))))
