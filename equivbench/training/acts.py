"""What rank 0 of an arm tells the other ranks to do, as plain data. Imports no torch.

All that is decided (how many steps, when a budget is spent, what is measured) is decided by rank 0
alone, so no two ranks can come to differ about it.
"""

from __future__ import annotations

import msgspec


class Join(msgspec.Struct, tag="join", frozen=True):
    """Meet the other ranks at ``port`` of this machine and build the arm; the first act."""

    port: int


class CopyState(msgspec.Struct, tag="copy_state", frozen=True):
    """Take over rank 0's weights, averages and moments."""


class Compile(msgspec.Struct, tag="compile", frozen=True):
    """Compile whatever the arm compiles."""


class MakeStep(msgspec.Struct, tag="make_step", frozen=True):
    """Make one training step: number ``step``, on the batch from position ``samples`` on, its
    learning rate times ``rate_factor``."""

    step: int
    samples: int
    rate_factor: float


class MarkState(msgspec.Struct, tag="mark_state", frozen=True):
    """Keep what the tensors are now."""


class UndoSteps(msgspec.Struct, tag="undo_steps", frozen=True):
    """Go back to what was kept last."""


class ExchangeAverage(msgspec.Struct, tag="exchange_average", frozen=True):
    """Let the weights and their average change places."""


class Judge(msgspec.Struct, tag="judge", frozen=True):
    """Judge this rank's part of the test set of this name, and hand in the errors."""

    test_set: str


class HandInPrints(msgspec.Struct, tag="hand_in_prints", frozen=True):
    """Hand in the fingerprints of all tensors."""


class Meet(msgspec.Struct, tag="meet", frozen=True):
    """Wait for all ranks."""


Act = (
    Join
    | CopyState
    | Compile
    | MakeStep
    | MarkState
    | UndoSteps
    | ExchangeAverage
    | Judge
    | HandInPrints
    | Meet
)
