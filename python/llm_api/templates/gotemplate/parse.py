"""Tokens to trees."""

from collections.abc import Container
from enum import Enum
from typing import NoReturn

from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import nodes
from llm_api.templates.gotemplate.lex import Kind, Token, tokenize
from llm_api.templates.gotemplate.literals import (
    parse_char,
    parse_complex,
    parse_number,
    unquote,
)
from llm_api.templates.gotemplate.text import Text, decode
from llm_api.templates.gotemplate.trampoline import Step, run

__all__ = ["Tree", "parse_trees"]

Tree = tuple[nodes.Node, ...]

_MAX_PAREN_DEPTH = 10_000
_UNICODE_SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_NOT_EXECUTABLE = (nodes.Dot, nodes.Nil, nodes.Literal)


class _Stop(Enum):
    """What ends a list of nodes."""

    END = "{{end}}"
    ELSE = "{{else}}"


def parse_trees(source: str, name: str, functions: Container[str]) -> dict[str, Tree]:
    """Parse a source to the templates it defines; its own is called `name`.

    Raises TemplateError.
    """
    parser = _Parser(tokenize(source), functions)
    run(parser.parse(name))
    return parser.trees


def _is_empty(tree: Tree) -> bool:
    return all(
        isinstance(node, nodes.TextNode) and not decode(node.text.raw).strip(_UNICODE_SPACES)
        for node in tree
    )


