"""The options of a command, made from the request that it takes, and those that several commands
share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from equivbench.cli.completion import completer
from equivbench.errors import UsageError
from equivbench.option import Option
from equivbench.request import Request, options_of

R = TypeVar("R", bound=Request)


def takes(
    request: type[R], *, leave_out: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator of a command whose first parameter is a ``request``: typer sees an option for
    every field of it instead.

    Parameters
    ----------
    request
        The class of the request.
    leave_out
        Fields that this command does not offer; they stay at their default.
    """
    offered = [each for name, each in options_of(request).items() if name not in leave_out]
    # What must be given comes first in the help.
    offered.sort(key=lambda each: each.flag is not None and each.default is not MISSING)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()

        def call(**given: Any) -> None:
            rest = {each.name: given.pop(each.name) for each in own}
            command(request.of(**given), **rest)

        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        parameters = [*map(_parameter, offered), *own]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        call.__doc__, call.__name__ = command.__doc__, command.__name__
        return call

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """What typer makes a command line parameter of."""
    annotation, default = option.type, option.default
    if option.is_list or option.read is not None:
        # The command line has the text, or a list of texts; what is left out is None.
        annotation = str if option.read is not None else list[str]
        if default is not MISSING:
            annotation, default = annotation | None, None
    about: dict[str, Any] = {"metavar": option.metavar, "help": option.help}
    if option.completes is not None:
        about["autocompletion"] = completer(option.completes)
    flag = option.flag
    info = typer.Argument(**about) if flag is None else typer.Option(flag, **about)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[annotation, info],
    )


def chosen_format(format: str | None, json: bool, default: str) -> str:
    """The output format that is asked for by ``--format`` or by ``--json``, which is short for one
    of its values; raises ``UsageError`` where both are given."""
    if json and format is not None:
        raise UsageError(f"--json is short for --format json; leave it or --format {format} out")
    return "json" if json else format or default


RESULTS = Path("results")
"""Where records are, unless it is said."""
ResultsArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RESULTS]", help="A results folder or a record file (default: results)."
    ),
]
ResultsOption = Annotated[
    Path | None, typer.Option("--results", help="The same as RESULTS, by name.")
]


def results_place(argument: Path | None, named: Path | None) -> Path:
    """Where a command is to read results, by position or by ``--results``; raises ``UsageError``
    where both are given."""
    if argument is not None and named is not None:
        raise UsageError(f"{argument} and --results {named} are two places; leave one of them out")
    return argument or named or RESULTS


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ShortJson = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
