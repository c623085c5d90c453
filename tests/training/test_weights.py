"""Weights leave a network and come into another of its kind; a file far too large is not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from equivbench.errors import FailedError
from equivbench.records.weight_files import cached_weights
from equivbench.training import weights
from equivbench.training.weights import keep_weights, load_weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))


class Scaled(nn.Linear):
    """Saves something beside its weights that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"scale": 2.0}

    def set_extra_state(self, state: Any) -> None:
        self.scale = state["scale"]


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(3, 3), lambda: Scaled(3, 3), lambda: nn.BatchNorm1d(3).double()]
)
def test_another_network_of_its_kind_is_then_the_same(build: Callable[[], nn.Module]) -> None:
    mine, other = build(), build()
    for parameter in mine.parameters():
        nn.init.normal_(parameter)
    sha256 = keep_weights(mine)
    assert load_weights(other, cached_weights(sha256)) == sha256
    for name, tensor in mine.named_parameters():
        assert torch.equal(other.get_parameter(name), tensor)
    for name, buffer in mine.named_buffers():
        assert torch.equal(other.get_buffer(name), buffer)


def test_a_file_that_is_far_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.safetensors"
    with file.open("wb") as hole:
        hole.truncate(2**40)
    monkeypatch.setattr(weights, "read_bounded", None)
    with pytest.raises(FailedError, match="another network: it is larger than"):
        load_weights(nn.Linear(3, 3), file)
