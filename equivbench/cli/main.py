"""The entry point ``equivbench``: finds the command, imports only its file, and turns errors into
exit codes."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.main import get_command

from equivbench.cli.lazy import CommandEntry, LazyGroup
from equivbench.cli.output import Exit, message, write_utf8
from equivbench.errors import EquivbenchError, EquivbenchWarning, unknown_name

COMMANDS = (
    ("list", "List tasks, pairs, models, kernels, data sets or executors.", "list:list_registered"),
    ("data", "Prepare, verify or locate a data set.", "data:app"),
    ("run", "Train both arms of a pair under one equal budget.", "run:run"),
    ("status", "Say how far a plan is: waiting, running, done, failed.", "status:status"),
    ("tune", "Tune both arms of a pair with equal trials.", "tune:tune"),
    ("measure", "Split a model's error into its symmetric and its other part.", "measure:measure"),
    ("gap", "Print the efficiency gap of each pair.", "stored:gap"),
    ("frontier", "Print loss against budget: exponents and crossing.", "stored:frontier"),
    ("plot", "Draw a figure of one pair from records.", "stored:plot"),
    ("leaderboard", "Print the board, made from records.", "stored:leaderboard"),
    ("results", "Check records, or print their schema and rules.", "results:app"),
    ("doctor", "Say what this machine has and lacks.", "doctor:doctor"),
    ("analyze", "Analyze sweeps, baselines and trained models.", "analyze:app"),
    ("pretrained", "Measure public pretrained networks, as one table.", "pretrained:pretrained"),
    ("kernels", "Time the equivariant operations on each backend, checked.", "kernels:kernels"),
    ("ladder", "Time a commit to a pair's target loss, beside the one below.", "ladder:ladder"),
    ("check", "Gate a change: compare two result sets, or two revisions.", "check:check"),
)
"""The commands of the core; those of the studies come by entry point."""

TIMED_HERE = "kernels"
"""The command that times in its own process, not in workers."""

_NO_CHOICE = re.compile(r"'(?P<value>[^']*)' is not one of (?P<choices>'.*')")
"""How the argument parser says that a value is not among the choices."""
_EXTRA = re.compile(r"unexpected extra argument")
"""How it says that a command takes none, or fewer."""


class Commands(LazyGroup):
    """All of ``equivbench``."""

    own = tuple(
        CommandEntry(name, summary, f"equivbench.cli.{where}") for name, summary, where in COMMANDS
    )
    group = "equivbench.commands"

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C at a point that no command handles still ends with 130 and a
        line, and a reader that went away with 141 and none (Typer would end with 1)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise typer.Exit(_io_failed(error)) from error
        except KeyboardInterrupt as error:
            message("error", "interrupted")
            raise typer.Exit(Exit.INTERRUPTED) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _usage_sentence(error: Any) -> str:
    """What the argument parser says, with the close matches of a value that is no choice, and the
    option for a results folder that was given by position."""
    said: str = error.format_message().rstrip(".")
    if _EXTRA.search(said) and error.ctx is not None:
        options = [
            flag
            for each in error.ctx.command.params
            for flag in each.opts[:1]
            if flag.startswith("--") and "results folder" in (each.help or "").lower()
        ]
        return f"{said}; a results folder is named by {options[0]}" if options else said
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
    """Run the command line and exit with its code (contract.md section 1); every foreseen failure
    ends as one sentence on stderr."""
    code: object
    if arguments is None and sys.argv[1:2] == [TIMED_HERE]:
        from equivbench.environment import keep_memory

        keep_memory()
    write_utf8()
    said: set[str] = set()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            message("warning", text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", EquivbenchWarning)
        warnings.showwarning = lambda text, *_, **__: say_once(str(text))
        try:
            code = get_command(app).main(
                args=None if arguments is None else list(arguments),
                prog_name="equivbench",
                standalone_mode=False,
            )
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  a defect of ours must not end with 1, which means "a regression"
            code = _report(error)
        try:
            sys.stdout.flush()
        except OSError as error:
            code = _io_failed(error, "standard output")
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _report(error: BaseException) -> int:
    """Say on stderr what went wrong and give the exit code."""
    if isinstance(error, EquivbenchError):
        message("error", str(error))
        return error.exit_code
    if isinstance(error, OSError):
        return _io_failed(error)
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        message("error", "interrupted")
        return Exit.INTERRUPTED
    # The argument parser's own errors. Typer is built on click or, from 0.26 on, on a copy of it,
    # so there is no one class to name; what they share is this method.
    if hasattr(error, "format_message") and hasattr(error, "ctx"):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(error.format_message() + "\n")
        else:
            where = f"; see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
            message("error", _usage_sentence(error) + where)
        return Exit.USAGE
    # The second is torch's, which must not be imported for its name.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message("error", "the memory of this machine is used up; ask for less, or free some of it")
        return Exit.FAILED
    traceback.print_exception(error)
    message("error", _defect(error))
    return Exit.FAILED


def _defect(error: BaseException) -> str:
    """The sentence on an unforeseen error: whose defect it is.

    That of the innermost code in its traceback which is equivbench's, a plug-in's or, belonging to
    no installed package, the user's own.
    """
    from importlib.metadata import distributions, packages_distributions

    ours = "equivbench"
    installed = packages_distributions()
    plugins = {
        found.name
        for found in distributions()
        if any(point.group.startswith(f"{ours}.") for point in found.entry_points)
    }
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        owners = installed.get(module, ())
        if module == ours:
            break
        if module not in sys.stdlib_module_names and (not owners or plugins.intersection(owners)):
            return (
                f"this is a defect in {module}, which is no part of {ours}; please tell its "
                "authors, with the lines above"
            )
    return f"this is a defect in {ours}, please report it with the lines above"


def _io_failed(error: OSError, place: str = "standard output or a file") -> int:
    """Say which file, or else ``place``, could not be accessed; a reader of stdout that went away
    is told nothing."""
    if isinstance(error, BrokenPipeError):
        # Point stdout at nothing, so that the interpreter's last flush stays silent too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    where = place if error.filename is None else error.filename
    message(
        "error",
        f"cannot access {where}: {error.strerror or error}; "
        "check the path, its permissions and the free space",
    )
    return Exit.FAILED


if __name__ == "__main__":
    main()
