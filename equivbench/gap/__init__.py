"""The efficiency gap between the arms of a pair: pairing, curves, break-even, intervals."""
