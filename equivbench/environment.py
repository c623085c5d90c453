"""Where a run happens: machine key, versions, git state, cache folder. Imports torch only to name a
GPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from equivbench.counted import counted
from equivbench.errors import FailedError
from equivbench.gpu import driver_version, gpu_name, gpu_settings, key_of_settings
from equivbench.programs import output_of
from equivbench.records.schema import Environment, Git
from equivbench.specs import Precision

BUSY = 0.75
"""Load a core, before anything is measured, from which on a warning is due."""
PACKAGES = (
    "equivbench",
    "torch",
    "e3nn",
    "torch-geometric",
    "numpy",
    "scipy",
    "msgspec",
    "safetensors",
)
"""Distributions whose versions can change a result."""
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""glibc keeps freed memory instead of giving it back: page faults took a third of a CPU training
step (PaiNN: 58 to 40 ms)."""
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that have arithmetic in bfloat16, as Linux names them."""
_AMPERE = 8
"""Major compute capability of the first GPUs with TF32 and bfloat16."""
_BEGAN_WITH = Path("/proc/self/environ")
"""The environment variables that this process began with, of which its C library has read."""


def machine_key(device: str, threads: int, devices: int = 1) -> str:
    """CPU model, thread count and, for a run on it, GPU with what sets it apart from others of its
    name, a slice of the board or a power cap: ``amd-epyc-7b13-2t``,
    ``intel-xeon-f6m85-8t-nvidia-h100-80gb-hbm3-350w``; then, where an arm has several, the number
    of its ``devices``: ``...-x4``.

    Holds no host name and is safe as a folder name. ``device`` is a torch device (``cpu``,
    ``cuda``, ``cuda:0``).
    """
    parts = [_cpu_key(cpu_model(), _cpu_family()), f"{threads}t"]
    if device.startswith("cuda"):
        name = gpu_name(device)
        parts += [_slug(name), *key_of_settings(name, gpu_settings(device))]
    if devices > 1:
        parts.append(f"x{devices}")
    return "-".join(parts)


def is_key_of(key: str, cpu: str, threads: int, device: str, devices: int = 1) -> bool:
    """Whether :func:`machine_key` gives ``key`` for a machine with these: the processor as its
    maker names it, and ``cpu`` or the GPU's name as torch gives it."""
    # A processor whose name tells no generation has its family and model in the key.
    processor = rf"{re.escape(_cpu_key(cpu, None))}(-f[0-9]+m[0-9]+)?"
    set_so = r"(-mig-([0-9]+g\.[0-9]+gb|slice))?(-[0-9]+w)?"
    gpu = "" if device == "cpu" else f"-{re.escape(_slug(device))}{set_so}"
    several = f"-x{devices}" if devices > 1 else ""
    return re.fullmatch(f"{processor}-{threads}t{gpu}{several}", key) is not None


def environment(device: str, threads: int, devices: int = 1) -> Environment:
    """The record's environment part for a run on ``device`` with ``threads`` CPU threads, or on so
    many ``devices`` of its kind with as many threads each."""
    on_gpu = device.startswith("cuda")
    return Environment(
        machine_key=machine_key(device, threads, devices),
        device=gpu_name(device) if on_gpu else "cpu",
        driver=driver_version() if on_gpu else None,
        cpu=cpu_model(),
        threads=threads,
        python=platform.python_version(),
        packages=package_versions(PACKAGES),
    )


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of ``names`` that are installed, without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def required(module: str, what: str, extra: str) -> Any:
    """The optional module that ``what`` ("SPICE is read") is done with.

    Raises ``FailedError`` with the line that installs it, or with what keeps it from being
    imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise _broken(module, what, error) from error
        raise FailedError(
            f"{what} with {error.name}, which is not installed; pip install 'equivbench[{extra}]'"
        ) from error
    # Someone's package, whose compiled parts may fail in any way.
    except Exception as error:
        raise _broken(module, what, error) from error


def _broken(module: str, what: str, error: Exception) -> FailedError:
    return FailedError(
        f"{what} with {module}, which cannot be imported here ({type(error).__name__}: {error}); "
        "install it again, in an environment of its own if it disagrees with another package"
    )


def cpu_model() -> str:
    """The processor's name as its maker gives it, e.g. ``AMD EPYC 7B13``."""
    named = _cpuinfo("model name")
    if named is None and platform.system() == "Darwin":
        named = output_of(["sysctl", "-n", "machdep.cpu.brand_string"])
    return named or platform.processor() or platform.machine() or "unknown"


