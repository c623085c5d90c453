"""What other programs of the machine print."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

_PATIENCE = 20.0
"""Seconds: a driver that hangs must not hold up a run."""


def output_of(command: Sequence[str]) -> str | None:
    """What ``command`` prints, stripped, or None if it is absent, fails or takes 20 s."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
