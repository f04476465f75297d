"""Statements with placeholders: {{name}} or {{username}}, {{password}}, {{expiration}}.

A value is written by the rules of the place where its placeholder stands (PostgreSQL documentation, "Lexical
Structure"), so that it can never end a quotation and become part of the statement: between double quotes, between
single quotes, in an escape string, or bare, where it is quoted as a whole.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping

from strongroom_runtime.errors import invalid

_FIELD = r"\{\{\s*(?P<field>\w+)\s*\}\}"
# What to look for, by the quotation that one is in; empty for none.
_TOKENS = {
    "": re.compile(rf"""--[^\n]*|/\*.*?\*/|{_FIELD}|(?<!\w)[eE]'|['"]""", re.DOTALL),
    "'": re.compile(rf"''|'|{_FIELD}"),
    '"': re.compile(rf"""""|"|{_FIELD}"""),
    "E'": re.compile(rf"\\.|''|'|{_FIELD}", re.DOTALL),
}
_NAMES = ("name", "username")


def texts(statements: Iterable[str]) -> list[str]:
    """Returns statements one by one: each may be a text, a JSON list of texts, or either in base64, as in Vault."""
    found: list[str] = []
    for statement in statements:
        text = _decoded(statement.strip())
        if text.startswith("["):
            try:
                found += [str(each) for each in json.loads(text)]
                continue
            except ValueError:
                pass
        if text:
            found.append(text)
    return found


def fill(statement: str, values: Mapping[str, str]) -> str:
    """Returns a statement with its placeholders filled in.

    Raises:
        ServiceError: INVALID where a placeholder is unknown, or stands where no value can be quoted.
    """
    filled: list[str] = []
    position, within = 0, ""
    while (token := _TOKENS[within].search(statement, position)) is not None:
        text, field = token.group(), token.group("field")
        filled.append(statement[position : token.start()])
        position = token.end()
        filled.append(text if field is None else _quoted(field, values, within))
        if not within and text.upper() in _TOKENS:
            within = text.upper()
        elif within and text == within[-1]:
            within = ""
    return "".join(filled) + statement[position:]


def _quoted(field: str, values: Mapping[str, str], within: str) -> str:
    name = "name" if field in _NAMES else field
    if name not in values:
        raise invalid(f"statements: there is no placeholder {field}")
    value = values[name]
    if "\0" in value or "$$" in value:
        raise invalid(f"{name}: has characters that cannot stand in a statement")
    if within == '"':
        return value.replace('"', '""')
    if within == "E'":
        return value.replace("\\", "\\\\").replace("'", "''")
    if within == "'":
        return value.replace("'", "''")
    quote = '"' if name == "name" else "'"
    return quote + value.replace(quote, quote * 2) + quote


def _decoded(text: str) -> str:
    if not text or re.search(r"\s", text):
        return text
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text
