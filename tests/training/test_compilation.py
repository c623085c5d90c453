"""Compilation: charged to its own part, complete before training starts, and refused where its
gradients are wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled import graphs_compiled
from torch import Tensor, nn
from toy_training import (
    Guessing,
    ToyNet,
    ToySplit,
    record_at_end,
    record_so_far,
    toy_trainer,
)

from equivbench.environment import cxx_compiler
from equivbench.errors import FailedError
from equivbench.measure.evaluator import Evaluator
from equivbench.specs import Precision
from equivbench.training import compilation
from equivbench.training.data import seed_global
from equivbench.training.loop import Trainer

needs_compiler = pytest.mark.skipif(cxx_compiler() is None, reason="no C++ compiler")


class RaggedNet(nn.Module):
    """A network with a data-dependent number of rows, as edges are: their count differs from batch
    to batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.norm = nn.LayerNorm(32)
        self.last = nn.Linear(32, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.norm(torch.nn.functional.silu(self.first(torch.cat([a, b], 1))))
        return {"y": self.last(h)}


@needs_compiler
@pytest.mark.slow
def test_every_graph_is_compiled_before_training_starts(tmp_path: Path) -> None:
    trainer = toy_trainer(
        "30steps", model=RaggedNet(), compile=True, folder=tmp_path, rungs=1, batch_size=9
    )
    trainer.prepare()
    seconds = trainer.clock.seconds()
    assert seconds["compile"] > 0
    assert seconds["train"] == seconds["data"] == 0
    graphs = graphs_compiled()
    assert graphs >= 2
    assert any((tmp_path / "compiler").rglob("*"))
    trainer.train_slice(1e9)
    trainer.time_block(0.0)
    record = record_at_end(trainer)
    assert trainer.finished
    assert graphs_compiled() == graphs
    assert record.recipe.compile == compilation.BACKEND
    assert record.clock.compile == seconds["compile"]
    assert "recipe.compile" not in record.reasons


class Traced(ToyNet):
    """Compiled up to the C++, which is made above."""

    def compile(self, *args: Any, **options: Any) -> None:
        super().compile(*args, **{**options, "backend": "aot_eager"})


class Guess(Traced):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"y": self.layers(torch.cat([a, b], 1)) + 0.1 * c}


@needs_compiler
@pytest.mark.slow
def test_the_pass_that_feeds_back_is_compiled_before_training_too(tmp_path: Path) -> None:
    task = Guessing()
    whole, part = (
        Evaluator(task, ToySplit(16, seed), requires={}, rotations=2, batch_size=16)
        for seed in (2, 3)
    )
    trainer = toy_trainer(
        "20steps",
        task=task,
        model=Guess(),
        evaluators=(whole, part),
        compile=True,
        folder=tmp_path,
        rungs=0,
        batch_size=9,
    )
    trainer.prepare()
    graphs = graphs_compiled()
    assert any(trainer.batches.feeds_back(9 * step) for step in range(20))
    trainer.train_slice(1e9)
    assert trainer.finished
    assert graphs_compiled() == graphs


@needs_compiler
@pytest.mark.slow
def test_a_resumed_run_compiles_again_but_is_not_charged_twice(tmp_path: Path) -> None:
    def compiled() -> Trainer:
        seed_global(0, "init")
        return toy_trainer("30steps", model=Traced(), compile=True, folder=tmp_path)

    first = compiled()
    first.train_slice(0.0)
    first.save()
    charged = first.clock.seconds()["compile"]
    again = compiled()
    assert again.restore()
    again.train_slice(1e9)
    assert again.clock.seconds()["compile"] == charged
    assert again.clock.seconds()["other"] > first.clock.seconds()["other"]
    eager = toy_trainer("30steps")
    eager.train_slice(1e9)
    # Thirty steps apart by float32 rounding in sums of another order.
    assert again.trace[-1].test.total == pytest.approx(eager.trace[-1].test.total, rel=1e-3)


@needs_compiler
@pytest.mark.slow
def test_dropout_is_checked_in_evaluation_mode() -> None:
    trainer = toy_trainer("4steps", model=Traced(dropout=0.5), compile=True)
    trainer.train_slice(1e9)
    assert trainer.finished
    assert trainer.compiled == compilation.BACKEND


class WronglyCompiled(RaggedNet):
    """Its ``compile`` changes one gradient by ten percent, as a wrong double backward would."""

    def compile(self, **options: Any) -> None:
        self.norm.weight.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: 1.1 * gradient
        )


@needs_compiler
def test_wrong_gradients_end_the_run_with_the_parameter_named() -> None:
    trainer = toy_trainer("4steps", model=WronglyCompiled(), compile=True)
    with pytest.raises(FailedError, match=r"gradient of norm.weight is off by 1.0e-01") as caught:
        trainer.train_slice(1e9)
    assert "\n" not in str(caught.value)


class Uncompilable(RaggedNet):
    def compile(self, **options: Any) -> None:
        raise torch._dynamo.exc.Unsupported("no route through this")


@needs_compiler
def test_a_model_that_cannot_be_compiled_is_one_sentence() -> None:
    trainer = toy_trainer("4steps", model=Uncompilable(), compile=True)
    with pytest.raises(FailedError, match=r"cannot be compiled .*compile=False") as caught:
        trainer.prepare()
    assert "\n" not in str(caught.value)


def test_without_a_compiler_training_is_eager_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cxx_compiler() is None
    trainer = toy_trainer("4steps", compile=True)
    trainer.train_slice(1e9)
    record = record_so_far(trainer)
    assert record.recipe.compile is None
    assert trainer.notes == [compilation.NO_COMPILER]
    assert record.reasons["recipe.compile"] == compilation.NO_COMPILER
    assert 0 < record.clock.compile < 10  # the first step alone


def test_the_compilers_caches_are_empty_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "elsewhere")
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "left-by-a-killed-run").touch()
    compilation.use_empty_cache(tmp_path)
    cache = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert list((tmp_path / "compiler").iterdir()) == [cache]
    assert not list(cache.iterdir())
    assert cache.stat().st_mode & 0o777 == cache.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_where_the_compilers_cache_should_be_costs_nobody_a_file(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter").touch()
    (tmp_path / "compiler").symlink_to(tmp_path / "documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
        patch.setenv("TRITON_CACHE_DIR", "elsewhere")
        compilation.use_empty_cache(tmp_path)
        assert list(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).iterdir()) == []
    assert (tmp_path / "documents" / "letter").exists()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_disagreement_scales_with_each_parameter(precision: Precision) -> None:
    eager = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.5]), "noise": torch.tensor([1e-9])}
    tolerance = compilation._TOLERANCE[precision]
    near = {"a": eager["a"] * (1 + 0.5 * tolerance), "b": eager["b"], "noise": torch.tensor([2e-9])}
    far = {**near, "b": eager["b"] * (1 + 2 * tolerance)}
    assert compilation.disagreement(eager, near, precision) is None
    assert "gradient of b" in str(compilation.disagreement(eager, far, precision))
    assert "one of the two" in str(compilation.disagreement(eager, {"a": eager["a"]}, precision))
    assert "gradient of a" in str(
        compilation.disagreement(eager, {**near, "a": eager["a"] * float("nan")}, precision)
    )


def test_shutil_finds_what_inductor_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert cxx_compiler() == shutil.which("g++" if os.uname().sysname != "Darwin" else "clang++")
