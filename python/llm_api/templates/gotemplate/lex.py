"""Template source to tokens."""

import re
import unicodedata
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["Kind", "Token", "tokenize"]


class Kind(Enum):
    """What a token is."""

    ERROR = auto()
    EOF = auto()
    TEXT = auto()
    LEFT_DELIM = auto()
    RIGHT_DELIM = auto()
    SPACE = auto()
    LEFT_PAREN = auto()
    RIGHT_PAREN = auto()
    PIPE = auto()
    ASSIGN = auto()
    DECLARE = auto()
    CHAR = auto()
    BOOL = auto()
    NUMBER = auto()
    COMPLEX = auto()
    CHAR_CONSTANT = auto()
    STRING = auto()
    RAW_STRING = auto()
    FIELD = auto()
    VARIABLE = auto()
    IDENTIFIER = auto()
    DOT = auto()
    NIL = auto()
    BLOCK = auto()
    BREAK = auto()
    CONTINUE = auto()
    DEFINE = auto()
    ELSE = auto()
    END = auto()
    IF = auto()
    RANGE = auto()
    TEMPLATE = auto()
    WITH = auto()


class Token(NamedTuple):
    """A token; `line` is the one it starts on."""

    kind: Kind
    value: str
    line: int

    def __str__(self) -> str:
        if self.kind is Kind.EOF:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.value
        if self.value in _KEYWORDS:
            return f"<{self.value}>"
        return f'"{self.value[:10]}"...' if len(self.value) > 10 else f'"{self.value}"'


_KEYWORDS = {
    "block": Kind.BLOCK,
    "break": Kind.BREAK,
    "continue": Kind.CONTINUE,
    "define": Kind.DEFINE,
    "else": Kind.ELSE,
    "end": Kind.END,
    "if": Kind.IF,
    "nil": Kind.NIL,
    "range": Kind.RANGE,
    "template": Kind.TEMPLATE,
    "with": Kind.WITH,
}
_WORDS = _KEYWORDS | {"true": Kind.BOOL, "false": Kind.BOOL}
_PUNCTUATION = {"=": Kind.ASSIGN, "|": Kind.PIPE, "(": Kind.LEFT_PAREN, ")": Kind.RIGHT_PAREN}
_QUOTED = {
    '"': (Kind.STRING, re.compile(r'"(?:\\[^\n]|[^"\\\n])*"'), "quoted string"),
    "'": (Kind.CHAR_CONSTANT, re.compile(r"'(?:\\[^\n]|[^'\\\n])*'"), "character constant"),
    "`": (Kind.RAW_STRING, re.compile("`[^`]*`"), "raw quoted string"),
}
_SPACES = " \t\r\n"
_SPACE_RUN = re.compile(r"[ \t\r\n]+")
_LEFT_TRIM = re.compile(r"-[ \t\r\n]")
_RIGHT_DELIM = re.compile(r"(?P<trim>[ \t\r\n]-)?\}\}")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_TERMINATORS = frozenset(_SPACES + ".,|:)(")


def _is_alphanumeric(char: str) -> bool:
    return char == "_" or (char != "" and unicodedata.category(char)[0:2] in _WORD_CATEGORIES)


_WORD_CATEGORIES = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"))


def _describe(char: str) -> str:
    code = f"U+{ord(char):04X}" if char else "U+FFFFFFFFFFFFFFFF"
    return f"{code} '{char}'" if char.isprintable() and char else code


class _LexError(Exception):
    """The source can't be cut into tokens; the text says why."""


