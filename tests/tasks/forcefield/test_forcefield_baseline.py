"""The linear baseline finds pair forces where there are some, and is equivariant whatever it was
fitted on."""

import pytest
import torch

from equivbench.measure.evaluator import Evaluator
from equivbench.tasks.forcefield.task import ForceField, PairForces, fit_pair_forces


class PairSplit:
    """Small random molecules of two elements whose forces are central pair forces (10 - r) / 10
    along r, or noise."""

    def __init__(self, count: int, noise: float, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        # Points of a jittered lattice, so that no two are on top of each other.
        lattice = torch.cartesian_prod(*[1.3 * torch.arange(2.0)] * 3)
        self.pos = lattice + 0.2 * torch.randn(count, 8, 3, generator=random)
        self.z = torch.tensor([1, 6])[torch.randint(2, (count, 8), generator=random)]
        apart = self.pos[:, :, None] - self.pos[:, None]
        lengths = apart.norm(dim=-1, keepdim=True) + torch.eye(8)[None, :, :, None]
        strength = (self.z[:, :, None] * self.z[:, None])[..., None] / 6 * (10 - lengths) / 10
        self.forces = (strength * apart / lengths).sum(2) + noise * torch.randn(
            count, 8, 3, generator=random
        )

    def __len__(self) -> int:
        return len(self.pos)

    @property
    def groups(self) -> torch.Tensor:
        return torch.arange(len(self))

    def collate(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "z": self.z[indices].flatten(),
            "pos": self.pos[indices].flatten(0, 1),
            "batch": torch.arange(len(indices)).repeat_interleave(8),
            "forces": self.forces[indices].flatten(0, 1),
            "energy": torch.zeros(len(indices)),
        }


@pytest.fixture(scope="module")
def fitted() -> PairForces:
    return fit_pair_forces(PairSplit(200, 0.0, 0), seed=0)


def test_it_finds_pair_forces(fitted: PairForces) -> None:
    r = Evaluator(ForceField(), PairSplit(40, 0.0, 1), requires={}).evaluate(fitted)
    # What twelve smooth functions of the distance leave over of a straight line.
    assert r.explained > 0.999
    assert r.verdict is not None
    assert r.verdict.holds


def test_what_is_not_a_pair_force_stays_unexplained() -> None:
    fitted = fit_pair_forces(PairSplit(200, 1.0, 0), seed=0)
    r = Evaluator(ForceField(), PairSplit(100, 1.0, 1), requires={}).evaluate(fitted)
    # Three components of unit variance, and about 36 coefficients fitted to 4,800 components: +1%.
    assert r.total == pytest.approx(3.0, rel=0.1)


def test_elements_that_the_fit_did_not_see_get_no_force(fitted: PairForces) -> None:
    batch = PairSplit(1, 0.0, 2).collate(torch.tensor([0]))
    outputs = fitted(z=torch.full_like(batch["z"], 35), pos=batch["pos"], batch=batch["batch"])
    assert outputs["forces"].abs().max() == 0
