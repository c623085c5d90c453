"""Synthetic backbones for the flow task's tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.tasks.flow.task import centred

LENGTHS = (13, 24, 9)
PADDED = 24


@dataclass(frozen=True)
class Chains:
    """A split of given chains, each [residues, 3], as the task reads it."""

    chains: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.chains)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self))

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        chosen = [self.chains[i] for i in indices.tolist()]
        longest = -(-max(map(len, chosen)) // 8) * 8
        lengths = torch.tensor([len(chain) for chain in chosen])
        mask = torch.arange(longest) < lengths[:, None]
        x1 = torch.stack(
            [torch.cat([chain, chain.new_zeros(longest - len(chain), 3)]) for chain in chosen]
        )
        return {
            "x1": centred(x1, mask),
            "mask": mask,
            "residue": torch.arange(longest).expand(mask.shape) * mask,
        }


def random_walks(number: int, length: int, seed: int = 0) -> Chains:
    """Chains of independent normal steps of .38 nm (root mean square): Gaussian exactly."""
    steps = torch.randn(
        number, length, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return Chains(tuple((0.38 / 3**0.5 * steps).cumsum(1)))


def backbones(seed: int = 0) -> Chains:
    """Chains of three lengths with handed, helix-like turns and some disorder."""
    generator = torch.Generator().manual_seed(seed)
    chains = []
    for length in LENGTHS:
        turn = torch.arange(length, dtype=torch.float64) * 1.745
        helix = torch.stack(
            [0.23 * turn.cos(), 0.23 * turn.sin(), 0.15 * torch.arange(length)], dim=-1
        )
        chains.append(
            helix + 0.1 * torch.randn(length, 3, generator=generator, dtype=torch.float64).cumsum(0)
        )
    return Chains(tuple(chains))


def inputs(
    dtype: torch.dtype = torch.float64, times: tuple[float, ...] = (0.1, 0.5, 0.95)
) -> dict[str, Tensor]:
    """What a network is called with, for the three backbones at these times, with a
    self-conditioning input."""
    batch = backbones().collate(torch.arange(3))
    generator = torch.Generator().manual_seed(7)
    mask, x1 = batch["mask"], batch["x1"]
    x0, guess = (torch.randn(x1.shape, generator=generator, dtype=x1.dtype) for _ in range(2))
    t = torch.tensor(times, dtype=x1.dtype)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * x1
    return {
        "x_t": centred(x_t, mask).to(dtype),
        "x_sc": centred(x1 + 0.3 * guess, mask).to(dtype),
        "t": t.to(dtype),
        "mask": mask,
        "residue": batch["residue"],
    }
