"""Every arm with all its tensors on another device than the CPU: torch's ``meta``, which computes
shapes alone and refuses, as a GPU does, what is left behind on the CPU."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dev_jobs import dev_job
from toy_kernels import right

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, OnBackend, built_for
from equivbench.kernels.operations import Operation
from equivbench.registry import KERNEL_BACKENDS, PAIRS, register_kernel_backend
from equivbench.symmetry.wrappers import wrap
from equivbench.training.arm import ResolvedArm, resolve_arm
from equivbench.training.data import Batches
from equivbench.training.optim import Average, build_optimizer, clip_gradients

META = torch.device("meta")
ARMS = [(name, arm.name) for name, each in PAIRS.entries().items() for arm in each.value.arms]


@pytest.fixture
def backends() -> Iterator[None]:
    """The ``torch`` backend is for ``meta`` too."""
    before = KERNEL_BACKENDS.entries()
    spec = KERNEL_BACKENDS.get("torch")
    others = {name: entry for name, entry in before.items() if name != "torch"}
    KERNEL_BACKENDS.restore(others)
    KERNEL_BACKENDS.add(dataclasses.replace(spec, devices=(*spec.devices, "meta")))
    yield
    KERNEL_BACKENDS.restore(before)


@pytest.fixture
def autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.autocast`` knows no ``meta``, on which there is nothing to cast."""
    real = torch.autocast

    def cast(device: str, *arguments: Any, **options: Any) -> Any:
        if device == "meta":
            return contextlib.nullcontext()
        return real(device, *arguments, **options)

    monkeypatch.setattr(torch, "autocast", cast)


def declared(pair: str, arm: str) -> ResolvedArm:
    return resolve_arm(dev_job(Path("results"), pair, arm))


@pytest.mark.slow
@pytest.mark.usefixtures("backends", "autocast")
@pytest.mark.parametrize(("pair", "arm"), ARMS)
def test_a_step_of_every_arm_leaves_nothing_on_the_cpu(pair: str, arm: str) -> None:
    resolved = declared(pair, arm)
    data = resolved.dataset().load()
    recipe, task = resolved.recipe, resolved.task
    with built_for(META):
        model = resolved.build_model(0).to(META)
    cpu = torch.device("cpu")
    requires = resolved.requires(model)
    # Neighbours are found on the CPU: how many there are is no matter of shapes.
    batch = Batches(task, data.train, recipe, requires, 0, cpu).at(0, 4)
    inputs, targets = ({name: each.to(META) for name, each in part.items()} for part in batch)
    # The fused optimisers exist for devices that compute alone.
    optimizer = build_optimizer(model, dataclasses.replace(recipe, optimizer="adamax"))
    average = Average(model, recipe.ema)
    # A frame asks its device how many molecules there are.
    in_frames = ("frames", "stochastic-frames", "canonical")
    module = model if resolved.arm.wrapper in in_frames else resolved.wrapped(model)
    outputs = module(**inputs)
    if task.feedback is not None:
        again = outputs[task.feedback.output].detach()
        outputs = module(**{**inputs, task.feedback.input: again})
    loss = task.objective(outputs, targets, inputs)
    loss.backward()
    assert loss.device == META
    assert loss.shape == ()
    reached = [each for each in model.parameters() if each.grad is not None]
    assert reached
    assert all(each.grad.device == META for each in reached)
    clip_gradients(list(model.parameters()), 1.0)
    optimizer.step()
    average.update(0)
    twirled = wrap("twirl-2", model, task.fields, task.index_field)(**inputs)
    assert twirled[task.prediction].device == META


@pytest.mark.usefixtures("backends")
def test_a_backend_for_one_device_is_used_in_a_network_that_is_built_for_it() -> None:
    built = []

    class Elsewhere:
        def missing(self, device: torch.device) -> str | None:
            return None

        def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Any:
            built.append(device.type)
            return Kernel(right(operation), "by hand")

    before = KERNEL_BACKENDS.entries()
    try:
        register_kernel_backend("elsewhere", summary="a test", devices=("meta",))(Elsewhere)
        resolved = declared("forcefield/tensor-product", "equivariant")
        resolved = dataclasses.replace(resolved, config={**resolved.config, "kernels": "elsewhere"})
        with built_for(META):
            network = resolved.build_model(0).to(META)
        kernels = [each for each in network.modules() if isinstance(each, OnBackend)]
        assert {each.name for each in kernels} == {"elsewhere"}
        assert set(built) == {"meta"}
        assert all(each.kernel.method == "by hand" for each in kernels)
        # On a CPU it can be built, so that it can be moved, and says there why it does not run.
        at_home = resolved.build_model(0)
        data = resolved.dataset().load()
        cpu = torch.device("cpu")
        batches = Batches(
            resolved.task, data.train, resolved.recipe, resolved.requires(at_home), 0, cpu
        )
        inputs, _ = batches.at(0, 2)
        with pytest.raises(FailedError, match="elsewhere cannot run on cpu"):
            at_home(**inputs)
    finally:
        KERNEL_BACKENDS.restore(before)