def busy_text() -> str | None:
    """That the machine has other work, of which whoever measures should know before; None where it
    is quiet."""
    load, cores = os.getloadavg()[0], usable_cores()
    if load <= BUSY * cores:
        return None
    return f"the machine is busy (load {load:.1f} on {counted(cores, 'core')})"


def usable_cores() -> int:
    """CPU cores that this process may use: those that a Slurm job was given, else its affinity,
    cut by a container's quota (cgroup version 2 or 1)."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # Slurm without affinity shows every core of the node. What a task was given is the finer word.
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        given = os.environ.get(name, "")
        if given.isdigit() and int(given) > 0:
            cores = min(cores, int(given))
            break
    quota = _cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cpu_quota() -> float | None:
    """Cores' worth of CPU time that this process's control group, and those that it lies in, may
    use; None without a limit."""
    top, known = Path("/sys/fs/cgroup"), ["0::/", "1:cpu:/"]
    with contextlib.suppress(OSError):
        known += _text_of(Path("/proc/self/cgroup")).splitlines()
    quotas = []
    for line in known:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        group = (top / "cpu" if kinds else top) / path.strip("/")
        for folder in (each for each in (group, *group.parents) if each.is_relative_to(top)):
            with contextlib.suppress(OSError, ValueError):
                if kinds:
                    limit = _text_of(folder / "cpu.cfs_quota_us")
                    period = _text_of(folder / "cpu.cfs_period_us")
                else:
                    limit, period = _text_of(folder / "cpu.max").split()
                # "max" and -1 are none.
                quotas += [int(limit) / int(period)] if limit.strip().isdigit() else []
    return min(quotas, default=None)


def cxx_compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` and the ``fused`` kernels use, or None (then arms run
    eager)."""
    return shutil.which(
        os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    )


def worker_environment(threads: int, import_path: str) -> dict[str, str]:
    """The environment variables of a worker process: this process's own, its import path
    (``PYTHONPATH``), and ``threads`` CPU threads in every library."""
    return {
        **os.environ,
        "PYTHONPATH": import_path,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        **KEPT_MEMORY,
    }


def allocator_settings() -> dict[str, str]:
    """What this process told glibc's allocator as it began (``MALLOC_...``), which is read then and
    never again; empty where nothing, and where there is no glibc."""
    try:
        variables = _BEGAN_WITH.read_bytes().split(b"\0")
    except OSError:
        return {}
    named = (os.fsdecode(each).partition("=") for each in variables)
    return {name: value for name, _, value in named if name.startswith("MALLOC_")}


def keep_memory() -> None:
    """Begin this process anew, with freed memory kept as in the workers of a run, where it did not
    begin so: the first thing that a program does that times kernels itself."""
    if sys.platform == "linux" and not KEPT_MEMORY.items() <= os.environ.items():
        # The allocator reads them as a process starts.
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **KEPT_MEMORY})


