"""A tiny task in a package of its own, as a third party would write it: vectors from vectors, in
microseconds a step.

Fixtures copy this file to a folder on PYTHONPATH beside a .dist-info with entry points; nothing in
equivbench knows it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equivbench as eb
from equivbench.errors import EquivbenchWarning
from equivbench.registry import register_dataset
from equivbench.specs import ArmPreset, ArmSpec, Field, MatchSpec, PairPreset, PairSpec, Recipe
from equivbench.tasks.base import Card, Task, TaskData

if "TOY_ARMS_LARGEST_FILE" in os.environ:
    # As on a full disk, the kernel refuses to let a file of this process grow.
    largest = int(os.environ["TOY_ARMS_LARGEST_FILE"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


@eb.register_task("toy", summary="a vector field to be learned", board_unit="1")
class Toy(Task):
    """y = x (1 + |x|^2) + noise-free, so that an equivariant map can be exact."""

    name = "toy"
    fields = (
        Field("x", ("samples", 3), "float32", "1o", "graph", "1", "sample"),
        Field("y", ("samples", 3), "float32", "1o", "graph", "1", "output"),
    )
    prediction = "y"
    index_field = None
    board_unit = "1"

    def assemble(
        self,
        batch: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        requires: Mapping[str, float],
    ) -> Any:
        return {"x": batch["x"]}, {"y": batch["y"]}

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return (outputs["y"] - targets["y"]).square().sum(-1).mean()

    def samples_in(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["x"])

    def baseline(self, split: Any) -> float:
        y = split.collate(torch.arange(len(split)))["y"]
        return float(y.square().sum(-1).mean())


class ToySplit:
    """``count`` points of a normal distribution."""

    def __init__(self, count: int, seed: int) -> None:
        self.x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
        self.y = self.x * (1 + self.x.square().sum(-1, keepdim=True))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self))

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[indices], "y": self.y[indices]}


class ToySource:
    """Made in memory: there is no file."""

    def path(self) -> Path:
        return Path(__file__)

    def prepare(self) -> Path:
        return self.path()

    def verify(self) -> str:
        return "0" * 64

    def load(self) -> TaskData:
        splits = {
            "train": ToySplit(256, 0),
            "validation": ToySplit(64, 1),
            "test": ToySplit(128, 2),
        }
        card = Card(
            "toy-points", "1", self.verify(), {name: len(split) for name, split in splits.items()}
        )
        return TaskData(**splits, card=card)


@register_dataset("toy-points", task="toy", summary="points")
def toy_points() -> ToySource:
    return ToySource()


def pause(seconds: float) -> None:
    """Sleep, unless the file that TOY_ARMS_HURRY names exists.

    So a test has seconds, not milliseconds, to catch a run in its middle, and need not wait for the
    rest of it.
    """
    if seconds and not Path(os.environ.get("TOY_ARMS_HURRY", "")).is_file():
        time.sleep(seconds)


def slow_down_the_clock() -> None:
    """Make every clock of the run count half of the time."""
    for each in gc.get_objects():
        if type(each).__name__ == "Clock":
            each._now = lambda now=each._now: now() / 2


def end(by: str) -> None:
    """End this process as networks do: by a signal, by leaving, by running out of memory; or hang
    for ever."""
    if by.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, by))
    elif by == "exit":
        os._exit(7)
    elif by == "memory":
        raise MemoryError
    while by == "hang":
        time.sleep(0.1)


class Radial(nn.Module):
    """x times a function of |x|: equivariant. ``config`` can make it misbehave on purpose."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
        self.config = dict(config)
        self.calls = -1  # one call comes before the first step, in the step that is undone

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += self.training
        pause(self.config.get("sleep", 0.0))
        if self.training and self.calls == self.config.get("slow_at"):
            slow_down_the_clock()
        here = os.environ.get("RANK") in (None, self.config.get("on_rank", os.environ.get("RANK")))
        if self.training and here and self.calls == self.config.get("raise_at"):
            raise ValueError("the toy model was told to raise")
        if self.training and self.calls == self.config.get("die_at"):
            end(self.config["die_by"])
        y = x * self.scale(x.square().sum(-1, keepdim=True))
        return {"y": y * float("nan") if self.calls == self.config.get("nan_at") else y}


