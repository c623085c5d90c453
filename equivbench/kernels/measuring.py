"""A kernel built, checked against its float64 reference and warmed up, to be timed in rounds whose
results are checked too."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from unittest.mock import patch

import torch
from torch import Tensor

from equivbench.errors import EquivbenchError, FailedError
from equivbench.kernels import checking, timing
from equivbench.kernels import operands as operands_module
from equivbench.kernels.backend import Kernel, UnsupportedError, backend
from equivbench.kernels.backends import absent
from equivbench.kernels.caches import cache_bytes
from equivbench.kernels.checking import WrongKernelError, check, tolerance
from equivbench.kernels.graph_replay import GraphReplay, Recorder, cuda_graph
from equivbench.kernels.operands import Footprint, Operands, Slot
from equivbench.kernels.operations import Case
from equivbench.kernels.problem import (
    TANGENT,
    Arguments,
    KernelProblem,
    Results,
    Unseen,
    along,
    pose,
)
from equivbench.kernels.surroundings import FURTHER, attributes, unchanged
from equivbench.kernels.timing import SAMPLE, Timer
from equivbench.records.schema import NotMeasured
from equivbench.registry import KERNEL_BACKENDS
from equivbench.specs import MODES, Mode

_WARM_UP_CALLS = 3
_ENOUGH_CALLS = 100
"""No clock stands still over so many calls."""


class AbsentError(FailedError):
    """The backend cannot run here; the message says why and how to get it."""


def why_absent(backend_name: str, device: torch.device) -> str | None:
    """Why the backend cannot run on ``device`` here and how to get it; None if it can. Raises
    ``UsageError`` for no backend."""
    return absent(KERNEL_BACKENDS.get(backend_name), str(device)) or backend(backend_name).missing(
        device
    )


def prepare(
    case: Case,
    mode: Mode,
    backend_name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    seed: int = 0,
    posed: Callable[[], KernelProblem] | None = None,
) -> Prepared:
    """Build the kernel of ``case``, check it against the float64 reference and warm it up.

    Parameters
    ----------
    case, mode
        What is computed, and how often it is differentiated.
    backend_name
        A registered backend.
    dtype, device
        Of the inputs.
    seed
        Of the random inputs.
    posed
        The problem where it is shared: of this mode or a higher one. It is called once the kernel
        is built.

    Returns
    -------
    Prepared
        Right and warm; :meth:`Prepared.round` times it.

    Raises
    ------
    UsageError
        There is no such backend, or nothing is checked in ``dtype``.
    AbsentError
        The backend cannot run here.
    UnsupportedError
        It does not do the operation or these derivatives, or the operation has none.
    WrongKernelError
        A result is not the reference's.
    FailedError
        The kernel itself raises anything.
    """
    with _told(backend_name, case, mode):
        begin = perf_counter()
        reason = why_absent(backend_name, device)
        if reason is not None:
            raise AbsentError(f"kernel backend {backend_name} is absent: {reason}")
        kernel = backend(backend_name).build(case.operation, dtype=dtype, device=device)
        if MODES.index(mode) > kernel.max_derivatives:
            raise UnsupportedError(f"{backend_name} does not support {mode} of {case.name}")
        seconds = perf_counter() - begin
    problem = posed() if posed else pose(case, mode, dtype=dtype, device=device, seed=seed)
    return Prepared(problem, mode, backend_name, kernel, seconds)


class Prepared:
    """A backend's kernel for one problem and mode; :meth:`round` times it.

    Before any time is taken, all results of the mode (output, gradients, second gradients) agree
    with the float64 reference for two sets of numbers, in turn through the same memory, and for
    arguments that are not contiguous; and the arguments are as they were. Where derivatives are
    asked for, so does the one of forward mode, if the kernel has a rule for it. What is timed are
    calls on numbers that no call has seen.
    """

    def __init__(
        self, problem: KernelProblem, mode: Mode, backend_name: str, kernel: Kernel, built: float
    ) -> None:
        tolerance(problem.dtype)
        self.problem, self.case, self.mode = problem, problem.case, mode
        self.backend, self.method = backend_name, kernel.method
        self._told = partial(_told, backend_name, self.case, mode)
        self._clock = Timer(problem.device)
        self.calls = 1
        """Calls of a sample of 10 ms or more, as far as is known."""
        self._taken: tuple[Slot, Arguments, Results, Unseen] | None = None
        self.errors: dict[str, float] = {}
        """Largest relative error of each result so far
        (:func:`equivbench.kernels.checking.relative_error`)."""
        self.compile_seconds = 0.0
        """What building (``built`` seconds) and the first calls took more than later calls; 0 for a
        kernel that does not compile."""
        with self._told():
            first = self._first_calls(kernel)
            with _never_compiled_again(kernel):
                self._check_strided()
                self._check_forward_mode(kernel)
            warm = min(self._sample() for _ in range(_WARM_UP_CALLS))
            self.calls = max(1, math.ceil(SAMPLE / warm)) if warm > 0 else 1
            if kernel.compiles:
                self.compile_seconds = max(0.0, built + first - warm)

    @property
    def footprint(self) -> Footprint:
        """What the calls of :meth:`round` pass through."""
        return self._operands.footprint

    def _first_calls(self, kernel: Kernel) -> float:
        """Check four calls: one, the same memory with other numbers, and two whose results are both
        looked at after the second. Seconds until the first one's end."""
        with _fresh_compilation(kernel):
            begin = perf_counter()
            self._operands = operands = Operands(
                kernel, self.problem, self.mode, cache_bytes(self.problem.device)
            )
            (slot, other), (first, second) = operands.slots[:2], operands.instances
            results = operands.call(slot)
            if self.problem.device.type == "cuda":
                torch.cuda.synchronize(self.problem.device)
            seconds = perf_counter() - begin
            self._accept(slot, 0, results)
            operands.hold(slot, second)
            self._accept(slot, 1, operands.call(slot))
            operands.hold(slot, first)
            operands.hold(other, second)
            # A kernel that gives out one piece of memory again and again spoils what it gave.
            both = operands.call(slot), operands.call(other)
            for number, (place, each) in enumerate(zip((slot, other), both, strict=True)):
                self._accept(place, number, each)
        return seconds

    def _check_strided(self) -> None:
        """Check a call whose arguments are not contiguous."""
        operands, strided = self._operands, self._operands.strided()
        try:
            results = operands.call(strided)
            operands.check(strided, operands.instances[0], results, operands.answers[0])
        except WrongKernelError as error:
            raise WrongKernelError(f"for arguments that are not contiguous, {error}") from None

    def _check_forward_mode(self, kernel: Kernel) -> None:
        """Check the derivative along a tangent, as far as there is one. A kernel may have no rule
        for it, which torch says; a rule that gives nothing would make a wrong Hessian, silently."""
        if self.mode == "forward":
            return
        inputs, tangent = self.problem.instances[0].arguments.inputs, self.problem.tangent
        try:
            found = along(lambda given: kernel(**given), inputs, tangent.directions)
        except RuntimeError as error:
            if isinstance(error, NotImplementedError) or "forward mode" in str(error):
                return  # so torch says that there is no rule
            raise
        self._keep(check({TANGENT: found}, {TANGENT: tangent.answer}, self.problem.dtype))

    def round(self, seconds: float = 0.1) -> float:
        """Seconds a call over about ``seconds`` of calls: the least of the samples on a CPU, their
        10th percentile on a GPU.

        A sample is at least 10 ms of calls, each on other memory and other numbers than all before
        it; then the results of one more call are checked. Raises ``WrongKernelError`` and
        ``FailedError`` as :func:`prepare`.
        """
        samples: list[float] = []
        spent = 0.0
        with self._told():
            while not samples or spent < seconds:
                calls, taken = self.calls, self._sample()
                spent += taken
                if taken >= SAMPLE:
                    samples.append(taken / calls)
                else:
                    self._lengthen(taken)
            self._check_known()
        return self._clock.reduce(samples)

    def replayed(
        self, rounds: int, seconds: float, record: Recorder = cuda_graph
    ) -> list[float] | NotMeasured:
        """Seconds a call in each of ``rounds`` rounds of about ``seconds``, the calls recorded once
        and replayed by the device without Python; or why there are none: a kernel that waits for
        the device fits into no graph."""
        try:
            with self._told():
                replay = GraphReplay(self._operands, self._clock, self.calls, record)
                return [replay.round(seconds) for _ in range(rounds)]
        except EquivbenchError as error:
            return NotMeasured(f"no times from a CUDA graph: {error}")

    def once(self) -> None:
        """One call, on the next arguments of the rotation, for a clock of the caller's;
        :meth:`verify` when it has stopped."""
        (slot,) = self._operands.take(1)
        self._operands.turn(slot, self._operands.call(slot))

    def verify(self, unseen: Unseen | None = None) -> None:
        """Check a call on numbers that no call has seen, ``unseen`` or some of its own; raises as
        :meth:`round`."""
        self.take(unseen or Unseen(self.problem, self.mode))
        self.mark()

    def take(self, unseen: Unseen) -> None:
        """Calls as in a sample, one of them, nobody knows which, on ``unseen``; :meth:`mark` checks
        that one. Until then nobody may ask for the answers."""
        operands = self._operands
        with self._told():
            given = operands.unseen(unseen)
            slots = operands.take(max(2, min(self.calls, _ENOUGH_CALLS)))
            chosen = secrets.choice(slots)
            operands.hold(chosen, given)
            for slot in slots:
                results = operands.call(slot)
                if slot is chosen:
                    self._taken = slot, given, results, unseen
                else:
                    operands.turn(slot, results)

    def mark(self) -> None:
        """Check the call that :meth:`take` made, if that is still to do."""
        taken, self._taken = self._taken, None
        if taken is not None:
            slot, given, results, unseen = taken
            with self._told():
                self._keep(self._operands.check(slot, given, results, unseen.answers))
                self._operands.turn(slot, results)
                self._check_known()

    def _sample(self) -> float:
        """Seconds of ``calls`` calls; no slot is visited twice without having been filled anew."""
        seconds, left = 0.0, self.calls
        while left:
            slots = self._operands.take(left)
            left -= len(slots)
            results: Results = {}

            def work(slots: list[Slot] = slots) -> None:
                nonlocal results
                for slot in slots:
                    results = self._operands.call(slot)

            seconds += self._clock.seconds(work)
            for slot in slots[:-1]:
                self._operands.turn(slot, {})
            self._operands.turn(slots[-1], results)
        return seconds

    def _check_known(self) -> None:
        """Check one call on the next slot, which holds an instance of the problem for it."""
        (slot,) = self._operands.take(1)
        number = secrets.randbelow(2)
        self._operands.hold(slot, self._operands.instances[number])
        self._accept(slot, number, self._operands.call(slot))

    def _lengthen(self, taken: float) -> None:
        """More calls a sample, after one of ``taken`` seconds was too short."""
        if taken <= 0.0 and self.calls >= _ENOUGH_CALLS:
            raise FailedError(
                f"{self.calls} calls take no time by the clock of {self.problem.device};"
                " it is broken"
            )
        factor = min(100.0, 1.2 * SAMPLE / taken) if taken > 0.0 else 100.0
        self.calls = math.ceil(self.calls * factor) + 1

    def _accept(self, slot: Slot, number: int, results: Results) -> None:
        """Check the results and arguments of a call on instance ``number``, and turn its slot."""
        operands = self._operands
        given, answers = operands.instances[number], operands.answers[number]
        self._keep(operands.check(slot, given, results, answers))
        operands.turn(slot, results)

    def _keep(self, errors: Mapping[str, float]) -> None:
        self.errors |= {
            name: max(error, self.errors.get(name, 0.0)) for name, error in errors.items()
        }


