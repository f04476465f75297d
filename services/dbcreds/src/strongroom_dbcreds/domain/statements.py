"""Statements with placeholders: {{name}} or {{username}}, {{password}}, {{expiration}}.

A value is written by the rules of the place where its placeholder stands, so that it can never end a quotation and
become part of the statement: in a string, in a quoted identifier, or bare, where it is quoted as a whole; in a
comment it is left out. The rules are PostgreSQL's ("Lexical Structure"), MySQL's ("String Literals", "Comments") and
Oracle's ("Literals", "Database Object Names and Qualifiers").
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from strongroom_runtime.errors import invalid
from strongroom_runtime.tools import base64_text

_NAMES = ("name", "username")
_FIELD = r"\{\{\s*(?P<field>\w+)\s*\}\}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database reads statements.

    Args:
        tokens: what opens a quotation or a comment, or ends a statement.
        backslash: quotations in which a backslash escapes.
        name_quote: how a bare name is quoted.
        dollar: bodies stand between dollar quotes, which are read as statements themselves.
        nested: block comments nest.
        no_escape: quotation marks that cannot stand in what they quote.
        credential_quote: how a bare password is quoted.
    """

    tokens: re.Pattern[str]
    backslash: frozenset[str]
    name_quote: str
    dollar: bool
    nested: bool
    no_escape: frozenset[str] = frozenset()
    credential_quote: str = "'"


# The letter in front of a quotation counts only where it is a word of its own: date'…' is no escape string.
POSTGRESQL = Dialect(
    re.compile(
        rf"""{_FIELD} | (?P<line>--) | (?P<block>/\*) | (?P<dollar>(?<![\w$])\$(?:[^\W\d]\w*)?\$)
          | (?P<refused>(?<![\w$])[uU]&['"]) | (?P<quote>(?<![\w$])[eE]'|['"]) | (?P<end>;)""",
        re.VERBOSE,
    ),
    backslash=frozenset({"E'"}),
    name_quote='"',
    dollar=True,
    nested=True,
)
MYSQL = Dialect(
    re.compile(
        rf"""{_FIELD} | (?P<line>\#|--(?=\s|$)) | (?P<block>/\*) | (?P<dollar>(?!)) | (?P<refused>(?!))
          | (?P<quote>['"`]) | (?P<end>;)""",
        re.VERBOSE,
    ),
    backslash=frozenset({"'", '"'}),
    name_quote="'",
    dollar=False,
    nested=False,
)


ORACLE = Dialect(
    re.compile(
        rf"""{_FIELD} | (?P<line>--) | (?P<block>/\*) | (?P<dollar>(?!)) | (?P<refused>(?<![\w$\#])[nN]?[qQ]')
          | (?P<quote>['"]) | (?P<end>;)""",
        re.VERBOSE,
    ),
    backslash=frozenset(),
    name_quote='"',
    dollar=False,
    nested=False,
    no_escape=frozenset({'"'}),
    credential_quote='"',
)


def given(statements: Iterable[str]) -> tuple[str, ...]:
    """Returns statements without those that are blank, which say as much as none, as in Vault."""
    return tuple(text for text in statements if text.strip())


def texts(statements: Iterable[str]) -> list[str]:
    """Returns statements one by one: each may be a text, a JSON list of texts, or either in base64, as in Vault."""
    found: list[str] = []
    for statement in statements:
        text = _decoded(statement.strip())
        listed = _json_list(text)
        found += listed if listed is not None else [text] if text else []
    return found


def fill(statement: str, values: Mapping[str, str], dialect: Dialect = POSTGRESQL) -> str:
    """Returns a text of statements with its placeholders filled in.

    Raises:
        ServiceError: INVALID where a placeholder is unknown, or stands where its value cannot be quoted.
    """
    return "".join(piece for piece, _ in _Scanner(statement, values, dialect).pieces())


def split(statement: str, values: Mapping[str, str], dialect: Dialect) -> list[str]:
    """Returns the statements of a text one by one, with their placeholders filled in; raises as `fill`."""
    found = [""]
    for piece, ends in _Scanner(statement, values, dialect).pieces():
        if ends:
            found.append("")
        else:
            found[-1] += piece
    return [each.strip() for each in found if each.strip()]


