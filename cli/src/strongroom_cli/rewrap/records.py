"""Files with ciphertexts in them: one a line, or one a record of CSV or JSON Lines.

What is beside the ciphertext stays as it is, byte for byte in JSON Lines; CSV is quoted where it has to be.
"""

import base64
import binascii
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import msgspec

_MAX_FIELD = 16 << 20


class FormatError(Exception):
    """A file is not what it was said to be. The text says where and how."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Args:
        number: from 1.
        end: where the file goes on behind it, in bytes.
        ciphertext: empty for none.
        context: for derived keys.
        associated_data: authenticated with the ciphertext.
        whole: what the format needs to write it.
    """

    number: int
    end: int
    ciphertext: str
    context: bytes = b""
    associated_data: bytes = b""
    whole: Any = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a record things are: names of columns of CSV or of members in JSON Lines; empty for nowhere."""

    ciphertext: str
    context: str = ""
    associated_data: str = ""


class Format(Protocol):
    """A kind of file."""

    def begin(self, file: BinaryIO) -> bytes:
        """Reads what stands before the records, and returns what the new file begins with."""
        ...

    def records(self, file: BinaryIO, number: int) -> Iterator[Record]:
        """Yields the records from where the file stands; the first has this number.

        Raises:
            FormatError: one is malformed.
        """
        ...

    def written(self, record: Record, ciphertext: str) -> bytes:
        """Returns a record with another ciphertext, or (empty) as it was."""
        ...


class Lines:
    """One ciphertext a line."""

    def begin(self, file: BinaryIO) -> bytes:
        """Nothing stands before the records."""
        return b""

    def records(self, file: BinaryIO, number: int) -> Iterator[Record]:
        """Yields the lines."""
        for at, end, line in _numbered(file, number):
            text = line.strip()
            if not text.isascii():
                raise FormatError(f"line {at}: is no ciphertext")
            yield Record(at, end, text.decode(), whole=line)

    def written(self, record: Record, ciphertext: str) -> bytes:
        """Returns a line."""
        line: bytes = record.whole
        return line if not ciphertext else ciphertext.encode() + line[len(line.rstrip()) :]


class JsonLines:
    """An object of JSON a line."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def begin(self, file: BinaryIO) -> bytes:
        """Nothing stands before the records."""
        return b""

    def records(self, file: BinaryIO, number: int) -> Iterator[Record]:
        """Yields the objects."""
        for at, end, line in _numbered(file, number):
            if not line.strip():
                yield Record(at, end, "", whole=(line, {}))
                continue
            try:
                members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                read = [_text(members, name) for name in _names(self._columns)]
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FormatError(f"line {at}: {error}") from None
            yield _record(at, end, read, (line, members), f"line {at}")

    def written(self, record: Record, ciphertext: str) -> bytes:
        """Returns an object; members keep their places, and the others their very bytes."""
        line, members = record.whole
        if not ciphertext:
            return bytes(line)
        new = msgspec.Raw(msgspec.json.encode(ciphertext))
        ending: bytes = line[len(line.rstrip(b"\r\n")) :]
        return msgspec.json.encode({**members, self._columns.ciphertext: new}) + ending


class Csv:
    """CSV (RFC 4180) with a line of names.

    Args:
        columns: their names.
        delimiter: between fields.
    """

    def __init__(self, columns: Columns, delimiter: str = ",") -> None:
        self._columns = columns
        self._delimiter = delimiter
        self._places: list[int] = []
        self._ending = "\n"
        csv.field_size_limit(_MAX_FIELD)

    def begin(self, file: BinaryIO) -> bytes:
        """Reads the line of names.

        Raises:
            FormatError: it does not have those that are needed.
        """
        line = file.readline()
        self._ending = "\r\n" if line.endswith(b"\r\n") else "\n"
        names = next(csv.reader([_decoded(line, 1)], delimiter=self._delimiter), [])
        names = [name.removeprefix("\ufeff") for name in names]
        for name in _names(self._columns):
            if name and name not in names:
                raise FormatError(f"line 1: has no column {name!r}, but {', '.join(names)}")
        self._places = [names.index(name) if name else -1 for name in _names(self._columns)]
        return line

    def records(self, file: BinaryIO, number: int) -> Iterator[Record]:
        """Yields the records."""
        end = file.tell()

        def lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                end += len(line)
                yield _decoded(line, at)

        at = number
        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise FormatError(f"record {at}: {error}") from None
            if fields is None:
                return
            if fields and len(fields) <= max(self._places):
                raise FormatError(f"record {at}: has {len(fields)} fields only")
            read = [fields[place] if fields and place >= 0 else "" for place in self._places]
            yield _record(at, end, read, fields, f"record {at}")
            at += 1

    def written(self, record: Record, ciphertext: str) -> bytes:
        """Returns a record."""
        fields = list(record.whole)
        if ciphertext:
            fields[self._places[0]] = ciphertext
        output = io.StringIO(newline="")
        csv.writer(output, delimiter=self._delimiter, lineterminator=self._ending).writerow(fields)
        return output.getvalue().encode()


def _numbered(file: BinaryIO, number: int) -> Iterator[tuple[int, int, bytes]]:
    """Yields the lines of a file from where it stands: each with its number and where it ends."""
    end = file.tell()
    for at, line in enumerate(file, number):
        end += len(line)
        yield at, end, line


def _names(columns: Columns) -> tuple[str, str, str]:
    return columns.ciphertext, columns.context, columns.associated_data


def _text(members: dict[str, msgspec.Raw], name: str) -> str:
    if not name or name not in members:
        return ""
    return msgspec.json.decode(members[name], type=str | None) or ""


def _record(number: int, end: int, read: list[str], whole: Any, where: str) -> Record:
    ciphertext, context, associated_data = read
    try:
        return Record(
            number,
            end,
            ciphertext,
            base64.b64decode(context, validate=True),
            base64.b64decode(associated_data, validate=True),
            whole,
        )
    except (binascii.Error, ValueError):
        raise FormatError(f"{where}: context and associated data must be base64") from None


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise FormatError(f"record {number}: is not UTF-8") from None
