"""A run that is too large for its device says so in a sentence, from the worker to whoever asked
for it, and is told apart from one that failed."""

from __future__ import annotations

import pytest
import torch
from toy_training import JOB

from equivbench.errors import FailedError, ModelError
from equivbench.execution.worker import explain
from equivbench.execution.workers import FailedRunError, TooLargeError, as_error

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of "
    "which 2.00 GiB is free.\nProcess 1 has 4.00 GiB memory in use."
)


def in_an_evaluation() -> FailedError:
    error = FailedError("ToyNet failed on a batch: OutOfMemoryError: CUDA out of memory.")
    error.__cause__ = torch.cuda.OutOfMemoryError(CUDA)
    return error


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError(CUDA), MemoryError(), in_an_evaluation()]
)
def test_too_little_memory_is_one_sentence_with_what_to_do(error: BaseException) -> None:
    failure = explain(error, JOB)
    assert failure.too_large
    assert failure.exit_code == 3
    assert failure.text.startswith(f"{JOB.label}: the memory of cpu is too small for it (")
    assert failure.text.endswith("take a smaller batch_size in its recipe, or a smaller network")
    assert "\n" not in failure.text
    raised = as_error(failure)
    assert isinstance(raised, TooLargeError)
    assert raised.reason == failure.text


@pytest.mark.parametrize("error", [ModelError("wrong"), ValueError("wrong"), OSError("wrong")])
def test_whatever_else_fails_is_not_too_large(error: BaseException) -> None:
    failure = explain(error, JOB)
    assert not failure.too_large
    raised = as_error(failure)
    assert isinstance(raised, FailedRunError)
    assert not isinstance(raised, TooLargeError)
