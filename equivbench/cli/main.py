"""The entry point ``equivbench``: finds the command, imports only its file, and turns errors into
exit codes."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import typer
from typer.main import get_command

from equivbench.cli import exit_codes
from equivbench.cli.lazy import CommandEntry, LazyGroup
from equivbench.cli.output import message
from equivbench.errors import EquivbenchError, EquivbenchWarning, unknown_name

COMMANDS = (
    CommandEntry(
        "list",
        "List tasks, pairs, models, kernels, data sets or executors.",
        "equivbench.cli.list",
    ),
    CommandEntry("data", "Prepare, verify or locate a data set.", "equivbench.cli.data"),
    CommandEntry("run", "Train both arms of a pair under one equal budget.", "equivbench.cli.run"),
    CommandEntry("tune", "Tune both arms of a pair with equal trials.", "equivbench.cli.tune"),
    CommandEntry(
        "measure",
        "Split a model's error into its symmetric and its other part.",
        "equivbench.cli.measure",
    ),
    CommandEntry("gap", "Print the efficiency gap of each pair.", "equivbench.cli.gap"),
    CommandEntry("plot", "Draw a figure of one pair from records.", "equivbench.cli.plot"),
    CommandEntry(
        "leaderboard", "Print the board, made from records.", "equivbench.cli.leaderboard"
    ),
    CommandEntry(
        "results", "Check records, or print their schema and rules.", "equivbench.cli.results"
    ),
    CommandEntry("doctor", "Say what this machine has and lacks.", "equivbench.cli.doctor"),
    CommandEntry(
        "analyze",
        "Analyze sweeps, baselines and trained models.",
        "equivbench.cli.analyze",
    ),
    CommandEntry(
        "kernels",
        "Time the equivariant operations on each backend, checked.",
        "equivbench.cli.kernels",
    ),
    CommandEntry(
        "check",
        "Gate a change: compare two result sets, or two revisions.",
        "equivbench.cli.check",
    ),
)
"""The commands of the core; those of the studies come by entry point."""


_NO_CHOICE = re.compile(r"'(?P<value>[^']*)' is not one of (?P<choices>'.*')")
"""How the argument parser says that a value is not among the choices."""


class Commands(LazyGroup):
    """All of ``equivbench``: ends every foreseen failure as a sentence and an exit code."""

    own = COMMANDS
    planned = ("frontier", "pretrained", "status")
    group = "equivbench.commands"

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its code; every foreseen failure ends as one sentence on
        stderr."""
        inner = partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, **extra
        )
        if not standalone_mode:
            return inner()
        with warnings.catch_warnings():
            warnings.simplefilter("always", EquivbenchWarning)
            warnings.showwarning = lambda text, *_, **__: message("warning", str(text))
            try:
                code = inner()
            except Exception as error:
                code = _report(error)
                if code is None:
                    raise
        sys.exit(code if isinstance(code, int) else exit_codes.DONE)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C at a point that no command handles still ends with 130 and a
        line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            message("error", "interrupted")
            raise typer.Exit(exit_codes.INTERRUPTED) from error


def _report(error: Exception) -> int | None:
    """Say on stderr what went wrong and give the exit code; None if ``error`` is no failure that we
    know."""
    if isinstance(error, EquivbenchError):
        message("error", str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if isinstance(error, OSError):
        message("error", _sentence(error))
        return exit_codes.FAILED
    if isinstance(error, typer.Abort):
        message("error", "interrupted")
        return exit_codes.INTERRUPTED
    # The argument parser's own errors. Typer is built on click or, from 0.26 on, on a copy of it,
    # so there is no one class to name; what they share is this method.
    if hasattr(error, "format_message") and hasattr(error, "ctx"):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(error.format_message() + "\n")
        else:
            where = f"; see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
            message("error", _usage_sentence(error) + where)
        return exit_codes.USAGE
    return None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _usage_sentence(error: Any) -> str:
    """What the argument parser says, with the close matches of a value that is no choice."""
    said: str = error.format_message().rstrip(".")
    found = _NO_CHOICE.search(said)
    if found is None:
        return said
    name = str(error.param.name).replace("_", " ")
    return str(unknown_name(name, found["value"], re.findall("'([^']*)'", found["choices"])))


def _version(wanted: bool) -> None:
    if wanted:
        from equivbench import __version__

        sys.stdout.write(f"equivbench {__version__}\n")
        raise typer.Exit


@app.callback()
def top(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Equivariant networks against augmented ones, under equal budgets.

    `equivbench run` trains the quick-start pair; every table command takes --json.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (contract.md section 1)."""
    code: int | str | None
    try:
        command = get_command(app)
        command(args=None if arguments is None else list(arguments), prog_name="equivbench")
        code = exit_codes.DONE
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        message("error", "interrupted")
        code = exit_codes.INTERRUPTED
    except Exception:  # noqa: BLE001  a defect of ours must not end with 1, which means "a regression"
        traceback.print_exc()
        message("error", "this is a defect in equivbench, please report it with the lines above")
        code = exit_codes.FAILED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _reader_left()
    except OSError as error:
        message("error", _sentence(error))
        code = exit_codes.FAILED
    sys.exit(code)


def _reader_left() -> int:
    """Point stdout at nothing, so that the interpreter's last flush stays silent too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exit_codes.BROKEN_PIPE


def _sentence(error: OSError) -> str:
    where = f" {error.filename}" if error.filename is not None else ""
    return (
        f"cannot access{where}: {error.strerror or error}; "
        "check the path, its permissions and the free space"
    )


if __name__ == "__main__":
    main()
