"""Trains one arm under its budget. ``loop`` is the file to read first; ``arm`` makes what it trains
from a job, and ``record`` fills the run's record from it."""
