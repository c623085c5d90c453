"""Measures the symmetry of a model: the evaluator, its floor, the verification of a declared symmetry."""
