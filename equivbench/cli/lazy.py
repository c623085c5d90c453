"""Groups of commands that show every line of their help without importing a command, and import the
one that is called."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from equivbench.errors import unknown_name


@dataclass(frozen=True)
class CommandEntry:
    """A command: its line in ``--help``, and where its function or its group of commands is, as
    ``package.module:attribute``."""

    name: str
    summary: str
    where: str


@functools.cache
def command_table(own: tuple[CommandEntry, ...], group: str) -> dict[str, CommandEntry]:
    """The commands of this package by name: ``own``, then those that studies declare.

    A study declares its command as an entry point in ``group``, which names a
    :class:`CommandEntry` in the study's ``__init__``; that file imports nothing else, so that a
    help text stays quick. Only the entry points of equivbench itself count, because the ones of
    other distributions could import anything to show a line of help.
    """
    table = {entry.name: entry for entry in own}
    try:
        declared = distribution("equivbench").entry_points.select(group=group)
    except PackageNotFoundError:  # run from a folder that was never installed
        return table
    return table | {entry.name: entry for entry in (point.load() for point in declared)}


def load(entry: CommandEntry) -> Any:
    """The command of ``entry``, its file imported now."""
    module, _, attribute = entry.where.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.callback()(lambda: None)  # keeps the holder a group even with a single command in it
    if isinstance(command, typer.Typer):
        holder.add_typer(command, name=entry.name)
    else:
        holder.command(entry.name)(command)
    group = get_command(holder)
    assert isinstance(group, TyperGroup)
    return group.commands[entry.name]


class LazyGroup(TyperGroup):
    """A group whose subclass names its commands: its ``own``, and an entry-point ``group``."""

    own: ClassVar[tuple[CommandEntry, ...]] = ()
    """In the order of the help text."""
    group: ClassVar[str] = ""

    @classmethod
    def table(cls) -> dict[str, CommandEntry]:
        """Commands by name, in the order of the help text."""
        return command_table(cls.own, cls.group)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help text."""
        return list(self.table())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that carries the help line; :meth:`resolve_command` swaps it for the command
        itself."""
        entry = self.table().get(cmd_name)
        return entry and TyperCommand(cmd_name, help=entry.summary, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that ``args`` call; raises ``UsageError`` with the close matches if there is
        none."""
        if ctx.resilient_parsing and args[0] not in self.table():
            return None, None, args  # a shell completes a line that is not right yet
        if args[0] not in self.table() and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.table())
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, (stand_in if name is None else load(self.table()[name])), rest
