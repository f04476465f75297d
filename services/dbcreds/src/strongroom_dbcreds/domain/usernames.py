"""Templates of user names: the part of Go's text/template that Vault's are written in.

Texts with actions: `{{ printf "v-%s-%s" (.DisplayName | truncate 8) (random 20) | truncate 63 }}`. An action is a
pipeline of functions; there are no conditions, loops or variables. Vault documentation, "Username Templating".
"""

import base64
import datetime
import hashlib
import re
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from strongroom_runtime.errors import invalid
from strongroom_runtime.secrets import random_letters

DEFAULTS = {
    "postgresql": '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20)'
    " (unix_time) | truncate 63 }}",
    "mysql": '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20)'
    " (unix_time) | truncate 32 }}",
    "mysql-legacy": '{{ printf "v-%s-%s" (.RoleName | truncate 4) (random 20) | truncate 16 }}',
    "mongodb": '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 15) (.RoleName | truncate 15) (random 20)'
    ' (unix_time) | replace "." "-" | truncate 100 }}',
    "oracle": '{{ printf "V_%s_%s_%s_%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20)'
    ' (unix_time) | truncate 30 | uppercase | replace "-" "_" | replace "." "_" }}',
    "valkey": '{{ printf "V_%s_%s_%s_%s" (.DisplayName | truncate 15 | uppercase)'
    " (.RoleName | truncate 15 | uppercase) (random 20 | uppercase) (unix_time) | truncate 64 }}",
}  # fmt: skip

_MOST_BYTES = 10_000  # of a template
_LONGEST = 1_000  # of what comes out
_DEEPEST = 16
_LETTERS = string.ascii_letters + string.digits
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<text>"(?:[^"\\\n]|\\["\\nt])*" | `[^`]*`) | (?P<number>\d{1,6}(?!\w))
      | (?P<field>\.[A-Za-z]+) | (?P<name>[a-z_][a-z0-9_]*) | (?P<mark>[()|])""",
    re.VERBOSE,
)
_ACTION = re.compile(r'\{\{(-\s)?((?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|[^"`{}])*?)(\s-)?\}\}', re.DOTALL)

Value = str | int


@dataclass(frozen=True, slots=True)
class Known:
    """What a template can ask for."""

    display_name: str
    role_name: str
    now: float


def render(template: str, known: Known) -> str:
    """Returns a name by a template.

    Raises:
        ServiceError: INVALID; says what is wrong with the template.
    """
    if len(template) > _MOST_BYTES:
        raise invalid(f"username_template: must not be longer than {_MOST_BYTES} characters")
    made, position = "", 0
    for action in _ACTION.finditer(template):
        text = template[position : action.start()]
        made += _plain(text.rstrip() if action[1] else text)
        made += str(_Action(action[2], known).value())
        position = action.end()
        if action[3]:
            position += len(template[position:]) - len(template[position:].lstrip())
    made += _plain(template[position:])
    if not made or len(made) > _LONGEST or not made.isprintable():
        raise invalid("username_template: makes an empty, endless or unprintable name")
    return made


