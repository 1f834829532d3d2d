"""Running a template."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto

from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import nodes
from llm_api.templates.gotemplate.functions import BUILTINS, EXTRAS, Parameter
from llm_api.templates.gotemplate.limits import (
    MAX_OUTPUT,
    MAX_TEMPLATE_DEPTH,
    Budget,
    ExecError,
)
from llm_api.templates.gotemplate.parse import Tree
from llm_api.templates.gotemplate.printf import sprint
from llm_api.templates.gotemplate.text import Text, TextBuilder, encode
from llm_api.templates.gotemplate.trampoline import Step, run
from llm_api.templates.gotemplate.values import (
    INT64_MAX,
    INVALID,
    GoStruct,
    Map,
    Slice,
    Uint8,
    Value,
    is_true,
    type_name,
    wrap,
)

__all__ = ["execute"]


class _Absent(Enum):
    """The last argument of a command that no other command comes before."""

    ABSENT = auto()


_ABSENT = _Absent.ABSENT
_Final = Value | _Absent


class _Jump(Enum):
    BREAK = auto()
    CONTINUE = auto()


def execute(trees: Mapping[str, Tree], entry: str, data: object) -> Text:
    """Run the template named `entry` on the data.

    Raises TemplateError, with what was written before.
    """
    execution = _Execution(trees)
    try:
        execution.start(entry, data)
    except ExecError as error:
        raise TemplateError(
            "exec", execution.line, str(error), execution.output.build().raw
        ) from None
    return execution.output.build()


class _Execution:
    """The state of one execution.

    What nests is a `Step`, and goes through the trampoline.
    """

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self.line: int | None = None
        self.budget = Budget()
        self.output = TextBuilder(self.budget, MAX_OUTPUT)
        self._trees = trees
        self._depth = 0
        # A stack: a block's variables are dropped at its end.
        self._variables: list[tuple[str, Value]] = []

    def start(self, entry: str, data: object) -> None:
        if entry not in self._trees:
            raise ExecError(f'no template "{entry}"')
        dot = wrap(data)
        self._variables = [("$", dot)]
        run(self._walk(dot, self._trees[entry]))

    # Nodes.

    def _walk(self, dot: Value, tree: Tree) -> Step[_Jump | None]:
        for node in tree:
            self.budget.spend()
            jump: _Jump | None = None
            match node:
                case nodes.TextNode():
                    self.output.write(node.text)
                case nodes.Action():
                    value = yield from self._pipeline(dot, node.pipe)
                    # Variables declared here live up to the `end` around them.
                    if not node.pipe.variables:
                        self._write(value)
                case nodes.Range():
                    jump = yield from self._range(dot, node)
                case nodes.If():
                    jump = yield from self._if_or_with(dot, node)
                case nodes.TemplateCall():
                    yield from self._call_template(dot, node)
                case nodes.Break():
                    jump = _Jump.BREAK
                case nodes.Continue():
                    jump = _Jump.CONTINUE
            if jump is not None:
                return jump
        return None

    def _write(self, value: Value) -> None:
        if value is INVALID or value is None:
            self.output.literal("<no value>")
        elif isinstance(value, Text):
            self.output.write(value)
        else:
            self.output.write(sprint(self.budget, (value,)))

    def _if_or_with(self, dot: Value, node: nodes.If) -> Step[_Jump | None]:
        mark = len(self._variables)
        value = yield from self._pipeline(dot, node.pipe)
        jump: _Jump | None
        if is_true(value):
            jump = yield self._walk(value if isinstance(node, nodes.With) else dot, node.body)
        else:
            jump = yield self._walk(dot, node.otherwise)
        del self._variables[mark:]
        return jump

    def _range(self, dot: Value, node: nodes.Range) -> Step[_Jump | None]:
        outer_mark = len(self._variables)
        value = yield from self._pipeline(dot, node.pipe)
        mark = len(self._variables)
        jump: _Jump | None = None
        is_empty = True
        for index, element in self._iterate(value, len(node.pipe.variables)):
            is_empty = False
            self.budget.spend()
            self._set_range_variables(node.pipe, index, element)
            jump = yield self._walk(element, node.body)
            del self._variables[mark:]
            if jump is _Jump.BREAK:
                break
        # A jump in the body was for this loop, one in the `else` is for the loop around it.
        jump = (yield self._walk(dot, node.otherwise)) if is_empty else None
        del self._variables[outer_mark:]
        return jump

    def _iterate(self, value: Value, variables: int) -> Iterable[tuple[Value, Value]]:
        match value:
            case None:
                return ()
            case _ if value is INVALID:
                return ()
            case Slice():
                return ((index, value[index]) for index in range(len(value)))
            case Map():
                return value.items()
            case int() if not isinstance(value, bool):
                if variables > 1:
                    raise ExecError(f"can't use {value} to iterate over more than one variable")
                if isinstance(value, Uint8):
                    is_data = value.is_data
                    return ((INVALID, Uint8.of(number, is_data)) for number in range(value))
                return ((INVALID, number) for number in range(value))
        raise ExecError(f"range can't iterate over a value of type {type_name(value)}")

    def _set_range_variables(self, pipe: nodes.Pipe, index: Value, element: Value) -> None:
        values = (index, element)[-len(pipe.variables) :] if pipe.variables else ()
        if pipe.is_assignment:
            for name, value in zip(pipe.variables, values, strict=True):
                self._assign(name, value)
        else:
            start = len(self._variables) - len(values)
            self._variables[start:] = zip(pipe.variables, values, strict=True)

    def _call_template(self, dot: Value, node: nodes.TemplateCall) -> Step[None]:
        self.line = node.line
        if node.name not in self._trees:
            raise ExecError(f'template "{node.name}" not defined')
        if self._depth == MAX_TEMPLATE_DEPTH:
            raise ExecError(f"exceeded maximum template depth ({MAX_TEMPLATE_DEPTH})")
        inner: Value = INVALID
        if node.pipe is not None:
            inner = yield from self._pipeline(dot, node.pipe)
        variables, self._variables = self._variables, [("$", inner)]
        self._depth += 1
        yield self._walk(inner, self._trees[node.name])
        self._depth -= 1
        self._variables = variables

    # Variables.

    def _find_variable(self, name: str) -> int:
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == name:
                return position
        # The parser lets the variables of an `if` be seen in its `else`.
        raise ExecError(f"undefined variable: {name}")

    def _assign(self, name: str, value: Value) -> None:
        self._variables[self._find_variable(name)] = (name, value)

    # Pipelines and their parts.

    def _pipeline(self, dot: Value, pipe: nodes.Pipe) -> Step[Value]:
        value: _Final = _ABSENT
        for command in pipe.commands:
            self.budget.spend()
            self.line = command.line
            value = yield from self._command(dot, command, value)
            # An interface that holds nil is no value to the next command.
            value = INVALID if value is None else value
        assert value is not _ABSENT
        for name in pipe.variables:
            if pipe.is_assignment:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _command(self, dot: Value, command: nodes.Command, final: _Final) -> Step[Value]:
        first, *arguments = command.operands
        has_arguments = bool(arguments) or final is not _ABSENT
        match first:
            case nodes.Identifier():
                return (yield from self._call(dot, first.name, arguments, final, command.line))
            case nodes.Field():
                return self._fields(dot, first.names, has_arguments)
            case nodes.Variable():
                value = self._variables[self._find_variable(first.name)][1]
                if first.fields:
                    return self._fields(value, first.fields, has_arguments)
            case nodes.Chain():
                return (yield from self._chain(dot, first, has_arguments))
            case nodes.Pipe():
                _refuse_arguments(has_arguments)
                value = yield self._pipeline(dot, first)
            case nodes.Nil():
                raise ExecError("nil is not a command")
            case nodes.Dot():
                value = dot
            case nodes.Literal():
                value = _literal(first)
        _refuse_arguments(has_arguments)
        return value

    def _chain(self, dot: Value, chain: nodes.Chain, has_arguments: bool) -> Step[Value]:
        value = yield from self._argument(dot, chain.operand, Parameter.AS_IS)
        return self._fields(value, chain.fields, has_arguments)

    def _fields(self, value: Value, names: Sequence[str], has_arguments: bool) -> Value:
        """Follow a chain of fields; only the last one is given the arguments."""
        for name in names[:-1]:
            value = self._field(value, name, False)
        return self._field(value, names[-1], has_arguments)

    def _field(self, value: Value, name: str, has_arguments: bool) -> Value:
        match value:
            case _ if value is INVALID:
                return INVALID
            case None:
                raise ExecError(f"nil pointer evaluating interface {{}}.{name}")
            case GoStruct() if name in value.go_methods:
                if has_arguments:
                    raise ExecError(f"wrong number of args for {name}: want 0")
                try:
                    return wrap(value.go_methods[name](value))
                except LookupError as error:
                    raise ExecError(f"error calling {name}: {error}") from error
            case GoStruct() if name in value.go_fields:
                if has_arguments:
                    raise ExecError(f"{name} has arguments but cannot be invoked as function")
                return wrap(value.go_fields[name](value))
            case Map():
                if has_arguments:
                    raise ExecError(f"{name} is not a method but has arguments")
                return value.get(Text.trusted(encode(name)))
        raise ExecError(f"can't evaluate field {name} in type {type_name(value)}")

    def _call(
        self,
        dot: Value,
        name: str,
        arguments: Sequence[nodes.Operand],
        final: _Final,
        line: int | None,
    ) -> Step[Value]:
        function = BUILTINS.get(name) or EXTRAS[name]
        function.check_count(name, len(arguments) + (final is not _ABSENT))
        values: list[Value] = []
        for index, argument in enumerate(arguments):
            value = yield from self._argument(dot, argument, function.parameter(index))
            if name in ("and", "or") and is_true(value) == (name == "or"):
                return value
            values.append(value)
        self.line = line
        if final is not _ABSENT:
            values.append(_check(final, function.parameter(len(values))))
        if name in ("and", "or"):
            return values[-1]
        try:
            return function.call(self.budget, *values)
        except ExecError as error:
            raise ExecError(f"error calling {name}: {error}") from None

    def _argument(self, dot: Value, node: nodes.Operand, parameter: Parameter) -> Step[Value]:
        value: Value
        match node:
            case nodes.Dot():
                value = dot
            case nodes.Nil():
                if parameter is Parameter.STRING:
                    raise ExecError("cannot assign nil to string")
                return None if parameter is Parameter.ANY else INVALID
            case nodes.Field():
                value = self._fields(dot, node.names, False)
            case nodes.Variable():
                value = self._variables[self._find_variable(node.name)][1]
                if node.fields:
                    value = self._fields(value, node.fields, False)
            case nodes.Pipe():
                value = yield self._pipeline(dot, node)
            case nodes.Identifier():
                value = yield from self._call(dot, node.name, (), _ABSENT, self.line)
            case nodes.Chain():
                value = yield from self._chain(dot, node, False)
            case nodes.Literal():
                value = _literal(node)
        return _check(value, parameter)


def _refuse_arguments(has_arguments: bool) -> None:
    if has_arguments:
        raise ExecError("can't give argument to non-function")


def _literal(node: nodes.Literal) -> Value:
    if type(node.value) is int and node.value > INT64_MAX:
        raise ExecError(f"{node.source} overflows int")
    return node.value


def _check(value: Value, parameter: Parameter) -> Value:
    """Return a value as a parameter takes it."""
    if parameter is Parameter.STRING and not isinstance(value, Text):
        if value is INVALID:
            raise ExecError("invalid value; expected string")
        raise ExecError(f"wrong type for value; expected string; got {type_name(value)}")
    if parameter is Parameter.ANY and value is INVALID:
        return None
    return value