class _Lexer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens: list[Token] = []
        self._position = 0
        self._line = 1
        self._parens = 0

    def tokens(self) -> list[Token]:
        try:
            while self._text():
                while not self._right_delim():
                    self._inside_action()
            self._emit(Kind.EOF, self._position)
        except _LexError as error:
            self._tokens.append(Token(Kind.ERROR, str(error), self._line))
        return self._tokens

    def _emit(self, kind: Kind, end: int) -> None:
        value = self._source[self._position : end]
        self._tokens.append(Token(kind, value, self._line))
        self._skip_to(end)

    def _skip_to(self, end: int) -> None:
        self._line += self._source.count("\n", self._position, end)
        self._position = end

    def _skip_spaces(self) -> None:
        if spaces := _SPACE_RUN.match(self._source, self._position):
            self._skip_to(spaces.end())

    def _text(self) -> bool:
        """Take text, comments and a left delimiter; return False at the end of the source."""
        source = self._source
        while (start := source.find("{{", self._position)) >= 0:
            trims = _LEFT_TRIM.match(source, start + 2) is not None
            text = source[self._position : start]
            text = text.rstrip(_SPACES) if trims else text
            if text:
                self._emit(Kind.TEXT, self._position + len(text))
            self._skip_to(start)
            inside = start + 4 if trims else start + 2
            if source.startswith("/*", inside):
                self._skip_to(inside)
                self._comment()
                continue
            self._emit(Kind.LEFT_DELIM, start + 2)
            self._skip_to(inside)
            self._parens = 0
            return True
        if self._position < len(source):
            self._emit(Kind.TEXT, len(source))
        return False

    def _comment(self) -> None:
        end = self._source.find("*/", self._position + 2)
        if end < 0:
            raise _LexError("unclosed comment")
        delim = _RIGHT_DELIM.match(self._source, end + 2)
        if delim is None:
            raise _LexError("comment ends before closing delimiter")
        self._skip_to(delim.end())
        if delim["trim"]:
            self._skip_spaces()

    def _right_delim(self) -> bool:
        delim = _RIGHT_DELIM.match(self._source, self._position)
        if delim is None:
            return False
        if self._parens:
            raise _LexError("unclosed left paren")
        self._skip_to(delim.end() - 2)
        self._emit(Kind.RIGHT_DELIM, delim.end())
        if delim["trim"]:
            self._skip_spaces()
        return True

    def _inside_action(self) -> None:
        source, start = self._source, self._position
        char = source[start : start + 1]
        following = source[start + 1 : start + 2]
        if not char:
            raise _LexError("unclosed action")
        if char in _SPACES:
            self._space()
        elif char in _PUNCTUATION:
            self._parens += {"(": 1, ")": -1}.get(char, 0)
            if self._parens < 0:
                raise _LexError("unexpected right paren")
            self._emit(_PUNCTUATION[char], start + 1)
        elif char == ":":
            if following != "=":
                raise _LexError("expected :=")
            self._emit(Kind.DECLARE, start + 2)
        elif char in _QUOTED:
            self._quoted(char)
        elif char == "$" or (char == "." and following and not "0" <= following <= "9"):
            self._field_or_variable(char)
        elif char in "+-." or "0" <= char <= "9":
            self._number()
        elif _is_alphanumeric(char):
            end = self._word_end(start)
            self._emit(_WORDS.get(source[start:end], Kind.IDENTIFIER), end)
        elif char.isascii() and char.isprintable():
            self._emit(Kind.CHAR, start + 1)
        else:
            raise _LexError(f"unrecognized character in action: {_describe(char)}")

    def _space(self) -> None:
        spaces = _SPACE_RUN.match(self._source, self._position)
        assert spaces is not None
        # The last space may belong to a delimiter that trims.
        end = spaces.end()
        if _RIGHT_DELIM.match(self._source, end - 1):
            end -= 1
        if end > self._position:
            self._emit(Kind.SPACE, end)

    def _quoted(self, quote: str) -> None:
        kind, pattern, name = _QUOTED[quote]
        match = pattern.match(self._source, self._position)
        if match is None:
            raise _LexError(f"unterminated {name}")
        self._emit(kind, match.end())

    def _number(self) -> None:
        end = self._number_end(self._position)
        kind = Kind.NUMBER
        if self._source[end : end + 1] in ("+", "-"):
            kind = Kind.COMPLEX
            end = self._number_end(end)
            if self._source[end - 1] != "i":
                self._bad_number(end)
        self._emit(kind, end)

    def _number_end(self, start: int) -> int:
        match = _NUMBER.match(self._source, start)
        assert match is not None
        end = match.end()
        if _is_alphanumeric(self._source[end : end + 1]):
            self._bad_number(end + 1)
        return end

    def _bad_number(self, end: int) -> None:
        raise _LexError(f'bad number syntax: "{self._source[self._position : end]}"')

    def _field_or_variable(self, sign: str) -> None:
        start = self._position
        if self._at_terminator(start + 1):
            self._emit(Kind.VARIABLE if sign == "$" else Kind.DOT, start + 1)
        else:
            kind = Kind.VARIABLE if sign == "$" else Kind.FIELD
            self._emit(kind, self._word_end(start + 1))

    def _word_end(self, start: int) -> int:
        source, end = self._source, start
        while end < len(source) and _is_alphanumeric(source[end]):
            end += 1
        if not self._at_terminator(end):
            raise _LexError(f"bad character {_describe(source[end])}")
        return end

    def _at_terminator(self, position: int) -> bool:
        char = self._source[position : position + 1]
        return not char or char in _TERMINATORS or self._source.startswith("}}", position)


def tokenize(source: str) -> list[Token]:
    """Cut a template into tokens; the last one is EOF or ERROR.

    Comments are left out, and trimmed white space is.
    """
    return _Lexer(source).tokens()
