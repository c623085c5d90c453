"""What is worked out from models and records: the symmetry measurement, and the efficiency gap between arms.

``measure`` is the way in for a model, ``rotated_set`` and ``evaluator`` hold and judge a fixed, rotated test set, ``measurement``
is what comes out; ``gap`` compares the records of two arms and needs no torch.
"""