class Plain(nn.Module):
    """A perceptron on raw coordinates."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3))
        self.sleep = config.get("sleep", 0.0)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pause(self.sleep)
        return {"y": self.net(x)}


@eb.register_model("toy-radial", task="toy", symmetry="o3")
def radial(config: Mapping[str, Any]) -> nn.Module:
    return Radial(config)


class Remembers(Plain):
    """A perceptron that keeps the mean of its training batches, as batch normalisation does."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.seen.lerp_(x.mean(0), 0.1)
        return super().forward(x)


@eb.register_model("toy-remembers", task="toy", symmetry="none")
def remembers(config: Mapping[str, Any]) -> nn.Module:
    return Remembers(config)


class Traced(Plain):
    """A perceptron that is compiled up to the C++, which would take a minute."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **{**kwargs, "backend": "aot_eager"})


@eb.register_model("toy-traced", task="toy", symmetry="none")
def traced(config: Mapping[str, Any]) -> nn.Module:
    return Traced(config)


class Writes(Plain):
    """A perceptron that centres its input in place."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x -= x.mean(0)
        return super().forward(x)


@eb.register_model("toy-writes", task="toy", symmetry="none")
def writes(config: Mapping[str, Any]) -> nn.Module:
    return Writes(config)


@eb.register_model("toy-plain", task="toy", symmetry="none")
def plain(config: Mapping[str, Any]) -> nn.Module:
    print("a library that prints to stdout")
    return Plain(config)


@eb.register_model("toy-liar", task="toy", symmetry="so3")
def liar(config: Mapping[str, Any]) -> nn.Module:
    return Plain(config)


@eb.register_model("toy-unbuilt", task="toy", symmetry="o3")
def unbuilt(config: Mapping[str, Any]) -> nn.Module:
    warnings.warn("it is going to die", EquivbenchWarning, stacklevel=1)
    os.kill(os.getpid(), signal.SIGKILL)
    return Radial(config)


def pair(
    name: str,
    first: str = "toy-radial",
    second: str = "toy-plain",
    rate: float = 1e-3,
    compiled: bool = False,
    **config: Any,
) -> PairSpec:
    def arm(label: str, model: str, settings: Mapping[str, Any]) -> ArmSpec:
        augmentation = "none" if label == "equivariant" else "haar"
        recipe = Recipe(rate, 32, augmentation, warmup_steps=5, compile=compiled)
        return ArmSpec(
            label, model, {preset: ArmPreset(dict(settings), recipe) for preset in ("dev", "small")}
        )

    slow = {"sleep": config["sleep"]} if "sleep" in config else {}
    return PairSpec(
        name=name,
        task="toy",
        summary="a toy",
        arms=(arm("equivariant", first, config), arm("augmented", second, slow)),
        matching=MatchSpec("nothing", "nothing"),
        presets={
            preset: PairPreset("toy-points", "200steps", rungs=1) for preset in ("dev", "small")
        },
    )


for each in (
    pair("plain"),
    pair("slow", sleep=0.02),
    pair("liar", first="toy-liar"),
    pair("raises", raise_at=50),
    *(
        pair(f"dies-{by.lower()}", die_at=50, die_by=by)
        for by in ("SIGKILL", "SIGSEGV", "exit", "memory", "hang")
    ),
    pair("diverges", nan_at=50),
    pair("own-clock", sleep=0.02, slow_at=2),
    pair("writes", first="toy-writes"),
    pair("remembers", second="toy-remembers"),
    pair("raises-on-one", raise_at=50, on_rank="1"),
    pair("compiled", second="toy-traced", compiled=True),
    pair("unbuilt", first="toy-unbuilt"),
):
    eb.register_pair(each)
