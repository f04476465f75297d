"""The loggers of this process, and their levels (Vault documentation, "/sys/loggers")."""

import logging

from strongroom_runtime.errors import invalid

# As operators name them; Python has fewer.
LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "notice": logging.INFO,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "err": logging.ERROR,
    "error": logging.ERROR,
}
_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
}


def names() -> list[str]:
    """Returns the names of the platform's loggers; those of libraries are of no use to operators."""
    known = logging.root.manager.loggerDict
    return sorted(
        name
        for name, logger in known.items()
        if name.startswith("strongroom_") and isinstance(logger, logging.Logger)
    )


def level(name: str) -> str:
    """Returns the level that counts for a logger."""
    effective = logging.getLogger(name).getEffectiveLevel()
    return _NAMES.get(effective, logging.getLevelName(effective).lower())


def set_level(name: str, text: str) -> None:
    """Sets the level of one logger; an empty text gives it what was configured.

    Raises:
        ServiceError: INVALID where there is no such logger or level.
    """
    if name not in names():
        raise invalid("name: there is no logger of that name")
    logging.getLogger(name).setLevel(parse(text) if text else logging.NOTSET)


def set_all(text: str) -> None:
    """Sets the level of all loggers; an empty text gives them what was configured.

    Raises:
        ServiceError: INVALID where there is no such level.
    """
    number = parse(text) if text else logging.NOTSET
    for name in names():
        logging.getLogger(name).setLevel(number)


def parse(text: str) -> int:
    """Returns the level of a name.

    Raises:
        ServiceError: INVALID where there is none, or no name.
    """
    if not text:
        raise invalid("level is required")
    number = LEVELS.get(text.lower())
    if number is None:
        raise invalid(f"level: takes one of {', '.join(LEVELS)}")
    return number
