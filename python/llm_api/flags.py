"""A command line in the manner of Go's ``flag`` package, to the letter.

``-name value``, ``-name=value``, one dash or two; a boolean flag never takes
the next argument; parsing stops at ``--`` (which is dropped) or at the first
argument that is not a flag. Knows nothing of the options of this program.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_api.strconv import quote


class FlagError(Exception):
    """The command line cannot be read; the text is Go's."""


class HelpRequested(Exception):
    """``-h`` or ``-help`` was given and no flag has that name."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    `parse` raises ValueError with the reason. `type_name` is what the usage
    shows for the value ("" for booleans), `default_text` the default as it is
    shown, "" where it is the zero of its type. A `repeated` flag collects its
    values in a tuple; of any other the last one given counts.
    """

    name: str
    type_name: str
    parse: Callable[[str], object]
    usage: str
    default_text: str = ""
    repeated: bool = False

    @property
    def is_bool(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.type_name == ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was given: the flags' values by name, and the arguments after them."""

    values: Mapping[str, object]
    arguments: tuple[str, ...]


def parse(flags: Iterable[Flag], argv: Sequence[str]) -> Parsed:
    """Read a command line (without the program's name).

    Raises FlagError, and HelpRequested where Go would print the usage and stop.
    """
    known = {flag.name: flag for flag in flags}
    values: dict[str, object] = {}
    rest = list(argv)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        argument = rest.pop(0)
        if argument == "--":
            break
        name, value = _split(argument)
        flag = known.get(name)
        if flag is None:
            if name in ("h", "help"):
                raise HelpRequested
            raise FlagError(f"flag provided but not defined: -{name}")
        if value is None:
            if flag.is_bool:
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        result = _convert(flag, value)
        if flag.repeated:
            earlier = values.get(name, ())
            assert isinstance(earlier, tuple)
            result = (*earlier, result)
        values[name] = result
    return Parsed(values, tuple(rest))


def _split(argument: str) -> tuple[str, str | None]:
    body = argument.removeprefix("-").removeprefix("-")
    if not body or body[0] in "-=":
        raise FlagError(f"bad flag syntax: {argument}")
    name, equals, value = body.partition("=")
    return name, value if equals else None


def _convert(flag: Flag, text: str) -> object:
    try:
        return flag.parse(text)
    except ValueError as error:
        kind, preposition = ("boolean value", "") if flag.is_bool else ("value", "flag ")
        raise FlagError(
            f"invalid {kind} {quote(text)} for {preposition}-{flag.name}: {error}"
        ) from error


def usage(flags: Iterable[Flag]) -> str:
    """Describe the flags as Go's ``PrintDefaults`` does, sorted by name."""
    return "".join(_describe(flag) for flag in sorted(flags, key=lambda flag: flag.name))


def _describe(flag: Flag) -> str:
    head = f"  -{flag.name}" + (f" {flag.type_name}" if flag.type_name else "")
    # Go keeps the text of a flag as short as "-x" on the flag's own line.
    head += "\t" if len(head) <= len("  -x") else "\n    \t"
    default = f" (default {flag.default_text})" if flag.default_text else ""
    return head + flag.usage.replace("\n", "\n    \t") + default + "\n"
