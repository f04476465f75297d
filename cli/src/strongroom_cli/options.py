"""The settings of a server as options of the command line."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from strongroom_cli.settings import ServerConfig

_Command = Callable[..., Any]
_TAKES = {int: "NUMBER", float: "NUMBER", bool: "[true|false]", Path: "PATH"}
# What a supervisor tells its processes, and people have no use for.
_INTERNAL = ("member",)
_NOTHING: tuple[object, ...] = (None, "", ())


def server_options(**defaults: str) -> Callable[[_Command], _Command]:
    """Returns what adds an option for each setting of a server to a command.

    All take a text and have no default: what is not given stands in the environment or a file, and
    `strongroom_runtime.config` reads all three alike.

    Args:
        defaults: by settings, what help says of those for which the command has a default of its own.
    """

    def add(command: _Command) -> _Command:
        hints = typing.get_type_hints(ServerConfig)
        for field in reversed(dataclasses.fields(ServerConfig)):
            if field.name == "split":
                continue  # a flag, and not of every command
            command = click.option(
                f"--{field.name.replace('_', '-')}",
                metavar=_takes(field, hints[field.name]),
                help=_help(field, defaults),
                hidden=field.name in _INTERNAL,
            )(command)
        return click.option(
            "--config", type=click.Path(path_type=Path), help="A TOML file with these settings."
        )(command)

    return add


def _takes(field: "dataclasses.Field[Any]", hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        (hint,) = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    if field.name.endswith("_seconds"):
        return "SECONDS"
    return str(field.metadata["takes"] or _TAKES[hint])


def _help(field: "dataclasses.Field[Any]", defaults: Mapping[str, str]) -> str:
    """Returns what a setting means, with its default where the text does not say what holds without it."""
    text = str(field.metadata["text"])
    if field.default in _NOTHING and field.name not in defaults:
        return text
    default = defaults.get(field.name, field.default)
    if isinstance(default, bool | float):
        default = f"{default:g}" if isinstance(default, float) else str(default).lower()
    return f"{text}  [default: {default}]"
