"""Measures the symmetry of a model: the rotated test set, the evaluator, and the verification of a
declared symmetry against its numerical floor."""
