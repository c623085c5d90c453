"""One option of a command: its value on the command line, in Python and as it is kept."""

from __future__ import annotations

import numbers
import os
import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from equivbench.errors import UsageError, unknown_name

Completes = Literal["tasks", "pairs", "arms", "models", "kernels", "datasets", "executors"]
"""Of what the names are that a shell can complete."""
_WORDS = {int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class Option:
    """One thing that a command can be asked for, as its help, command line and Python see it."""

    name: str
    """The field of the request, which is also the keyword in Python."""
    flag: str | None
    """How the command line spells it, by default the name: ``--n-seeds``; None: by position."""
    type: Any
    default: Any
    """``dataclasses.MISSING`` where a value must be given."""
    help: str
    metavar: str | None = None
    """What stands for the value in ``--help``; None leaves it to typer."""
    completes: Completes | tuple[str, ...] | None = None
    """What a shell completes it to: names of a kind, or these texts."""
    read: Callable[[str], Any] | None = None
    """From the text of the command line to a value; ``write`` is the way back."""
    write: Callable[[Any], str] = str
    implied: Any = None
    """The value that leaving the option out amounts to, where the default is None."""
    identity: bool = False
    """Whether two runs that differ in it are different runs, which share no saved state."""
    recorded: bool = True
    """Whether the command line in a record names it."""
    always: bool = False
    """Whether a command line names it at its default too."""

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return any(get_origin(each) is tuple for each in _members(self.type))

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it can have; empty where they are not a fixed set."""
        literals = [each for each in _members(self.type) if get_origin(each) is Literal]
        return tuple(value for literal in literals for value in get_args(literal))

    def value(self, given: Any) -> Any:
        """``given`` as the field keeps it: text is read, a list becomes a tuple, a path its text.

        Raises ``UsageError`` for text that cannot be read, for a value that is not among the
        choices and for one of another kind.
        """
        if given is None:
            return None if self.default is MISSING else self.default
        if isinstance(given, str):
            if self.read is not None:
                return self.read(given)
            given = (given,) if self.is_list else self.number(given)
        if self.choices and given not in self.choices:
            raise unknown_name(self.name.replace("_", " "), str(given), self.choices)
        several = self.is_list and isinstance(given, Iterable)
        try:
            plain = [_plain(each) for each in given] if several else _plain(given)
            return msgspec.convert(plain, self.type)
        except msgspec.ValidationError:
            (kind, *_) = (each for each in _members(self.type) if each is not type(None))
            word = _WORDS.get(get_args(kind)[0] if self.is_list else kind, "text")
            several_words = f"a list, each {word}" if self.is_list else word
            raise UsageError(f"{self.name} takes {several_words}, not {given!r}") from None

    def number(self, text: str) -> Any:
        """``text`` as the number that the option takes, or as it is where it takes text."""
        kinds = [kind for kind in (int, float) if kind in (self.type, *_members(self.type))]
        if not kinds or self.read is not None:
            return text
        try:
            return kinds[0](text)
        except ValueError:
            raise UsageError(f"{self.flag} takes a number, not {text!r}") from None

    def words(self, value: Any) -> list[str]:
        """The words of a command line that ask for ``value``; none for the default."""
        if (value == self.default and not self.always) or value is None or value is False:
            return []
        if value is True:
            return [str(self.flag)]
        several = self.is_list and self.read is None
        texts = [self.write(each) for each in value] if several else [self.write(value)]
        return [word for text in texts for word in ([self.flag] if self.flag else []) + [text]]


def _plain(value: Any) -> Any:
    """``value`` as plain data: a path as its text, numpy's numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; ``annotation`` alone where it is none."""
    union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if union else (annotation,)
