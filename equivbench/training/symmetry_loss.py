"""The symmetry loss of an arm whose recipe has one: a penalty on what its predictions lack to be
equivariant, added to the objective of every training step. Of two kinds, a file each.

What a kind does in a step: ``at`` gives the penalty of a batch, its ``outputs`` are what the arm
predicts for it beside the batch itself, perhaps nothing, and its ``penalty`` is the scalar.
"""

from __future__ import annotations

from equivbench.errors import UsageError
from equivbench.training.arm import Arm
from equivbench.training.rotated_copies import RotatedCopies
from equivbench.training.rotational_gradient import RotationalGradient

SymmetryLoss = RotatedCopies | RotationalGradient


def symmetry_loss_of(arm: Arm, seed: int) -> SymmetryLoss | None:
    """The one of the recipe of ``arm``, what it draws a function of ``seed``; None where its weight
    is 0.

    Raises ``UsageError`` for a weight below 0, and for a kind that the arm's task does not have.
    """
    recipe = arm.recipe
    if recipe.symmetry_loss < 0:
        raise UsageError(
            f"a symmetry loss of weight {recipe.symmetry_loss:g} would reward what breaks the "
            "symmetry; give a weight of 0 or more"
        )
    if recipe.symmetry_loss == 0:
        return None
    if recipe.symmetry_loss_kind == "rotated-copy":
        return RotatedCopies(arm, seed)
    return RotationalGradient(arm)
