"""A kernel built, checked against its float64 reference and warmed up, to be timed in rounds whose results are checked too."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator

import torch

from equivbench.errors import EquivbenchError, FailedError
from equivbench.kernels.availability import absent
from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.bandwidth import cache_bytes
from equivbench.kernels.cases import Case
from equivbench.kernels.checking import WrongKernelError, tolerance
from equivbench.kernels.derivatives import Results
from equivbench.kernels.operands import Operands, Slot
from equivbench.kernels.problem import Problem, pose
from equivbench.kernels.timers import Timer, timer
from equivbench.records.kernels import MODES, Mode
from equivbench.registry import KERNEL_BACKENDS

SAMPLE = 0.01
"""Least seconds of a sample: below, the clock and the scheduler show."""
_WARM_UP_CALLS = 3
_MOST_CALLS = 10**7


class AbsentError(FailedError):
    """The backend cannot run here; the message says why and how to get it."""


def why_absent(backend_name: str, device: torch.device) -> str | None:
    """Why the backend cannot run on ``device`` here and how to get it; None if it can. Raises ``UsageError`` for no backend."""
    return absent(KERNEL_BACKENDS.get(backend_name), str(device)) or backend(backend_name).missing(device)


def prepare(
    case: Case,
    mode: Mode,
    backend_name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    seed: int = 0,
) -> Prepared:
    """``case`` on the backend called ``backend_name``, right and warm.

    Raises ``UsageError`` for an unknown backend, ``AbsentError`` for one that is not here, ``UnsupportedError`` for what it does
    not do, ``WrongKernelError`` if a result is not the reference's, ``FailedError`` if it raises anything itself.
    """
    return Prepared(pose(case, mode, dtype=dtype, device=device, seed=seed), mode, backend_name)


class Prepared:
    """A backend's kernel for one problem and mode; :meth:`round` times it.

    Before any time is taken, all results of the mode (output, gradients, second gradients) agree with the float64 reference
    for two sets of numbers, in turn through the same memory, and for arguments that are not contiguous; and the arguments
    are as they were.
    """

    def __init__(self, problem: Problem, mode: Mode, backend_name: str, *, clock: Timer | None = None) -> None:
        tolerance(problem.dtype)
        self.problem, self.case, self.mode, self.backend = problem, problem.case, mode, backend_name
        self._clock = clock or timer(problem.device)
        self.compile_seconds = 0.0
        """What building and the first calls took more than later calls; 0 for a kernel that does not compile."""
        self._last: tuple[Slot, Results] | None = None
        self._calls = 1
        self.errors: dict[str, float] = {}
        """Largest relative error of each result so far (:func:`equivbench.kernels.checking.relative_error`)."""
        with self._told():
            self._prepare()

    def _prepare(self) -> None:
        begin = time.perf_counter()
        kernel = self._built()
        self.method = kernel.method
        with _fresh_compilation(kernel):
            self._operands = Operands(kernel, self.problem, self.mode, cache_bytes(self.problem.device))
            first = self._operands.slots[0]
            results = self._operands.call(first)
            self._synchronize()
            to_first = time.perf_counter() - begin
            self._accept(first, results)
            # The same memory with other numbers, then other memory.
            for slot in (first, self._operands.slots[1]):
                self._accept(slot, self._operands.call(slot))
        strided = self._operands.strided()
        # What torch.compile makes is guarded on strides; it would compile again, and prefer the new code afterwards.
        with torch.compiler.set_stance("force_eager") if kernel.compiles else contextlib.nullcontext():
            try:
                self._operands.check(strided, self._operands.call(strided))
            except WrongKernelError as error:
                raise WrongKernelError(f"for arguments that are not contiguous, {error}") from None
        warm = min(self._sample()[0] for _ in range(_WARM_UP_CALLS))
        self._calls = max(1, math.ceil(SAMPLE / warm)) if warm > 0 else 1
        if kernel.compiles:
            self.compile_seconds = max(0.0, to_first - warm)

    def round(self, seconds: float = 0.1) -> float:
        """Seconds a call over about ``seconds`` of calls: the least of the samples on a CPU, their 10th percentile on a GPU.

        A sample is at least 10 ms of calls, each on other memory than those before it; the results of the last one are
        checked. Raises ``WrongKernelError`` and ``FailedError`` as :func:`prepare`.
        """
        with self._told():
            samples: list[float] = []
            spent = 0.0
            while not samples or spent < seconds:
                taken, calls = self._sample()
                spent += taken
                if taken >= SAMPLE:
                    samples.append(taken / calls)
                else:
                    self._lengthen(taken)
            assert self._last is not None
            self._accept(*self._last)
            self._last = None
            return self._clock.reduce(samples)

    def _built(self) -> Kernel:
        reason = why_absent(self.backend, self.problem.device)
        if reason is not None:
            raise AbsentError(f"kernel backend {self.backend} is absent: {reason}")
        kernel = backend(self.backend).build(self.case.operation, dtype=self.problem.dtype, device=self.problem.device)
        if MODES.index(self.mode) > kernel.max_derivatives:
            raise UnsupportedError(f"{self.backend} does not support {self.mode} of {self.case.name}")
        return kernel

    def _sample(self) -> tuple[float, int]:
        """Seconds of ``_calls`` calls, and their number; no slot is visited twice without having been filled anew."""
        self._settle()
        seconds, left = 0.0, self._calls
        while left:
            slots = self._operands.take(left)
            left -= len(slots)
            results: Results = {}

            def work(slots: list[Slot] = slots) -> None:
                nonlocal results
                for slot in slots:
                    results = self._operands.call(slot)

            seconds += self._clock.seconds(work)
            self._last = slots[-1], results
            for slot in slots[:-1]:
                self._operands.turn(slot)
            if left:
                self._settle()
        return seconds, self._calls

    def _settle(self) -> None:
        """Turn the slot of the last call, if that is still to do."""
        if self._last is not None:
            self._operands.turn(*self._last)
            self._last = None

    def _lengthen(self, taken: float) -> None:
        """More calls a sample, after one of ``taken`` seconds was too short."""
        self._calls = math.ceil(self._calls * min(100.0, 1.2 * SAMPLE / taken if taken > 0 else 100.0)) + 1
        if self._calls > _MOST_CALLS:
            raise FailedError(f"{self.backend} on {self.case.name}: {_MOST_CALLS} calls take no time by the clock; it is broken")

    def _accept(self, slot: Slot, results: Results) -> None:
        """Check a call's results and arguments, and turn its slot."""
        errors = self._operands.check(slot, results)
        self._operands.check_untouched(slot)
        self._operands.turn(slot, results)
        self.errors = {name: max(error, self.errors.get(name, 0.0)) for name, error in errors.items()}

    def _synchronize(self) -> None:
        if self.problem.device.type == "cuda":
            torch.cuda.synchronize(self.problem.device)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """TF32 off, and whatever goes wrong as one sentence that names backend, case and mode."""
        where = f"{self.backend} on {self.case.name} ({self.mode})"
        convolutions = torch.backends.cudnn
        before = convolutions.allow_tf32
        convolutions.allow_tf32 = False
        try:
            yield
        except WrongKernelError as error:
            raise WrongKernelError(f"{where} is wrong and not timed: {error}") from error
        except EquivbenchError:
            raise
        except Exception as error:  # a backend may raise anything
            what = (str(error).strip() or "no message").splitlines()[0]
            raise FailedError(f"{where} fails: {type(error).__name__}: {what}") from error
        finally:
            convolutions.allow_tf32 = before


def _fresh_compilation(kernel: Kernel) -> contextlib.AbstractContextManager[object]:
    """Inductor without its caches, where ``kernel`` uses it: compile seconds mean compilation."""
    if not kernel.compiles or "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    import torch._inductor.config as inductor

    patched: contextlib.AbstractContextManager[object] = inductor.patch(force_disable_caches=True)
    return patched