class _Scanner:
    """Reads a text from one quotation or comment to the next."""

    def __init__(self, text: str, values: Mapping[str, str], dialect: Dialect) -> None:
        self._text = text
        self._values = values
        self._dialect = dialect

    def pieces(
        self, start: int = 0, stop: int | None = None, *, body: bool = False
    ) -> Iterator[tuple[str, bool]]:
        """Yields the text in pieces, each with whether it is what ends a statement."""
        position, stop = start, len(self._text) if stop is None else stop
        while match := self._dialect.tokens.search(self._text, position, stop):
            yield self._text[position : match.start()], False
            kind = str(match.lastgroup)
            if kind == "field":
                yield self._value(match["field"], "", body), False
                position = match.end()
            elif kind == "end":
                yield ";", not body
                position = match.end()
            elif kind == "refused":
                position = self._refused(match.end(), match.group()[-1], stop)
                yield self._text[match.start() : position], False
            elif kind == "dollar":
                close = self._text.find(match.group(), match.end(), stop)
                end = stop if close < 0 else close
                yield match.group(), False
                yield from self.pieces(match.end(), end, body=True)
                position = end if close < 0 else end + len(match.group())
                yield self._text[end:position], False
            else:
                position = self._end(kind, match, stop)
                quote = match.group().upper() if kind == "quote" else None
                yield self._filled(match.start(), position, quote, body), False
        yield self._text[position:stop], False

    def _end(self, kind: str, match: re.Match[str], stop: int) -> int:
        """Returns where a quotation or comment is over."""
        if kind == "line":
            end = self._text.find("\n", match.end(), stop)
            return stop if end < 0 else end
        if kind == "block":
            return self._block(match.end(), stop)
        quote = match.group().upper()
        mark = re.escape(quote[-1])
        plain = rf"{mark}{mark}|[^{mark}]"
        if quote in self._dialect.backslash:
            plain = rf"\\.|{mark}{mark}|[^{mark}\\]"
        inside = re.compile(rf"(?:{plain})*{mark}?", re.DOTALL)
        found = inside.match(self._text, match.end(), stop)
        return found.end() if found is not None else stop

    def _block(self, position: int, stop: int) -> int:
        depth = 1
        for mark in re.compile(r"/\*|\*/").finditer(self._text, position, stop):
            if mark.group() == "*/":
                depth -= 1
            elif self._dialect.nested:
                depth += 1
            if not depth:
                return mark.end()
        return stop

    def _refused(self, position: int, quote: str, stop: int) -> int:
        if self._dialect is ORACLE:
            raise invalid("statements: texts of the form q'…' are not understood; write '…'")
        end = self._text.find(quote, position, stop)
        end = stop if end < 0 else end + 1
        if re.search(_FIELD, self._text[position:end]):
            raise invalid("statements: a placeholder cannot stand in a text with Unicode escapes")
        return end

    def _filled(self, start: int, end: int, quote: str | None, body: bool) -> str:
        """Returns a quotation, or a comment (None), with its placeholders filled in."""
        return re.sub(
            _FIELD,
            lambda field: "" if quote is None else self._value(field["field"], quote, body),
            self._text[start:end],
        )

    def _value(self, field: str, quote: str, body: bool) -> str:
        name = "name" if field in _NAMES else field
        if name not in self._values:
            raise invalid(f"statements: there is no placeholder {field} here")
        value = self._values[name]
        if "\0" in value:
            raise invalid(f"{name}: must not have a NUL character")
        if body and "$" in value:
            raise invalid(f"{name}: with a dollar sign, cannot stand between dollar quotes")
        whole = not quote
        if whole:
            quotes = {"name": self._dialect.name_quote, "password": self._dialect.credential_quote}
            quote = quotes.get(name, "'")
        if quote in self._dialect.backslash:
            value = value.replace("\\", "\\\\")
        mark = quote[-1]
        if mark in self._dialect.no_escape and mark in value:
            raise invalid(
                f"{name}: must not have the character {mark}, which this database cannot quote"
            )
        value = value.replace(mark, mark * 2)
        return f"{mark}{value}{mark}" if whole else value


def _decoded(text: str) -> str:
    if not text or re.search(r"\s", text):
        return text
    decoded = base64_text(text)
    if decoded is None:
        return text
    return decoded.strip() if decoded.replace("\n", " ").replace("\t", " ").isprintable() else text


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if all(isinstance(each, str) for each in found) else None
