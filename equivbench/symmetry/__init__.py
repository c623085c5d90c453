"""Rotations, symmetry types and how a rotation acts on them, the error decomposition, and
symmetrising wrappers.

``rotations`` samples the groups, ``types`` reads e3nn's notation and rotates batches of declared
tensors, ``decomposition`` splits an error into its twirled and its equivariance part, ``spectrum``
the latter into irreps of the group, ``wrappers`` makes any model (more) equivariant.
"""
