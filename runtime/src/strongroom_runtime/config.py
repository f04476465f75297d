"""Typed configuration: one frozen dataclass a process, filled from defaults, a file, the environment and flags.

Later sources win. The file is TOML with the fields' names; the environment has `STRONGROOM_<FIELD>`; flags
come from the command line. Field types may be str, int, float, bool, Path, `X | None` of these, and tuple[str, ...]
(comma-separated outside the file). A field named `..._seconds` says its unit.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from strongroom_runtime.files import reason

T = TypeVar("T")

_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


class ConfigError(Exception):
    """A setting is unknown or wrong. The text names it, where it stands, and what it takes."""


def load(
    kind: type[T],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> T:
    """Returns the configuration of a process.

    Args:
        kind: the frozen dataclass to fill.
        file: a TOML file; it must exist.
        environment: variables; those that begin with STRONGROOM_ but name no field are left alone, since
            one environment may serve several processes.
        flags: values by field name; None means not given.

    Raises:
        ConfigError: an unknown key in the file, a value of the wrong type, an unreadable file.
    """
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, object] = {}
    if file is not None:
        for name, value in _read(file).items():
            if name not in hints:
                raise ConfigError(f"{file}: unknown setting {name}; known: {', '.join(fields)}")
            values[name] = _convert(hints[name], value, f"{file}: {name}")
    for name in fields:
        variable = variable_of(name)
        if environment is not None and variable in environment:
            values[name] = _convert(hints[name], environment[variable], variable)
        flag = (flags or {}).get(name)
        if flag is not None:
            values[name] = _convert(hints[name], flag, f"--{name.replace('_', '-')}")
    return kind(**values)


def variable_of(name: str) -> str:
    """Returns the variable of the environment that gives a field."""
    return f"STRONGROOM_{name.upper()}"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config: {file}: {reason(error)}; it takes a file in TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _convert(hint: Any, value: object, where: str) -> object:
    """Returns a value as a field's type wants it. Errors do not repeat it: it may be a secret."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    if typing.get_origin(hint) is tuple:
        return _strings(value, where)
    if isinstance(value, bool) and hint is not bool:
        raise ConfigError(f"{where}: takes {_wanted(hint)}")
    if hint is bool:
        return _boolean(value, where)
    if hint is int and isinstance(value, float):
        raise ConfigError(f"{where}: takes a whole number")
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: takes {_wanted(hint)}") from None


def _strings(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ConfigError(f"{where}: takes a list of texts")


def _boolean(value: object, where: str) -> bool:
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise ConfigError(f"{where}: takes true or false")
    return text in _TRUE


def _wanted(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a text", Path: "a path"}[hint]