def _plain(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise _wrong("an action is not closed")
    return text


def _wrong(why: str) -> Exception:
    return invalid(f"username_template: {why}")


class _Action:
    """Evaluates what stands between braces, by recursive descent."""

    def __init__(self, text: str, known: Known) -> None:
        self._known = known
        self._tokens: list[tuple[str, str]] = []
        self._position = 0
        self._depth = 0
        start = 0
        while start < len(text):
            match = _TOKEN.match(text, start)
            if match is None:
                raise _wrong("an action has something that is not supported")
            if match.lastgroup != "space":
                self._tokens.append((str(match.lastgroup), match.group()))
            start = match.end()

    def value(self) -> Value:
        value = self._pipeline()
        if self._position < len(self._tokens):
            raise _wrong("an action does not end where it should")
        return value

    def _pipeline(self) -> Value:
        value = self._command(())
        while self._take("|"):
            value = self._command((value,))
        return value

    def _command(self, last: Sequence[Value]) -> Value:
        kind, text = self._next()
        if kind != "name":
            if last:
                raise _wrong("a pipe leads to something that is no function")
            return self._operand()
        self._position += 1
        arguments: list[Value] = []
        while self._next()[0] in ("text", "number", "field", "name") or self._next() == (
            "mark",
            "(",
        ):
            arguments.append(self._operand())
        return self._call(text, [*arguments, *last])

    def _operand(self) -> Value:
        kind, text = self._next()
        self._position += 1
        if kind == "text":
            return text[1:-1] if text[0] == "`" else _unescaped(text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "field":
            return self._field(text)
        if kind == "name":
            return self._call(text, [])
        if text == "(":
            self._depth += 1
            if self._depth > _DEEPEST:
                raise _wrong("parentheses are too deep")
            value = self._pipeline()
            self._depth -= 1
            if not self._take(")"):
                raise _wrong("a parenthesis is not closed")
            return value
        raise _wrong("an action is not complete")

    def _field(self, name: str) -> str:
        if name == ".DisplayName":
            return self._known.display_name
        if name == ".RoleName":
            return self._known.role_name
        raise _wrong("there are .DisplayName and .RoleName")

    def _call(self, name: str, arguments: list[Value]) -> Value:
        if name == "printf":
            return _printf(arguments)
        if name in _CLOCK:
            _expect(name, arguments, _CLOCK[name][0])
            return _CLOCK[name][1](self._known.now, *map(str, arguments))
        if name not in _FUNCTIONS:
            raise _wrong(
                f"there is no function of that name; there are {', '.join(sorted(_NAMES))}"
            )
        types, function = _FUNCTIONS[name]
        _expect(name, arguments, types)
        return function(*arguments)

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("end", "")

    def _take(self, mark: str) -> bool:
        found = self._next() == ("mark", mark)
        self._position += found
        return found


def _expect(name: str, arguments: Sequence[Value], types: Sequence[type]) -> None:
    if [type(each) for each in arguments] != list(types):
        shown = " ".join("number" if each is int else "text" for each in types)
        raise _wrong(f"{name} takes {shown or 'nothing'}")


def _printf(arguments: list[Value]) -> str:
    if not arguments or not isinstance(arguments[0], str):
        raise _wrong("printf takes a format first")
    rest = iter(arguments[1:])

    def one(match: re.Match[str]) -> str:
        verb = match.group()
        if verb == "%%":
            return "%"
        value = next(rest, None)
        if (
            value is None
            or verb not in ("%s", "%v", "%d")
            or (verb == "%d") > isinstance(value, int)
        ):
            raise _wrong("printf takes %s, %v, %d, and a value for each")
        return str(value)

    made = re.sub(r"%.?", one, arguments[0], flags=re.DOTALL)
    if next(rest, None) is not None:
        raise _wrong("printf has more values than its format")
    return made


def _random(length: int) -> str:
    if not 0 < length <= _LONGEST:
        raise _wrong(f"random takes 1 to {_LONGEST}")
    return random_letters(_LETTERS, length)


def _truncate(length: int, text: str) -> str:
    if length <= 0:
        raise _wrong("truncate takes a number above 0")
    return text[:length]


def _truncate_sha256(length: int, text: str) -> str:
    if length <= 8:
        raise _wrong("truncate_sha256 takes a number above 8")
    if len(text) <= length:
        return text
    return text[: length - 8] + _sha256(text[length - 8 :])[:8]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_GO_TIME = {
    "2006": "%Y", "01": "%m", "02": "%d", "15": "%H", "04": "%M", "05": "%S", "06": "%y", "Jan": "%b",
    "January": "%B", "Mon": "%a", "Monday": "%A", "03": "%I", "PM": "%p", "MST": "UTC", "-0700": "+0000",
    "_2": "%e",
}  # fmt: skip
_GO_PARTS = re.compile("|".join(sorted(map(re.escape, _GO_TIME), key=len, reverse=True)))


def _timestamp(now: float, layout: str) -> str:
    time = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return _GO_PARTS.sub(lambda part: time.strftime(_GO_TIME[part.group()]), layout)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


_FUNCTIONS: Mapping[str, tuple[tuple[type, ...], Callable[..., Value]]] = {
    "random": ((int,), _random),
    "truncate": ((int, str), _truncate),
    "truncate_sha256": ((int, str), _truncate_sha256),
    "uppercase": ((str,), str.upper),
    "lowercase": ((str,), str.lower),
    "replace": ((str, str, str), lambda old, new, text: text.replace(old, new)),
    "sha256": ((str,), _sha256),
    "base64": ((str,), lambda text: base64.b64encode(text.encode()).decode()),
    "uuid": ((), lambda: str(uuid.uuid4())),
}
_CLOCK: Mapping[str, tuple[tuple[type, ...], Callable[..., str]]] = {
    "timestamp": ((str,), _timestamp),
    "unix_time": ((), lambda now: str(int(now))),
    "unix_time_millis": ((), lambda now: str(int(now * 1000))),
}
_NAMES = (*_FUNCTIONS, *_CLOCK, "printf")
