"""Layer by layer, on models whose layers have known types and a known break."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from toy_task import Clouds, clouds

from equivbench.errors import UsageError
from equivbench.measure import layers as layers_module
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.layers import LayerPart, summary

TASK, POINTS, WIDTH = Clouds(), 6, 4


class Stretch(nn.Module):
    """Multiplies the first component of vectors [rows, 3, channels] by 1 + ``by``."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, v: Tensor) -> Tensor:
        return v * v.new_tensor([1 + self.by, 1.0, 1.0])[:, None]


class Lengths(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return v.square().sum(1) + 10


class Layered(nn.Module):
    """Vectors that are mixed, stretched at one place and gated; an invariant and an edge feature
    beside them."""

    feature_types: Mapping[str, str] = {}

    def __init__(self, by: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(1, WIDTH, bias=False)
        self.stretch = Stretch(by)
        self.lengths = Lengths()
        self.gate = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.edges = nn.Identity()
        self.head = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        cloud = pos.reshape(-1, POINTS, 3)
        centred = cloud - cloud.mean(1, keepdim=True)
        self.edges((centred[:, None] - centred[:, :, None]).flatten(0, 2))
        v = self.stretch(self.mix(centred.reshape(-1, 3, 1)))
        v = v * (2 + self.gate(self.lengths(v)))[:, None]
        return {"pull": self.head(v)[..., 0]}


def layers(model: nn.Module, group: str = "octahedral") -> dict[str, LayerPart]:
    r = measure_equivariance(
        model,
        TASK,
        split=clouds(8),
        rotations=24 if group == "octahedral" else 16,
        group=group,  # type: ignore[arg-type]
        by="layer",
    )
    found = {name: part for name, part in r.by.items() if isinstance(part, LayerPart)}
    assert len(found) == len(r.by)
    return found


def test_types_are_found_and_the_break_is_where_it_is() -> None:
    by = 0.2
    found = layers(Layered(by))
    assert {name: part.symmetry for name, part in found.items()} == {
        "edges": "1o",
        "mix": "1o",
        "stretch": "1o",
        "lengths": "0e",
        "gate.0": "0e",
        "gate.1": "0e",
        "head": "1o",
    }
    for name in ("edges", "mix"):
        # Input rounding in float32.
        assert found[name].share < 1e-12, name
        assert not found[name].enters
    # Of M v with M = diag(1 + e, 1, 1) the average over the cube is tr(M) / 3 v.
    square, mean = ((1 + by) ** 2 + 2) / 3, (3 + by) / 3
    assert found["stretch"].share == pytest.approx(1 - mean**2 / square, rel=1e-5)
    # Squared lengths, however large a constant stands beside them: |M v|^2 - const.
    assert 1e-3 < found["lengths"].share < 0.5
    for part in found.values():
        assert part.total == pytest.approx(part.twirled + part.equivariance, rel=1e-9)
        assert all(map(math.isnan, part.interval())), "few samples under shared elements"
        assert not part.declared
    said = summary(found)
    assert said.startswith("the error enters by stretch (share 0.0")
    assert "grows most at " in said


def test_a_symmetric_model_has_no_layer_that_breaks() -> None:
    for group in ("octahedral", "so3", "o3"):
        found = layers(Layered(), group)
        assert all(part.symmetry is not None for part in found.values())
        assert not any(part.enters for part in found.values())
    assert "none of 7 layers" in summary(found)


def test_what_has_no_type_is_not_called_broken() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(3, 8)
            self.last = nn.Linear(8, 3)

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": self.last(torch.tanh(self.first(pos)))}

    found = layers(Raw())
    assert found["first"].symmetry is None
    assert found["first"].share > 0.1
    assert not found["first"].enters


def test_a_type_that_does_not_hold_in_a_symmetric_model_is_not_believed() -> None:
    class Uneven(nn.Module):
        """Twenty scalars and vectors in an order that is not guessed, and an exact output."""

        def __init__(self) -> None:
            super().__init__()
            self.state = nn.Identity()

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            large = 10 * pos.square().sum(1, keepdim=True).expand(-1, 5)
            state = self.state(torch.cat((large, pos, large), 1))
            return {"pull": state[:, 5:8]}

    found = layers(Uneven())["state"]
    assert 1e-4 < found.share < 0.1
    assert found.symmetry is None


def test_declared_types_count_and_must_fit() -> None:
    model = Layered(0.1)
    model.feature_types = {"lengths": f"{WIDTH}x0e", "mix": "0e"}
    found = layers(model)
    assert found["lengths"].declared
    assert found["lengths"].symmetry == f"{WIDTH}x0e"
    # Vectors that are said to be scalars are broken altogether.
    assert found["mix"].share == pytest.approx(1.0, abs=1e-9)
    assert found["mix"].enters
    for types, says in (
        ({"mux": "1o"}, "'mux', which is no module"),
        ({"lengths": "1o"}, r"layer lengths is declared '1o', of 3 components"),
        ({"lengths": "vector"}, "cannot be read"),
    ):
        model.feature_types = types
        with pytest.raises(UsageError, match=says):
            layers(model)


def test_irreps_of_e3nn_are_read() -> None:
    from e3nn import o3

    class Harmonic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.harmonics = o3.SphericalHarmonics("0e + 1o + 2e", normalize=False)
            self.linear = o3.Linear("0e + 1o + 2e", "2x1o")

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": self.linear(self.harmonics(pos))[:, :3]}

    found = layers(Harmonic(), "o3")
    assert found["linear"].symmetry == "2x1o"
    assert found["linear"].declared
    assert found["harmonics"].symmetry == "1x0e + 1x1o + 1x2e"
    assert not any(part.enters for part in found.values())


def test_vectors_by_component_behind_scalars_are_found() -> None:
    class Flat(nn.Module):
        """Scalars, all x, all y and all z in one row, as a plain network may hold them."""

        def __init__(self) -> None:
            super().__init__()
            self.state = nn.Identity()

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            scalars = torch.stack((pos.square().sum(1), pos.norm(dim=1)), 1)
            vectors = torch.stack((pos, 2 * pos), 2).flatten(1)
            self.state(torch.cat((scalars, vectors), 1))
            return {"pull": pos}

    assert layers(Flat())["state"].symmetry == "2x0e + 2x1o"


def test_a_module_that_is_called_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(Stretch(0.1))

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            v = pos[..., None]
            return {"pull": self.block(self.block(v))[..., 0]}

    found = layers(Twice())
    # The sequence returns what its only module did.
    assert list(found) == ["block.0", "block.0 (2)"]
    assert found["block.0"].share < found["block.0 (2)"].share


def test_one_row_is_judged_by_its_size() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.Identity()

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            size = pos.reshape(-1, POINTS, 3).square().sum((1, 2))
            return {"pull": pos * self.pool(size)[batch, None]}

    r = measure_equivariance(Pooled(), TASK, split=clouds(8), samples=1, by="layer")
    part = r.by["pool"]
    assert isinstance(part, LayerPart)
    assert part.symmetry == "0e"
    assert part.total > 1
    assert not part.enters


def test_what_does_not_fit_into_memory_is_looked_at_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers_module, "_MOST_SAMPLES", 1)
    whole = layers(Layered(0.2))
    monkeypatch.setattr(layers_module, "_VALUES_AT_ONCE", 1)
    assert {name: part.share for name, part in layers(Layered(0.2)).items()} == {
        name: part.share for name, part in whole.items()
    }


def test_what_a_module_says_of_another_result_is_no_mistake() -> None:
    class Says(nn.Module):
        irreps_out = "8x0e+8x1o"

        def forward(self, v: Tensor) -> Tensor:
            return 2 * v

    class Says2(Says):
        irreps_out = "whatever"

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Says(), Says2()

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": self.second(self.first(pos))}

    found = layers(Both())
    assert [(part.symmetry, part.declared) for part in found.values()] == [("1o", False)] * 2


def test_hooks_are_gone_afterwards_and_inner_derivatives_work() -> None:
    class Conservative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(1, 4)

        def energy(self, pos: Tensor) -> Tensor:
            return self.layer(pos.square().sum(1, keepdim=True)).sum()

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": -torch.func.grad(self.energy)(pos)}

    model = Conservative()
    found = layers(model)
    assert found["layer"].symmetry == "0e"
    assert not found["layer"].enters
    assert not model.layer._forward_hooks
