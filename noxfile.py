"""What one does while working: ``nox -s quick`` in under a minute, ``nox -s full`` before pushing.

Every session uses the environment that nox itself runs in (CONTRIBUTING.md makes it): nothing is
installed, so nothing is waited for. ``nox -l`` lists the sessions; words after ``--`` go to pytest.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import nox

nox.options.sessions = ["quick"]
nox.options.default_venv_backend = "none"
WORKERS = ("-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal")
ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
BUSY_LOOPS = 4
REPEATS = 10
DEPEND_ON_TIME = (
    "tests/browser",
    "tests/execution/test_run_faults.py",
    "tests/execution/test_subcommand.py",
    "tests/execution/test_interrupt.py",
    "tests/studies/claims/test_reproduction.py",
    "tests/training/test_resume.py",
    "tests/cli/test_main.py",
    "tests/gate/test_interleave.py",
)
"""Tests that start processes, wait, or drive a browser."""


@nox.session
def quick(session: nox.Session) -> None:
    """Linters, types and the fast tests."""
    lint(session)
    types(session)
    fast = ("-m", "not slow", "--ignore", "tests/browser", *WORKERS)
    session.run("pytest", "-q", *fast, *session.posargs, env=ONE_THREAD_EACH, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.run("ruff", "check", ".", external=True)
    session.run("ruff", "format", "--check", ".", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package, its tests, benchmarks and tools."""
    session.run("mypy", external=True)


@nox.session
def full(session: nox.Session) -> None:
    """Linters, types, all tests, the documentation."""
    lint(session)
    types(session)
    session.run("pytest", *WORKERS, *session.posargs, env=ONE_THREAD_EACH, external=True)
    docs(session)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site in ``site/``, with the board and asv's history; a warning is an
    error."""
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "site", external=True)


@nox.session
def gate(session: nox.Session) -> None:
    """Whether HEAD is slower than the commit before, or than the revision after ``--``."""
    base = session.posargs[0] if session.posargs else "HEAD~1"
    session.run("equivbench", "check", "--interleave", base, "HEAD", external=True)


@nox.session
def stress(session: nox.Session) -> None:
    """Whether a test depends on speed: those that wait, ten times, beside four busy loops."""
    with _busy_loops(BUSY_LOOPS):
        for _ in range(REPEATS):
            session.run("pytest", "-q", "-x", *(session.posargs or DEPEND_ON_TIME), external=True)


@contextlib.contextmanager
def _busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
