"""The process of a further rank of an arm: it follows the worker, which is the first
(``python -m equivbench.execution.replica``)."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from typing import BinaryIO

import msgspec

from equivbench.execution.messages import (
    Begin,
    claim_standard_streams,
    receive_act,
    send,
)
from equivbench.execution.replicas import LEAVE_SECONDS
from equivbench.execution.worker import explain, leave_signals_to_the_orchestrator, load
from equivbench.execution.workers import hangs_after
from equivbench.training.acts import Act, Join
from equivbench.training.job import Job

Acts = queue.SimpleQueue[Begin | Act | None]


def serve(commands: BinaryIO, answers: BinaryIO) -> int:
    """Do what the first rank tells, until it closes the pipe or is gone. An error is handed to it
    as the sentence that ends the run."""
    begin = receive_act(commands)
    if not isinstance(begin, Begin):
        return 0
    number = int(os.environ["RANK"])
    place = begin.job.replicas[number - 1]
    job = msgspec.structs.replace(begin.job, device=place.device, cores=list(place.cores))
    acts: Acts = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands, acts), daemon=True).start()
    try:
        load(msgspec.structs.replace(begin, job=job))
        return _follow(job, number, acts)
    except BaseException as error:  # noqa: BLE001  it must reach the first rank as a sentence
        from equivbench.ranks import LostRankError

        if isinstance(error, LostRankError):
            # Which rank is gone, and why, the first one says; it then closes the pipe.
            traceback.print_exception(error)
            threading.Event().wait()
        send(answers, explain(error, job))
        return 1


def _follow(job: Job, number: int, acts: Acts) -> int:
    import torch

    from equivbench.ranks import Ranks, store_at
    from equivbench.training.assembly import build_follower

    join = acts.get()
    if not isinstance(join, Join):
        return 0
    os.environ["MASTER_PORT"] = str(join.port)
    # The job's own device is that of this rank here: the first one's is of the same kind.
    first = torch.device(job.device).type
    devices = [torch.device(first), *(torch.device(place.device) for place in job.replicas)]
    store = store_at(os.environ["MASTER_ADDR"], join.port, len(devices))
    follower = build_follower(job, Ranks.joined(store, number, devices, hangs_after()))
    while True:
        act = acts.get()
        if act is None or isinstance(act, Begin):
            return 0
        follower.follow(act)


def _listen(commands: BinaryIO, acts: Acts) -> None:
    """Queue what the first rank says; some time after its end this process ends too."""
    while True:
        act = receive_act(commands)
        acts.put(act)
        if act is None:
            # Whoever waits for a rank that is gone waits for ever.
            time.sleep(LEAVE_SECONDS)
            os._exit(0)


if __name__ == "__main__":
    leave_signals_to_the_orchestrator()
    sys.exit(serve(*claim_standard_streams()))