def last_log_line(log: Path) -> str | None:
    """The last line of ``log`` that says something: not blank, no indented code of a traceback."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    said = (line.strip() for line in reversed(lines) if line.strip() and not line[0].isspace())
    return next(said, None)


def cache_dir() -> Path:
    """Where checkpoints and prepared data live: ``EQUIVBENCH_CACHE``, or the platform's user cache
    folder."""
    named = os.environ.get("EQUIVBENCH_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("equivbench", appauthor=False))


def git_state() -> Git:
    """Commit and cleanliness of the checkout that this package is imported from.

    An installed wheel names the commit that it was built from (``equivbench/_build.py``, which the
    build writes); nulls where it has none.
    """
    root = Path(__file__).resolve().parent.parent
    # A wheel in a virtual environment may lie inside someone else's repository: only a checkout of
    # this package counts.
    is_source = (root / "pyproject.toml").is_file()
    top = _git_output(root, "rev-parse", "--show-toplevel") if is_source else None
    if top is None or Path(top).resolve() != root:
        return _built_from()
    return Git(
        commit=_git_output(root, "rev-parse", "HEAD") or None,
        dirty=has_changes(root),
        tree=_git_output(root, "rev-parse", "HEAD:equivbench") or None,
    )


def has_changes(root: Path, *, untracked: bool = True) -> bool | None:
    """Whether the package in the checkout ``root`` differs from its commit; None if git cannot
    tell.

    ``untracked``: whether new files that git does not know count too.
    """
    files = "normal" if untracked else "no"
    changes = _git_output(
        *(root, "status", "--porcelain", f"--untracked-files={files}"),
        *("--", "equivbench", "pyproject.toml"),
    )
    return None if changes is None else bool(changes)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in ``folder``, whatever repository the hook belongs to that this process may run in;
    raises ``OSError`` where there is no git."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    # Paths are among what git prints.
    return subprocess.run(
        command,
        capture_output=True,
        encoding=sys.getfilesystemencoding(),
        errors="surrogateescape",
        env={**clean, "LC_ALL": "C"},
        check=False,
    )


def _git_output(folder: Path, *arguments: str) -> str | None:
    """What git prints, stripped, or None if it is absent or fails."""
    try:
        done = git(folder, *arguments)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def _built_from() -> Git:
    try:
        built = importlib.import_module("equivbench._build")
    except ImportError:
        return Git(commit=None, dirty=None)
    return Git(commit=built.COMMIT, dirty=None if built.COMMIT is None else False, tree=built.TREE)


def computed_in(precision: Precision, device: str) -> Precision:
    """What is computed in where ``precision`` is asked for, on ``device`` (``cpu``, or a GPU by any
    of its names): TF32 is arithmetic of GPUs, and float32 on a CPU."""
    return "float32" if precision == "tf32" and device == "cpu" else precision


def no_arithmetic(precision: Precision, device: str) -> str | None:
    """Why ``device`` (``cpu``, ``cuda`` or ``cuda:N``) has none of ``precision`` of its own; None
    where it has, or nothing is known of it."""
    if device == "cpu":
        if precision == "tf32":
            return "tf32 is arithmetic of GPUs; take float32 or bf16"
        known = _cpuinfo("flags") or _cpuinfo("Features")
        if precision == "bf16" and known and not _BFLOAT16 & {*known.split()}:
            return "this processor has no arithmetic in bfloat16; take float32"
        return None
    if precision == "float32":
        return None
    import torch

    major, _ = torch.cuda.get_device_capability(device)
    if major >= _AMPERE:
        return None
    return f"{torch.cuda.get_device_name(device)} has no arithmetic in {precision}; take float32"


def _cpu_key(model: str, family: str | None) -> str:
    # Clouds often hide the model number ("AMD EPYC", "Intel(R) Xeon(R) CPU @ 2.20GHz"); family and
    # model still tell generations apart, and two generations must not share a key.
    bare = re.sub(
        r"\((?:r|tm|c)\)|@.*|\bcpu\b|\bprocessor\b|\b\d+-core\b", " ", model, flags=re.IGNORECASE
    )
    return _slug(bare if re.search(r"\d", bare) or family is None else f"{bare} {family}")


def _cpu_family() -> str | None:
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"f{family}m{model}" if family and model else None


def _cpuinfo(key: str) -> str | None:
    try:
        text = _text_of(Path("/proc/cpuinfo"))
    except OSError:
        return None
    found = re.search(rf"^{re.escape(key)}[ \t]*:[ \t]*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else None


def _text_of(file: Path) -> str:
    """A file that the system writes; raises ``OSError`` if it is not there."""
    return file.read_text(encoding="utf-8", errors="replace")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unknown"
