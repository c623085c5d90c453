"""The process of one side in one round of ``check --interleave`` (``python -m``): it builds
benchmarks of the revision that it is imported from, and takes a sample whenever it is asked."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

import equivbench
from equivbench.environment import environment
from equivbench.execution.messages import claim_standard_streams
from equivbench.gate.benchmarks import AbsentBenchmark, Benchmark, Workload, selected
from equivbench.gate.protocol import (
    Built,
    Declared,
    Hello,
    Question,
    Refused,
    Reply,
    Sample,
    Took,
    Use,
)

_decode = msgspec.json.Decoder(Question).decode
_encode = msgspec.json.Encoder().encode


class SideProcess:
    """Answers commands about ``benchmarks``."""

    def __init__(self, benchmarks: Sequence[Benchmark]) -> None:
        self.benchmarks = {each.name: each for each in benchmarks}
        self._timed: Workload | None = None

    def hello(self) -> Hello:
        """What is here."""
        return Hello(
            package=str(Path(equivbench.__file__).resolve().parent),
            environment=environment("cpu", 1),
            benchmarks=[
                Declared(each.name, each.version, each.control) for each in self.benchmarks.values()
            ],
        )

    def answer(self, command: Question) -> Reply:
        """Build, or take a sample."""
        try:
            match command:
                case Use(name):
                    self._timed = None
                    gc.collect()
                    self._timed = self.benchmarks[name].build()
                    return Built()
                case Sample():
                    assert self._timed is not None, "a benchmark is used before it is sampled"
                    return Took(self._timed.sample())
        except AbsentBenchmark:
            return Refused(None)
        except Exception as error:  # noqa: BLE001  the revision's own code may raise anything
            return Refused(f"{type(error).__name__}: {error}")


def serve(process: SideProcess, commands: BinaryIO, answers: BinaryIO) -> None:
    """Reply until ``commands`` end."""

    def say(answer: Reply) -> None:
        answers.write(_encode(answer) + b"\n")
        answers.flush()

    say(process.hello())
    for line in commands:
        say(process.answer(_decode(line)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve on stdin and stdout; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m equivbench.gate.side", description=__doc__)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args(arguments)
    commands, answers = claim_standard_streams()
    import torch

    torch.set_num_threads(1)
    # Collections would fall into some samples and not into others.
    gc.disable()
    with contextlib.suppress(BrokenPipeError):
        serve(SideProcess(selected(options.only)), commands, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
