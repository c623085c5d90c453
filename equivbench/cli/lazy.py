"""Groups of commands that show every line of their help without importing a command, and import the
one that is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from equivbench.errors import unknown_name

Register = Callable[[typer.Typer], None]


@dataclass(frozen=True)
class Entry:
    """A command: its line in ``--help`` and the file that has ``register(app)``."""

    name: str
    summary: str
    module: str


def load(entry: Entry) -> Any:
    """The command of ``entry``, its file imported now."""
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.callback()(lambda: None)  # keeps the holder a group even with a single command in it
    register: Register = importlib.import_module(entry.module).register
    register(holder)
    group = get_command(holder)
    assert isinstance(group, TyperGroup)
    return group.commands[entry.name]


class LazyGroup(TyperGroup):
    """A group whose subclass names its commands in ``table``."""

    table: ClassVar[Mapping[str, Entry]] = {}
    """Commands by name, in the order of the help text."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help text."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that carries the help line; :meth:`resolve_command` swaps it for the command
        itself."""
        entry = self.table.get(cmd_name)
        return (
            None
            if entry is None
            else TyperCommand(cmd_name, help=entry.summary, rich_markup_mode=None)
        )

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that ``args`` call; raises ``UsageError`` with the close matches if there is
        none."""
        if args[0] not in self.table and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.table)
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, (stand_in if name is None else load(self.table[name])), rest