_KEPT = (
    *FURTHER,
    *attributes(time, "perf_counter", "perf_counter_ns", "monotonic", "time", "process_time"),
    *attributes(torch, "equal", "empty", "rand", "randn"),
    *attributes(torch.cuda, "synchronize"),
    *attributes(Tensor, "detach", "double", "norm", "square", "mean", "copy_", "clone", "fill_"),
    *attributes(Tensor, "__sub__", "__ne__", "__float__", "max", "item"),
    *attributes(checking, "check", "relative_error", "plain", "poison", "tolerance"),
    *attributes(operands_module, "check", "evaluate", "mixed", "poison"),
    *attributes(Operands, "call", "check", "hold", "turn", "take"),
    *attributes(timing, "perf_counter", "process_time"),
    *attributes(Timer, "seconds", "reduce"),
    *attributes(Prepared, "round", "verify", "take", "mark", "_sample", "_check_known"),
)
"""What no kernel may change, beside the settings that no model may change either."""


@contextlib.contextmanager
def _told(backend_name: str, case: Case, mode: Mode) -> Iterator[None]:
    """TF32 off, nothing of :data:`_KEPT` changed, and whatever goes wrong as one sentence that
    names backend, case and mode."""
    where = f"{backend_name} on {case.name} ({mode})"
    convolutions = torch.backends.cudnn
    before = convolutions.allow_tf32
    convolutions.allow_tf32 = False
    try:
        with unchanged(_KEPT):
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


def _never_compiled_again(kernel: Kernel) -> contextlib.AbstractContextManager[object]:
    """What torch.compile makes is guarded on strides and modes; it would compile again, and prefer
    the new code afterwards."""
    if not kernel.compiles:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def _fresh_compilation(kernel: Kernel) -> Iterator[None]:
    """An empty folder for what inductor and Triton keep, where ``kernel`` compiles: compile seconds
    mean compilation."""
    if not kernel.compiles:
        yield
        return
    with (
        tempfile.TemporaryDirectory(
            prefix="equivbench-compiler-", ignore_cleanup_errors=True
        ) as folder,
        patch.dict(
            os.environ,
            {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": os.path.join(folder, "triton")},
        ),
    ):
        yield
