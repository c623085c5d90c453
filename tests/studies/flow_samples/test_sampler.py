"""The flow's sampler: exact on Gaussians to its order, equivariant with its model, blind to
padding."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.studies.flow_samples.sampler import integrate, sample_backbones, time_grid
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.flow.networks.vector_head import build
from equivbench.tasks.flow.task import centred

TINY = {
    "dim": 16,
    "layers": 1,
    "heads": 2,
    "expansion": 2,
    "pair": 8,
    "time": 8,
    "bins": 8,
    "vectors": 4,
    "products": 4,
}


def gaussian(mean: Tensor, scale: float):
    """E[x1 | x_t] for x1 = mean + scale * normal: the field whose flow is x0 -> mean + scale * x0,
    exactly."""

    def model(
        x_t: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> dict[str, Tensor]:
        t = t[:, None, None]
        return {"x1": mean + scale**2 * t / ((1 - t) ** 2 + scale**2 * t**2) * (x_t - t * mean)}

    return model


def starts(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """(centred float64 noise, mask) of backbones of these lengths."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    return centred(
        torch.randn(*mask.shape, 3, generator=generator, dtype=torch.float64), mask
    ), mask


def trained_like() -> nn.Module:
    """A small SO(3) network whose zero-initialised heads speak."""
    torch.manual_seed(0)
    model = build({**TINY, "data_scale": 0.8}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("schedule", ["log", "uniform"])
def test_gaussians_are_transported_with_the_order_of_the_method(
    method: str, order: int, schedule: str
) -> None:
    x0, mask = starts([6, 6])
    mean = centred(torch.linspace(-1, 2, 18, dtype=torch.float64).reshape(1, 6, 3), mask[:1])
    exact = mean + 0.4 * x0
    errors = [
        float(
            (integrate(gaussian(mean, 0.4), x0, mask, time_grid(steps, schedule), method) - exact)
            .abs()
            .max()
        )  # type: ignore[arg-type]
        for steps in (50, 100, 200)
    ]
    for coarse, fine in itertools.pairwise(errors):
        # At these step sizes the next term of the error is a few per cent of the leading one.
        assert coarse / fine == pytest.approx(2**order, rel=0.1)
    assert errors[-1] < {1: 1e-2, 2: 2e-4}[order]


def test_time_grids_run_from_noise_to_data() -> None:
    for schedule in ("log", "uniform"):
        times = time_grid(25, schedule)  # type: ignore[arg-type]
        assert (len(times), float(times[0]), float(times[-1])) == (26, 0.0, 1.0)
        assert (times.diff() > 0).all()
    steps = time_grid(100, "log").diff()
    # Geometric, a factor of a hundred over all but one step.
    torch.testing.assert_close(
        steps[1:] / steps[:-1], torch.full_like(steps[1:], 10 ** (-2 / 100)), rtol=1e-9, atol=0.0
    )


def test_a_rotated_noise_gives_the_rotated_sample_and_a_mirrored_one_does_not_give_its_mirror() -> (
    None
):
    model = trained_like()
    x0, mask = starts([7, 12])
    times = time_grid(8)
    rotations = random_rotations(2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        plain = integrate(model, x0, mask, times, "heun")
        rotated = integrate(model, x0 @ rotations.transpose(1, 2), mask, times, "heun")
        mirrored = integrate(model, -x0, mask, times, "heun")
    # float64 rounding of the network, carried over 15 calls.
    torch.testing.assert_close(rotated, plain @ rotations.transpose(1, 2), rtol=0, atol=1e-9)
    assert (mirrored + plain).abs().max() > 1e-3


def test_samples_do_not_depend_on_their_padding() -> None:
    model = trained_like()
    x0, mask = starts([5, 9])
    times = time_grid(6)

    def spoilt(**inputs: Tensor) -> dict[str, Tensor]:
        return {"x1": model(**inputs)["x1"].masked_fill(~inputs["mask"][..., None], float("nan"))}

    with torch.no_grad():
        together = integrate(spoilt, x0, mask, times)
        alone = integrate(model, x0[:1, :5], mask[:1, :5], times)
    # Sums over 9 residues, 4 of them zero, are not sums over 5 to the last bit.
    torch.testing.assert_close(together[:1, :5], alone, rtol=0, atol=1e-10)
    assert (together[0, 5:] == 0).all()


def test_the_last_prediction_is_fed_back_and_the_last_step_ends_on_it() -> None:
    seen: list[Tensor] = []
    given: list[Tensor] = []

    def model(
        x_t: Tensor, x_sc: Tensor, t: Tensor, mask: Tensor, residue: Tensor
    ) -> dict[str, Tensor]:
        seen.append(x_sc)
        given.append(centred(x_t.square() + 0.1 * x_sc, mask))
        return {"x1": given[-1]}

    x0, mask = starts([4])
    for method, calls in (("euler", 3), ("heun", 5)):
        seen.clear()
        given.clear()
        out = integrate(model, x0, mask, time_grid(3), method)  # type: ignore[arg-type]
        assert len(seen) == calls
        assert (seen[0] == 0).all()
        for fed, output in zip(seen[1:], given[:-1], strict=True):
            assert torch.equal(fed, output)
        # x + (1 - t) (x1 - x) / (1 - t): rounding only.
        torch.testing.assert_close(out, given[-1], rtol=1e-12, atol=1e-12)


def test_samples_are_centred_padded_and_repeatable() -> None:
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return sample_backbones(trained_like().float(), [11, 5], generator=generator, steps=3)[
                0
            ]

    samples = draw(0)
    assert samples.shape == (2, 16, 3)
    assert (samples[0, 11:] == 0).all()
    assert (samples[1, 5:] == 0).all()
    # float32 means of 11 numbers of order 1.
    assert samples.sum(1).abs().max() < 1e-5
    assert torch.equal(samples, draw(0))
    assert not torch.equal(samples, draw(1))


def test_usage_errors_are_sentences() -> None:
    model, generator = trained_like(), torch.Generator()
    with pytest.raises(UsageError, match="at least 1 step"):
        time_grid(0)
    for lengths in ([], [0], [4, -1]):
        with pytest.raises(UsageError, match="length of at least 1"):
            sample_backbones(model, lengths, generator=generator)
