"""``assert_equivariant``: a test that anyone can write for anything that takes and gives tensors of
declared symmetry types. No task and no data set."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError, unknown_name
from equivbench.measure.caller import evaluating
from equivbench.measure.precision import EPS, PRECISION_OF
from equivbench.measure.verification import (
    CONDITIONING,
    CONSTANTS,
    falls_like_rounding,
    nudged,
)
from equivbench.specs import Field, Group
from equivbench.symmetry.decomposition import decompose
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.types import SymmetryType, transform

Named = Mapping[str, Any]
_OUTPUT = "output"
"""What the one output is called of a model that returns a tensor."""


def assert_equivariant(
    model: Callable[..., Any],
    inputs: Named,
    inputs_types: Mapping[str, str],
    outputs_types: Mapping[str, str] | str,
    group: Group = "so3",
    *,
    rotations: int = 4,
    seed: int = 0,
) -> None:
    """Fail unless ``model`` is equivariant, up to rounding, under ``group``.

    There is no tolerance to guess. The equivariance error is measured in the precision of the
    inputs and in float64 (in float32 where they are in float64): rounding falls with the square of
    the unit roundoff, a broken symmetry stays where it is.

    Parameters
    ----------
    model
        Called with ``inputs`` by keyword; returns a mapping of tensors, or one tensor. A
        ``torch.nn.Module`` is called in evaluation mode, and a copy of it in the other precision.
    inputs
        By name. One rotation turns all rows of all of them, so that it does not matter which rows
        belong to which structure.
    inputs_types
        Symmetry type by name, in e3nn's notation over the last axis (``"1o"``, ``"8x0e + 4x1o"``)
        or ``"voxel(IRREPS)"`` for [rows, channels, x, y, z]; ``"1o"`` for a cell [rows, 3, 3] whose
        rows are lattice vectors, ``"ij=ji"`` for a stress [rows, 3, 3]. Every floating-point input
        has one; integers, and what is no tensor, stay as they are.
    outputs_types
        The same of the outputs that are checked, or the type of the tensor that is returned.
    group
        ``so3``, ``o3`` (improper rotations too) or ``octahedral`` (the 24 rotations of the cube,
        which are exact on a grid).
    rotations
        How many elements of the group are tried, 2 or more.
    seed
        Of the elements.

    Raises
    ------
    AssertionError
        That names each output that is not equivariant, with its error in both precisions and what
        rounding would leave; or says that the model is not deterministic, or predicts nothing.
    UsageError
        For types that cannot be read, or do not fit their tensors.
    """
    checked = _Check(model, inputs, inputs_types, outputs_types, group, rotations, seed)
    found = checked.run()
    if found:
        raise AssertionError("\n".join(found))


@dataclass(frozen=True)
class _Errors:
    """Of one output, over its square."""

    broken: float
    """Equivariance error under all elements."""
    proper: float
    """The same under the proper rotations alone."""
    power: float
    """Mean square of the output."""
    noise: float
    """Squared difference of two calls with the same input."""
    dtype: torch.dtype


class _Check:
    def __init__(
        self,
        model: Callable[..., Any],
        inputs: Named,
        inputs_types: Mapping[str, str],
        outputs_types: Mapping[str, str] | str,
        group: Group,
        rotations: int,
        seed: int,
    ) -> None:
        self.model, self.group = model, group
        self.single = isinstance(outputs_types, str)
        self.inputs_types = dict(inputs_types)
        self.outputs_types = (
            {_OUTPUT: outputs_types} if isinstance(outputs_types, str) else dict(outputs_types)
        )
        self.fields = [
            *(_field(name, each, "sample") for name, each in self.inputs_types.items()),
            *(
                _field(f"{_OUTPUT} {name}", each, "output")
                for name, each in self.outputs_types.items()
            ),
        ]
        for name in self.inputs_types:
            if name not in inputs:
                raise unknown_name("input", name, inputs)
        for name, value in inputs.items():
            floating = isinstance(value, Tensor) and value.is_floating_point()
            if floating and name not in self.inputs_types:
                raise UsageError(
                    f"input {name!r} has no symmetry type; give one in inputs_types, "
                    "'0e' for what a rotation leaves alone"
                )
        if not self.outputs_types:
            raise UsageError("outputs_types names no output, so there is nothing to check")
        grids = [each.name for each in self.fields if SymmetryType.parse(each.symmetry).voxel]
        if grids and group != "octahedral":
            raise UsageError(
                f"{grids[0]!r} is a grid, on which only the rotations of the cube are exact; "
                "use group='octahedral'"
            )
        self.inputs = dict(inputs)
        self.elements = _elements(group, rotations, seed)

    def run(self) -> list[str]:
        """What is wrong, a sentence each."""
        dtype = self._dtype()
        working = self._errors(self._caller(self.model), dtype)
        problems = [
            f"{self._name(name)} is zero for every input that was tried, so there is nothing to "
            "verify: give it weights that predict something"
            for name, each in working.items()
            if each.power == 0
        ]
        if problems:
            return problems
        other, failure = self._in_other_precision(dtype)
        for name, each in working.items():
            problem = self._judge(each, None if other is None else other[name], failure)
            if problem is not None:
                problems.append(f"{self._name(name)} {problem}")
        return problems

    def _judge(self, found: _Errors, other: _Errors | None, failure: str) -> str | None:
        here = PRECISION_OF[found.dtype]
        # A device that adds up in an order of its own gives the same up to rounding.
        if found.noise and (
            other is None
            or not falls_like_rounding(here, found.noise, PRECISION_OF[other.dtype], other.noise)
        ):
            return (
                "is not deterministic: two calls with the same input differ by "
                f"{found.noise:.1e} of its square"
            )
        said = f"its equivariance error is {found.broken:.1e} of its square in {here}"
        if other is None:
            allowed = CONDITIONING * EPS[here] ** 2
            if found.broken <= allowed:
                return None
            said += f", where rounding leaves {allowed:.0e} at most (it does not run in the other "
            said += f"precision: {failure})"
        else:
            there = PRECISION_OF[other.dtype]
            if falls_like_rounding(here, found.broken, there, other.broken):
                return None
            # Constants that were rounded to float32 once stay so in float64.
            if self._has_constants and other.broken <= CONSTANTS * EPS["float32"] ** 2:
                return None
            said += f" and {other.broken:.1e} in {there}: it does not fall like rounding"
        where: str = self.group
        if self.group == "o3" and found.proper <= 1e-3 * found.broken:
            where = "o3: it turns with proper rotations, and not with reflections"
        return f"is not equivariant under {where}; {said}"

    def _in_other_precision(self, dtype: torch.dtype) -> tuple[dict[str, _Errors] | None, str]:
        other = torch.float32 if dtype == torch.float64 else torch.float64
        try:
            model = copy.deepcopy(self.model) if isinstance(self.model, nn.Module) else self.model
            if isinstance(model, nn.Module):
                model = model.to(other)
            called = self._caller(model)
            found = self._errors(called, other)
            if other == torch.float64 and self._is_single(called):
                return None, "it computes in float32 inside"
        except Exception as error:  # noqa: BLE001  someone's model may not survive a copy, or run
            return None, f"{type(error).__name__}: {error}".splitlines()[0]
        wrong = next((each.dtype for each in found.values() if each.dtype != other), None)
        if wrong is not None:
            return None, f"it returns {wrong}"
        return found, ""

    @property
    def _has_constants(self) -> bool:
        model = self.model
        return isinstance(model, nn.Module) and any(map(_floating, model.buffers()))

    def _is_single(self, called: Callable[[Named], dict[str, Tensor]]) -> bool:
        """Whether inputs that move by a relative 2^-40 leave most of the float64 outputs as they
        were, bit for bit."""
        exact = {
            name: value.double() if _floating(value) else value
            for name, value in self.inputs.items()
        }
        before, after = called(exact), called(nudged(exact))
        same = torch.cat([(before[name] == after[name]).reshape(-1) for name in before])
        values = torch.cat([each.reshape(-1) for each in before.values()])
        return bool(same[values != 0].double().mean() > 0.5)

    def _errors(
        self, called: Callable[[Named], dict[str, Tensor]], dtype: torch.dtype
    ) -> dict[str, _Errors]:
        """The errors of every output, with inputs that are rotated in float64 and rounded once."""
        exact = {
            name: value.double() if _floating(value) else value
            for name, value in self.inputs.items()
        }
        pulled: dict[str, list[Tensor]] = {name: [] for name in self.outputs_types}
        dtypes: dict[str, torch.dtype] = {}
        noise: dict[str, float] = {}
        for element in self.elements:
            given = {
                name: value.to(dtype) if _floating(value) else value
                for name, value in self._act(exact, element[None]).items()
            }
            outputs = called(given)
            if not noise:
                for name, again in called(given).items():
                    moved = outputs[name].double() - again.double()
                    noise[name] = float(moved.square().mean())
            for name, value in outputs.items():
                key = f"{_OUTPUT} {name}"
                pulled[name].append(self._act({key: value.double()}, element.T[None])[key])
                dtypes[name] = value.dtype
        proper = torch.linalg.det(self.elements) > 0
        return {
            name: self._of(torch.stack(values), proper, noise[name], dtypes[name])
            for name, values in pulled.items()
        }

    @staticmethod
    def _of(values: Tensor, proper: Tensor, noise: float, dtype: torch.dtype) -> _Errors:
        def share(chosen: Tensor) -> float:
            flat = chosen.reshape(len(chosen), 1, -1)
            # The elements are what they are: the plug-in values of this set.
            found = decompose(flat, torch.zeros_like(flat[0]), exhaustive=True)
            return found.share if float(found.total.sum()) else 0.0

        power = float(values.square().mean())
        turned = values[proper]
        return _Errors(
            share(values),
            share(turned) if len(turned) > 1 else 0.0,
            power,
            noise / power if power else 0.0,
            dtype,
        )

    def _act(self, tensors: Named, element: Tensor) -> dict[str, Any]:
        """``tensors`` under one orthogonal matrix [1, 3, 3]."""
        named = {name: each for name, each in tensors.items() if _floating(each)}
        return {**tensors, **transform(named, self.fields, element, None)}

    def _caller(self, model: Callable[..., Any]) -> Callable[[Named], dict[str, Tensor]]:
        """Calls ``model`` and gives the outputs that are checked."""

        def call(inputs: Named) -> dict[str, Tensor]:
            own = {
                name: value.clone() if isinstance(value, Tensor) else value
                for name, value in inputs.items()
            }
            with evaluating(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
                return self._checked(model(**own))

        return call

    def _checked(self, returned: Any) -> dict[str, Tensor]:
        kind = type(returned).__name__
        if self.single:
            if not isinstance(returned, Tensor):
                raise UsageError(
                    f"the model returned a {kind}, not a tensor; name its outputs in outputs_types"
                )
            returned = {_OUTPUT: returned}
        if not isinstance(returned, Mapping):
            raise UsageError(f"the model returned a {kind}, not a mapping of tensors")
        found = {}
        for name in self.outputs_types:
            if name not in returned:
                raise unknown_name("output", name, returned)
            value = returned[name]
            if not isinstance(value, Tensor):
                raise UsageError(f"{self._name(name)} is a {type(value).__name__}, not a tensor")
            found[name] = value.detach()
            if not bool(value.detach().double().isfinite().all()):
                raise AssertionError(f"{self._name(name)} is not finite")
        return found

    def _dtype(self) -> torch.dtype:
        kinds: set[torch.dtype] = {
            value.dtype for value in self.inputs.values() if _floating(value)
        }
        if len(kinds) != 1 or not kinds <= PRECISION_OF.keys():
            names = ", ".join(sorted(map(str, kinds))) or "none"
            raise UsageError(
                "the floating-point inputs must be of one dtype, float32, float64 or bfloat16; "
                f"found {names}"
            )
        return kinds.pop()

    def _name(self, name: str) -> str:
        return "the output" if self.single else f"output {name!r}"


def _field(name: str, symmetry: str, role: Any) -> Field:
    SymmetryType.parse(symmetry)
    return Field(name, ("...",), "float32", symmetry, "graph", "1", role)


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _elements(group: Group, count: int, seed: int) -> Tensor:
    """[count, 3, 3] float64 elements; of ``o3`` every second one is improper, of ``octahedral``
    no two are the same."""
    if count < 2:
        raise UsageError(f"at least 2 rotations are needed, not {count}")
    generator = torch.Generator().manual_seed(seed)
    if group == "octahedral":
        elements = octahedral_rotations(torch.float64)
        order = torch.randperm(len(elements), generator=generator)
        return elements[order[: min(count, len(elements))]]
    if group not in ("so3", "o3"):
        raise UsageError(f"group {group!r} is not one of so3, o3, octahedral")
    rotations = random_rotations(count, generator=generator, dtype=torch.float64)
    if group == "o3":
        rotations = rotations * (1 - 2 * (torch.arange(count) % 2))[:, None, None]
    return rotations