class _Parser:
    """A recursive descent parser; what nests goes through the trampoline."""

    def __init__(self, tokens: list[Token], functions: Container[str]) -> None:
        self.trees: dict[str, Tree] = {}
        self._tokens = tokens
        self._position = 0
        self._functions = functions
        # Of the template being parsed:
        self._variables = ["$"]
        self._range_depth = 0
        self._paren_depth = 0

    # Tokens. The last one, EOF or ERROR, is never passed.

    def _peek(self) -> Token:
        return self._tokens[self._position]

    def _next(self) -> Token:
        token = self._tokens[self._position]
        self._position = min(self._position + 1, len(self._tokens) - 1)
        return token

    def _peek_non_space(self) -> Token:
        if self._tokens[self._position].kind is Kind.SPACE:
            self._position += 1
        return self._tokens[self._position]

    def _next_non_space(self) -> Token:
        self._peek_non_space()
        return self._next()

    def _fail(self, reason: str, line: int | None = None) -> NoReturn:
        raise TemplateError("parse", self._peek().line if line is None else line, reason)

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        reason = str(token) if token.kind is Kind.ERROR else f"unexpected {token} in {context}"
        self._fail(reason, token.line)

    def _expect(self, kinds: tuple[Kind, ...], context: str) -> Token:
        token = self._next_non_space()
        if token.kind not in kinds:
            self._unexpected(token, context)
        return token

    # Templates and their parts.

    def parse(self, name: str) -> Step[None]:
        """Parse the whole source."""
        tree: list[nodes.Node] = []
        while self._peek().kind is not Kind.EOF:
            if self._peek().kind is Kind.LEFT_DELIM:
                start = self._position
                self._next()
                if self._next_non_space().kind is Kind.DEFINE:
                    yield from self._definition()
                    continue
                self._position = start
            node = yield from self._text_or_action()
            if isinstance(node, _Stop):
                self._fail(f"unexpected {node.value}")
            tree.append(node)
        self._add(name, tuple(tree))

    def _definition(self) -> Step[None]:
        context = "define clause"
        name = self._template_name(self._next_non_space(), context)
        self._expect((Kind.RIGHT_DELIM,), context)
        yield from self._template_body(name, context)

    def _template_body(self, name: str, context: str) -> Step[None]:
        outer = self._variables, self._range_depth, self._paren_depth
        self._variables, self._range_depth, self._paren_depth = ["$"], 0, 0
        tree, stop = yield self._list()
        if stop is not _Stop.END:
            self._fail(f"unexpected {stop.value} in {context}")
        self._variables, self._range_depth, self._paren_depth = outer
        self._add(name, tree)

    def _add(self, name: str, tree: Tree) -> None:
        if name not in self.trees or _is_empty(self.trees[name]):
            self.trees[name] = tree
        elif not _is_empty(tree):
            self._fail(f'multiple definition of template "{name}"')

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            self._unexpected(token, context)
        return decode(self._unquote(token))

    def _unquote(self, token: Token) -> bytes:
        try:
            return unquote(token.value)
        except ValueError as error:
            self._fail(str(error), token.line)

    def _list(self) -> Step[tuple[Tree, _Stop]]:
        tree: list[nodes.Node] = []
        while self._peek_non_space().kind is not Kind.EOF:
            node = yield from self._text_or_action()
            if isinstance(node, _Stop):
                return tuple(tree), node
            tree.append(node)
        self._fail("unexpected EOF")

    def _text_or_action(self) -> Step[nodes.Node | _Stop]:
        token = self._next_non_space()
        if token.kind is Kind.TEXT:
            return nodes.TextNode(Text.trusted(token.value))
        if token.kind is not Kind.LEFT_DELIM:
            self._unexpected(token, "input")
        return (yield from self._action())

    def _action(self) -> Step[nodes.Node | _Stop]:
        token = self._peek_non_space()
        match token.kind:
            case Kind.IF | Kind.WITH | Kind.RANGE:
                self._next()
                return (yield from self._control(token.kind))
            case Kind.ELSE:
                self._next()
                # The `if` of an `else if` is left to whoever parses the `else`.
                if self._peek_non_space().kind not in (Kind.IF, Kind.WITH):
                    self._expect((Kind.RIGHT_DELIM,), "else")
                return _Stop.ELSE
            case Kind.END:
                self._next()
                self._expect((Kind.RIGHT_DELIM,), "end")
                return _Stop.END
            case Kind.BREAK | Kind.CONTINUE:
                self._next()
                return self._loop_jump(token)
            case Kind.BLOCK:
                self._next()
                return (yield from self._block())
            case Kind.TEMPLATE:
                self._next()
                return (yield from self._template_call())
        # Variables declared here live up to the `end` around them.
        return nodes.Action((yield from self._pipeline("command", Kind.RIGHT_DELIM)))

    def _loop_jump(self, token: Token) -> nodes.Node:
        self._expect((Kind.RIGHT_DELIM,), f"{{{{{token.value}}}}}")
        if self._range_depth == 0:
            self._fail(f"{{{{{token.value}}}}} outside {{{{range}}}}", token.line)
        return nodes.Break() if token.kind is Kind.BREAK else nodes.Continue()

    def _control(self, kind: Kind) -> Step[nodes.Node]:
        context = kind.name.lower()
        node_type = {Kind.IF: nodes.If, Kind.WITH: nodes.With, Kind.RANGE: nodes.Range}[kind]
        outer_variables = len(self._variables)
        pipe = yield from self._pipeline(context, Kind.RIGHT_DELIM)
        self._range_depth += kind is Kind.RANGE
        body, stop = yield self._list()
        self._range_depth -= kind is Kind.RANGE
        otherwise: Tree = ()
        if stop is _Stop.ELSE:
            if self._peek().kind is kind and kind is not Kind.RANGE:
                self._next()
                otherwise = ((yield self._control(kind)),)
            else:
                otherwise, stop = yield self._list()
                if stop is not _Stop.END:
                    self._fail(f"expected end; found {stop.value}")
        del self._variables[outer_variables:]
        return node_type(pipe, body, otherwise)

    def _block(self) -> Step[nodes.Node]:
        context = "block clause"
        token = self._next_non_space()
        name = self._template_name(token, context)
        pipe = yield from self._pipeline(context, Kind.RIGHT_DELIM)
        yield from self._template_body(name, context)
        return nodes.TemplateCall(token.line, name, pipe)

    def _template_call(self) -> Step[nodes.Node]:
        context = "template clause"
        token = self._next_non_space()
        name = self._template_name(token, context)
        pipe = None
        if self._peek_non_space().kind is Kind.RIGHT_DELIM:
            self._next()
        else:
            pipe = yield from self._pipeline(context, Kind.RIGHT_DELIM)
        return nodes.TemplateCall(token.line, name, pipe)

    # Pipelines and their parts.

    def _pipeline(self, context: str, end: Kind) -> Step[nodes.Pipe]:
        line = self._peek_non_space().line
        variables, is_assignment = self._declarations(context)
        commands: list[nodes.Command] = []
        while (token := self._peek_non_space()).kind is not end:
            if token.kind not in _OPERAND_KINDS:
                self._unexpected(token, context)
            commands.append((yield from self._command()))
        if not commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.operands[0], _NOT_EXECUTABLE):
                self._fail(f"non executable command in pipeline stage {stage}", command.line)
        self._next()
        return nodes.Pipe(line, variables, is_assignment, tuple(commands))

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """Take `$x :=`, `$x =` or, in a range, `$i, $x :=`."""
        names: list[str] = []
        while (token := self._peek_non_space()).kind is Kind.VARIABLE:
            start = self._position
            self._next()
            following = self._peek_non_space()
            if following.kind in (Kind.ASSIGN, Kind.DECLARE):
                self._next()
                names.append(token.value)
                self._variables.append(token.value)
                return tuple(names), following.kind is Kind.ASSIGN
            if following.kind is not Kind.CHAR or following.value != ",":
                self._position = start
                break
            self._next()
            names.append(token.value)
            self._variables.append(token.value)
            if context != "range" or len(names) > 1:
                self._fail(f"too many declarations in {context}")
            after = (Kind.VARIABLE, Kind.RIGHT_DELIM, Kind.RIGHT_PAREN)
            if self._peek_non_space().kind not in after:
                self._fail("range can only initialize variables")
        return tuple(names), False

    def _command(self) -> Step[nodes.Command]:
        line = self._peek_non_space().line
        operands: list[nodes.Operand] = []
        while True:
            self._peek_non_space()
            operand = yield from self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._peek()
            if token.kind is Kind.SPACE:
                self._next()
                continue
            if token.kind is Kind.PIPE:
                self._next()
            elif token.kind not in (Kind.RIGHT_DELIM, Kind.RIGHT_PAREN):
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return nodes.Command(line, tuple(operands))

    def _operand(self) -> Step[nodes.Operand | None]:
        term = yield from self._term()
        fields: list[str] = []
        while term is not None and self._peek().kind is Kind.FIELD:
            fields.append(self._next().value[1:])
        if not fields or term is None:
            return term
        match term:
            case nodes.Field():
                return nodes.Field((*term.names, *fields))
            case nodes.Variable():
                return nodes.Variable(term.name, tuple(fields))
            case nodes.Dot() | nodes.Nil() | nodes.Literal():
                self._fail("unexpected . after term")
        return nodes.Chain(term, tuple(fields))

    def _term(self) -> Step[nodes.Operand | None]:
        token = self._peek_non_space()
        if token.kind is Kind.LEFT_PAREN:
            if self._paren_depth >= _MAX_PAREN_DEPTH:
                self._fail("max expression depth exceeded")
            self._next()
            self._paren_depth += 1
            pipe = yield self._pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
            self._paren_depth -= 1
            return pipe  # type: ignore[no-any-return]
        term = self._simple_term(token)
        if term is not None:
            self._next()
        return term

    def _simple_term(self, token: Token) -> nodes.Operand | None:
        match token.kind:
            case Kind.IDENTIFIER:
                if token.value not in self._functions:
                    self._fail(f'function "{token.value}" not defined')
                return nodes.Identifier(token.value)
            case Kind.DOT:
                return nodes.Dot()
            case Kind.NIL:
                return nodes.Nil()
            case Kind.VARIABLE:
                if token.value not in self._variables:
                    self._fail(f'undefined variable "{token.value}"')
                return nodes.Variable(token.value)
            case Kind.FIELD:
                return nodes.Field((token.value[1:],))
            case Kind.BOOL:
                return nodes.Literal(token.value, token.value == "true")
            case Kind.STRING | Kind.RAW_STRING:
                return nodes.Literal(token.value, Text.trusted(self._unquote(token)))
            case Kind.NUMBER | Kind.COMPLEX | Kind.CHAR_CONSTANT:
                try:
                    return nodes.Literal(token.value, _NUMBERS[token.kind](token.value))
                except ValueError as error:
                    self._fail(str(error))
        return None


_NUMBERS = {
    Kind.NUMBER: parse_number,
    Kind.COMPLEX: parse_complex,
    Kind.CHAR_CONSTANT: parse_char,
}
_OPERAND_KINDS = frozenset(
    (
        Kind.BOOL,
        Kind.CHAR_CONSTANT,
        Kind.COMPLEX,
        Kind.DOT,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.NUMBER,
        Kind.NIL,
        Kind.RAW_STRING,
        Kind.STRING,
        Kind.VARIABLE,
        Kind.LEFT_PAREN,
    )
)
