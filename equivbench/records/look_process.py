"""A process that looks at records for another one: a line of JSON with paths in, a line of JSON
with what was seen out, until there is no more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from equivbench.records.look import Seen, see


def main() -> None:
    """Answer every line of stdin."""
    for line in sys.stdin.buffer:
        files, outlined = msgspec.json.decode(line, type=tuple[list[bytes], bool])
        seen: list[Seen] = [see(Path(os.fsdecode(file)), outlined=outlined) for file in files]
        sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
