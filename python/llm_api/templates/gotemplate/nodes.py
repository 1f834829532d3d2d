"""The tree a template is parsed to."""

from dataclasses import dataclass

from llm_api.templates.gotemplate.text import Text

__all__ = [
    "Action",
    "Break",
    "Chain",
    "Command",
    "Continue",
    "Dot",
    "Field",
    "Identifier",
    "If",
    "Literal",
    "Nil",
    "Node",
    "Operand",
    "Pipe",
    "Range",
    "TemplateCall",
    "TextNode",
    "Variable",
    "With",
]


@dataclass(frozen=True, slots=True, eq=False)
class Dot:
    """The cursor, `.`."""


@dataclass(frozen=True, slots=True, eq=False)
class Nil:
    """The constant `nil`."""


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A constant; an int may be too large for Go's int, which is an error of execution."""

    source: str
    value: bool | int | float | complex | Text


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """`.A.B`: fields of the cursor."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """`$x.A.B`: a variable, and fields of it."""

    name: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Identifier:
    """The name of a function."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """`(pipeline).A.B`: fields of a value."""

    operand: "Operand"
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """An operand and its arguments."""

    line: int
    operands: tuple["Operand", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pipe:
    """Commands, each taking the one before it as its last argument, and the variables set."""

    line: int
    variables: tuple[str, ...]
    is_assignment: bool
    commands: tuple[Command, ...]


Operand = Dot | Nil | Literal | Field | Variable | Identifier | Chain | Pipe


@dataclass(frozen=True, slots=True, eq=False)
class TextNode:
    """Text that is written as it is."""

    text: Text


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """A pipeline whose value is written, unless it sets variables."""

    pipe: Pipe


@dataclass(frozen=True, slots=True, eq=False)
class If:
    """`if`, with what comes after `else`."""

    pipe: Pipe
    body: tuple["Node", ...]
    otherwise: tuple["Node", ...]


@dataclass(frozen=True, slots=True, eq=False)
class With(If):
    """`with`: an `if` that sets the cursor."""


@dataclass(frozen=True, slots=True, eq=False)
class Range(If):
    """`range`: a loop; what comes after `else` is for no iterations."""


@dataclass(frozen=True, slots=True, eq=False)
class TemplateCall:
    """`template`, with the cursor of the called template, if any."""

    line: int
    name: str
    pipe: Pipe | None


@dataclass(frozen=True, slots=True, eq=False)
class Break:
    """`break`."""


@dataclass(frozen=True, slots=True, eq=False)
class Continue:
    """`continue`."""


Node = TextNode | Action | If | TemplateCall | Break | Continue
