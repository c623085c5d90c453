"""Runs the Triton kernels without a GPU, in a process of its own: whether they are interpreted is
settled as triton is imported.

``python triton_process.py interpret`` prints {configuration: {result: relative error}} and
``compile ARCHITECTURE`` prints {kernel: registers}, as JSON.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from equivbench.kernels.fused.coupling import EdgeOperation, couplings
from equivbench.kernels.fused.triton_launch import kernel, launch
from equivbench.kernels.fused.triton_source import (
    GROUPS,
    INPUTS,
    TritonKernelKind,
    TritonRequest,
)
from equivbench.kernels.operations import Convolution, PaiNNMessage

RESULTS = ("grad", *INPUTS)
SMALL = Convolution((3, 2), 1, 1)
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
    "cotangents of the edges": {
        "cotangents": ("harmonics", "weights"),
        "needs": ("grad", "weights"),
    },
}


def reference(
    operation: EdgeOperation, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> Tensor:
    """That of the operation, and of PaiNN's message for any number in place of the 1."""
    if isinstance(operation, Convolution):
        return operation.reference(x, harmonics, weights, edge_index)
    constant, directions = harmonics.split((1, 3), dim=1)
    ones = torch.ones_like(constant)
    factors = torch.cat([constant, ones, constant], dim=1).repeat_interleave(operation.channels, 1)
    scaled = weights * factors[:, : operation.weight_size]
    return operation.reference(x, directions, scaled, edge_index)


def errors(
    operation: EdgeOperation = SMALL,
    dtype: torch.dtype = torch.float64,
    nodes: int = 5,
    edges: int = 9,
    strided: bool = False,
    needs: tuple[str, ...] = RESULTS,
    cotangents: tuple[str, ...] = INPUTS,
) -> dict[str, float]:
    """Of the output, the gradients and the second gradients, relative to the reference; 0 for what
    must be empty and is."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return drawn.repeat_interleave(2, 1)[:, ::2] if strided else drawn

    # The last node has no edges where there is more than one.
    edge_index = torch.randint(0, max(1, nodes - 1), (2, edges), generator=generator)
    shapes = {
        "grad": (nodes, operation.target_size),
        "x": (nodes, operation.source_size),
        "harmonics": (edges, couplings(operation).harmonics_size),
        "weights": (edges, operation.weight_size),
    }
    given = {name: normal(*shape) for name, shape in shapes.items()}
    tangents = {name: normal(*shapes[name]) for name in INPUTS if name in cotangents}
    leaves = {name: tensor.double().requires_grad_() for name, tensor in given.items()}
    inputs = [leaves[name] for name in INPUTS]
    output = reference(operation, *inputs, edge_index)  # type: ignore[call-arg]
    first = dict(
        zip(
            INPUTS,
            torch.autograd.grad(output, inputs, leaves["grad"], create_graph=True),
            strict=True,
        )
    )
    total = sum(
        ((first[name] * tangent.double()).sum() for name, tangent in tangents.items()),
        output.sum() * 0,
    )
    second = dict(
        zip(
            RESULTS,
            torch.autograd.grad(total, list(leaves.values()), materialize_grads=True),
            strict=True,
        )
    )

    arguments = [given[name] for name in INPUTS]
    wanted = [name in needs for name in RESULTS]
    none = [None] * 3
    output_only, no_output = [True, False, False, False], [False, *wanted[1:]]
    found = {"output": launch(operation, output_only, None, none, *arguments, edge_index)[0]}  # type: ignore[call-arg]
    _, *gradients = launch(operation, no_output, given["grad"], none, *arguments, edge_index)  # type: ignore[call-arg]
    found |= {f"gradient {name}": one for name, one in zip(INPUTS, gradients, strict=True)}
    given_tangents = [tangents.get(name) for name in INPUTS]
    seconds = launch(  # type: ignore[call-arg]
        operation, wanted, given["grad"], given_tangents, *arguments, edge_index
    )
    found |= {f"second {name}": one for name, one in zip(RESULTS, seconds, strict=True)}

    if tangents:
        # What forward mode asks for: the output along tangents, without a gradient.
        along = launch(operation, output_only, None, given_tangents, *arguments, edge_index)[0]  # type: ignore[call-arg]
        directions = tuple(
            tangents.get(name, torch.zeros_like(given[name])).double() for name in INPUTS
        )
        (moved,) = torch.func.jvp(
            lambda *inputs: (reference(operation, *inputs, edge_index),),  # type: ignore[call-arg]
            tuple(one.detach() for one in inputs),
            directions,
        )[1]
        found["along"] = along
    expected = {"output": output} | {f"gradient {name}": one for name, one in first.items()}
    expected |= {f"second {name}": one for name, one in second.items()}
    if tangents:
        expected["along"] = moved
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


def registers(architecture: int) -> dict[str, dict[str, int]]:
    """Registers a thread and bytes in local memory, compiled for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    reader = next(
        path for path in Path(triton.__file__).parent.rglob("cuobjdump") if path.is_file()
    )
    operations = (Convolution((64, 64), 1, 1), PaiNNMessage(128))
    options = {"num_warps": 1, "enable_fp_fusion": True}
    found = {}
    for operation, kind in itertools.product(operations, get_args(TritonKernelKind)):
        request = TritonRequest(operation, kind, frozenset(), frozenset(INPUTS), "float32", 64)
        signature = {name: "*i64" if name in GROUPS else "*fp32" for name in request.pointers}
        aligned = {(n,): [["tt.divisibility", 16]] for n in range(len(signature))}
        source = ASTSource(kernel(request), signature, constexprs={}, attrs=aligned)
        code = triton.compile(
            source, target=GPUTarget("cuda", architecture, 32), options=options
        ).asm["cubin"]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "code.cubin").write_bytes(code)
            command = [str(reader), "--dump-resource-usage", "code.cubin"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        used = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout))
        found[f"{operation.name} {kind}"] = {
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
        print(json.dumps(registers(int(sys.argv[2]))))
