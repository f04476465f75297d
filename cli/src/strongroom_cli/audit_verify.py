"""`strongroom audit verify`: reads the files, and says what holds of them."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import click

from strongroom_audit.domain import evidence
from strongroom_audit.domain.keys import is_public
from strongroom_audit.domain.verification import ChainReport, Expectation, Report, Verifier
from strongroom_runtime.timestamps import parse_time

_GZIP = b"\x1f\x8b"
_LONGEST_LINE = 1 << 29  # what a request may hold makes no longer entry
_SHOWN, _SHOWN_KEYS = 100, 10


class UnusableError(click.ClickException):
    """A file or an option that nothing can be verified with."""

    exit_code = 2


def run(
    *,
    files: tuple[Path, ...],
    chains: tuple[Path, ...],
    public_keys: tuple[str, ...],
    since: str,
    devices: tuple[str, ...],
    unsealed_until: str,
) -> int:
    """Does what the options say; returns the exit status.

    Raises:
        UnusableError: files or options cannot be used.
    """
    expectation = Expectation(
        anchors=[_key(each) for each in public_keys],
        answers=[_answer(each) for each in chains],
        since=_time("--since", since),
        unsealed_until=_time("--unsealed-until", unsealed_until),
        devices=[device.strip("/") + "/" for device in devices],
    )
    verifier = Verifier(expectation)
    for file in files:
        _check(file)
    for file in files:
        _read(file, verifier)
    report = verifier.report()
    _show(report, expectation)
    return 1 if report.problems else 0


def _read(file: Path, verifier: Verifier) -> None:
    read = 0

    def counted() -> Iterator[bytes]:
        nonlocal read
        for line in _lines(file):
            read += 1
            yield line

    try:
        verifier.read(str(file), counted())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        verifier.problem(str(file), read, f"the compressed file is damaged behind this: {error}")
    except OSError as error:
        raise UnusableError(f"{file}: {error.strerror or error}") from None


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as plain:
        if plain.peek(2)[:2] == _GZIP:
            with gzip.open(plain) as unpacked:
                buffered = io.BufferedReader(unpacked, 1 << 20)
                yield from iter(lambda: buffered.readline(_LONGEST_LINE), b"")
        else:
            yield from iter(lambda: plain.readline(_LONGEST_LINE), b"")


def _check(file: Path) -> None:
    """Raises before hours of reading where a file cannot be read."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UnusableError(f"{file}: {error.strerror}") from None


def _key(text: str) -> str:
    if not is_public(text):
        try:
            text = Path(text).read_text().strip().lower()
        except (OSError, ValueError):
            text = ""
    if not is_public(text):
        raise UnusableError("--public-key: takes 64 hexadecimal digits, or a file that has them")
    return text


def _answer(file: Path) -> evidence.Evidence:
    try:
        return evidence.parse(file.read_bytes())
    except OSError as error:
        raise UnusableError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UnusableError(f"{file}: {error}") from None


def _time(option: str, text: str) -> float | None:
    try:
        return parse_time(text) if text else None
    except ValueError as error:
        raise UnusableError(f"{option}: {error}") from None


def _show(report: Report, expectation: Expectation) -> None:
    for chain in report.chains[:_SHOWN]:
        _say(_described(chain))
    _more(len(report.chains) - _SHOWN, "chains")
    for believed in (True, False):
        keys = [key for key, each in report.keys.items() if each is believed]
        for key in keys[:_SHOWN_KEYS]:
            _say(f"key {key}: {_vouched(believed, expectation)}")
        _more(len(keys) - _SHOWN_KEYS, f"keys, {_vouched(believed, expectation)}")
    for notice in report.notices[:_SHOWN]:
        _say(f"note: {notice}")
    _more(len(report.notices) - _SHOWN, "notes")
    if not expectation.answers:
        _say(
            "note: without --chains it does not show when the end of a chain, or a whole chain, is missing"
        )
    for problem in report.problems[:_SHOWN]:
        _say(f"PROBLEM: {problem}")
    count = len(report.problems) + report.more_problems
    _more(count - _SHOWN, "problems")
    first = next((each for each in report.problems if each.line), None)
    at = f", the first bad line is {first.file}:{first.line}" if first else ""
    what = f"{report.lines} entries in {len(report.chains)} chains"
    _say(f"NOT INTACT: {what}, {count} problems{at}" if count else f"intact: {what}")


def _say(text: str) -> None:
    # What stands in a file that somebody tampered with must not steer the terminal.
    click.echo(
        "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    )


def _described(chain: ChainReport) -> str:
    device = f" ({chain.device.rstrip('/')})" if chain.device else ""
    text = f"chain {chain.writer}{device}: entries {chain.first} to {chain.last}, {chain.began} to {chain.until}; "
    if not chain.keyed:
        text += "no seals"
    elif not chain.unsealed:
        text += "all sealed"
    else:
        text += f"{chain.unsealed} behind the last seal"
    text += ", ended" if chain.ended else ""
    return text + (f", {chain.recorded} recorded by the platform" if chain.recorded else "")


def _vouched(believed: bool, expectation: Expectation) -> str:
    if expectation.anchors:
        return "vouched for by --public-key" if believed else "NOT vouched for by --public-key"
    if expectation.answers:
        return "named by the platform" if believed else "NOT named by the platform"
    return "nobody vouches for it; --public-key or --chains would"


def _more(count: int, what: str) -> None:
    if count > 0:
        _say(f"… and {count} more {what}")
