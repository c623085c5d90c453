"""The other end of ``compare_reference.py``: answers each line "N" on standard input with the mean
seconds of N steps."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def serve(step: Callable[[], None], facts: dict[str, float]) -> None:
    """Warm ``step`` up (compilation included), announce ``facts`` and time steps on request until
    standard input ends."""
    start = time.perf_counter()
    for _ in range(3):
        step()
    print(json.dumps({**facts, "first_steps_seconds": time.perf_counter() - start}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print((time.perf_counter() - start) / int(line), flush=True)
