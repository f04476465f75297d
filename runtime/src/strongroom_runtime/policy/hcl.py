"""The part of HCL that policies are written in: blocks, attributes, lists, objects, comments, heredocs.

Written by hand, since no library keeps two blocks for one path (see the record of decisions). JSON is read by the
same grammar: without its outer braces an object is a list of attributes. A key that comes twice is kept twice, where
JSON readers would keep the last. Sizes and depth are bounded, because a policy's writer need not be trusted with the
server.
"""

import re
from dataclasses import dataclass

from strongroom_runtime.policy.model import PolicyError, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NUMBER = 32  # characters


@dataclass(frozen=True, slots=True)
class Item:
    """`key label … { body }` or `key = value`, with its line.

    A value is a text, a number, a truth value, None, a list of values, or a `Body`.
    """

    key: str
    labels: tuple[str, ...]
    value: object
    line: int


class Body(list[Item]):
    """What stands between braces. A key may come several times."""


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<heredoc><<-?(?P<tag>[A-Za-z_][A-Za-z0-9_]*)[ \t]*\r?\n)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
      | (?P<mark>[{}\[\]=,:])""",
    re.VERBOSE | re.DOTALL,
)
_PAIR = r"u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
_ESCAPE = re.compile(rf'\\({_PAIR}|u[0-9A-Fa-f]{{4}}|U[0-9A-Fa-f]{{8}}|["\\/abfnrtv])')
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    line: int


def parse(text: str) -> Body:
    """Returns the items of a document, HCL or JSON.

    Raises:
        PolicyError: the text is too large, too deep, or neither; the line is named.
    """
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise PolicyError(f"a policy may have at most {MAX_BYTES} bytes")
    return _Parser(_tokens(text)).document()


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise PolicyError(f"line {line}: {_reason(text, position)}")
        kind, value, end = str(match.lastgroup), match.group(), match.end()
        if kind == "mark" or kind == "name" or kind == "number":
            tokens.append(_Token(kind, value, line))
        elif kind == "string":
            tokens.append(_Token("text", _unescape(value[1:-1], line), line))
        elif kind != "space":
            content, end = _heredoc(text, match.end(), match["tag"], line)
            indented = value.startswith("<<-")
            tokens.append(_Token("text", _unindent(content) if indented else content, line))
            value = text[position:end]
        line += value.count("\n")
        position = end
    tokens.append(_Token("end", "", line))
    return tokens


def _reason(text: str, position: int) -> str:
    if text.startswith("/*", position):
        return "the comment is not closed by */"
    if text[position] == '"':
        return "the text is not closed by a quote on its line"
    return "unexpected character"


def _heredoc(text: str, start: int, tag: str, line: int) -> tuple[str, int]:
    end = re.compile(rf"^[ \t]*{tag}[ \t]*\r?$", re.MULTILINE).search(text, start)
    if end is None:
        raise PolicyError(f"line {line}: the heredoc is not closed by {shown(tag)}")
    return text[start : end.start()], end.end()


def _unindent(content: str) -> str:
    lines = content.splitlines(keepends=True)
    margin = min((len(x) - len(x.lstrip(" \t")) for x in lines if x.strip()), default=0)
    return "".join(x[margin:] for x in lines)


def _unescape(raw: str, line: int) -> str:
    if "\\" not in raw:
        return raw

    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] not in "uU":
            return _SIMPLE.get(code, code)
        if len(code) == 11:  # two halves of one character, as JSON writes those beyond 16 bits
            return chr(0x10000 + ((int(code[1:5], 16) & 0x3FF) << 10 | int(code[7:], 16) & 0x3FF))
        point = int(code[1:], 16)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise PolicyError(f"line {line}: the escape names no character")
        return chr(point)

    # What is left of backslashes when all known escapes are taken out is unknown.
    if "\\" in _ESCAPE.sub("", raw):
        raise PolicyError(f'line {line}: unknown escape; known are \\" \\\\ \\n \\r \\t \\u1234')
    return _ESCAPE.sub(one, raw)


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._position = 0

    def document(self) -> Body:
        """Reads all; the braces around a JSON document may be there."""
        if not self._take("{"):
            return self._body(0, "end")
        body = self._body(1, "}")
        if self._next.kind != "end":
            raise PolicyError(f"line {self._next.line}: nothing may follow the closing }}")
        return body

    def _body(self, depth: int, closing: str) -> Body:
        """Reads items up to and including the closing token."""
        if depth > MAX_DEPTH:
            raise PolicyError(f"line {self._next.line}: nested deeper than {MAX_DEPTH}")
        items = Body()
        while not self._take(closing):
            items.append(self._item(depth))
            self._take(",")
        return items

    def _item(self, depth: int) -> Item:
        key = self._advance()
        if key.kind not in ("name", "text"):
            raise PolicyError(f"line {key.line}: expected a name, found {_shown(key)}")
        labels: list[str] = []
        while self._next.kind in ("name", "text"):
            labels.append(self._advance().text)
        if self._take("{"):
            return Item(key.text, tuple(labels), self._body(depth + 1, "}"), key.line)
        if labels or not (self._take("=") or self._take(":")):
            raise PolicyError(f"line {key.line}: expected = or {{ after {shown(key.text)}")
        return Item(key.text, (), self._value(depth + 1), key.line)

    def _value(self, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise PolicyError(f"line {self._next.line}: nested deeper than {MAX_DEPTH}")
        token = self._advance()
        if token.kind == "text":
            return token.text
        if token.kind == "number":
            return _number(token)
        if token.text in _WORDS:
            return _WORDS[token.text]
        if token.text == "{":
            return self._body(depth + 1, "}")
        if token.text == "[":
            return self._list(depth)
        raise PolicyError(f"line {token.line}: expected a value, found {_shown(token)}")

    def _list(self, depth: int) -> list[object]:
        values: list[object] = []
        while not self._take("]"):
            values.append(self._value(depth + 1))
            if not self._take(",") and not _is_mark(self._next, "]"):
                raise PolicyError(f"line {self._next.line}: expected , or ] in the list")
        return values

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _advance(self) -> _Token:
        token = self._next
        if token.kind == "end":
            raise PolicyError(f"line {token.line}: the text ends too early")
        self._position += 1
        return token

    def _take(self, wanted: str) -> bool:
        token = self._next
        found = token.kind == "end" if wanted == "end" else _is_mark(token, wanted)
        if found and token.kind != "end":
            self._position += 1
        return found


def _number(token: _Token) -> int | float:
    if len(token.text) > MAX_NUMBER:
        raise PolicyError(f"line {token.line}: a number may have {MAX_NUMBER} characters")
    whole = token.text.removeprefix("-").isdecimal()
    return int(token.text) if whole else float(token.text)


def _is_mark(token: _Token, wanted: str) -> bool:
    return token.kind == "mark" and token.text == wanted


def _shown(token: _Token) -> str:
    """Returns what stands there, for an error's text."""
    if token.kind == "name":
        return f"{shown(token.text)} without quotes"
    return token.text if token.kind == "mark" else "a " + token.kind
