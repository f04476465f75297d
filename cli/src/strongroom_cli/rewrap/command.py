"""What the command line asks for, done, and said on the terminal."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import grpc

from strongroom_cli.rewrap import job
from strongroom_cli.rewrap.job import JobError, Progress, Task
from strongroom_cli.rewrap.records import Columns, Csv, Format, FormatError, JsonLines, Lines
from strongroom_cli.settings import is_loopback
from strongroom_client.bulk import BulkTransit
from strongroom_runtime.transport.credentials import DIRECTLY

_TOKENS = ("STRONGROOM_TOKEN", "BAO_TOKEN", "VAULT_TOKEN")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_REASONS = {
    grpc.StatusCode.PERMISSION_DENIED: "the token may not do this (any more)",
    grpc.StatusCode.UNAVAILABLE: "the platform cannot be reached",
}


def run(
    *,
    source: Path,
    target: Path,
    key: str,
    mount: str,
    key_version: int,
    form: str,
    column: str,
    context_column: str,
    associated_data_column: str,
    delimiter: str,
    address: str,
    ca_cert: Path | None,
    no_tls: bool,
    token_file: Path | None,
) -> int:
    """Does what the options say; returns the exit status.

    Raises:
        click.ClickException: it cannot be done, or not to its end.
    """
    columns = Columns(column, context_column, associated_data_column)
    name = form if form != "auto" else _SUFFIXES.get(source.suffix.lower(), "lines")
    task = Task(
        source,
        target,
        _format(name, columns, delimiter),
        key,
        key_version,
        {"mount": mount.strip("/"), "format": f"{name} {columns} {delimiter!r}"},
    )
    token = _token(token_file)
    with click.progressbar(
        length=source.stat().st_size, label="Rewrapping", file=sys.stderr, show_pos=False
    ) as bar:
        try:
            progress = asyncio.run(_over(address, ca_cert, no_tls, mount, token, task, bar.update))
        except (JobError, FormatError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from None
        except grpc.aio.AioRpcError as error:
            reason = _REASONS.get(error.code(), error.code().name)
            raise click.ClickException(
                f"{reason}: {error.details()}; the same command goes on from here"
            ) from None
    return _report(task, progress)


async def _over(
    address: str,
    ca_cert: Path | None,
    no_tls: bool,
    mount: str,
    token: Callable[[], str],
    task: Task,
    moved: Callable[[int], None],
) -> Progress:
    async with _channel(address, ca_cert, no_tls) as channel:
        return await job.run(task, BulkTransit(channel, token, mount), moved)


def _channel(address: str, ca_cert: Path | None, no_tls: bool) -> grpc.aio.Channel:
    # As other clients do, and unlike gRPC by itself: a proxy of the environment is not asked for this machine.
    options = DIRECTLY if is_loopback(address) else ()
    if not no_tls:
        authority = ca_cert.read_bytes() if ca_cert is not None else None
        credentials = grpc.ssl_channel_credentials(authority)
        return grpc.aio.secure_channel(address, credentials, options=options)
    if not is_loopback(address):
        raise click.ClickException("--no-tls: is for loopback only")
    return grpc.aio.insecure_channel(address, options=options)


def _format(name: str, columns: Columns, delimiter: str) -> Format:
    if name == "lines":
        if any((columns.ciphertext, columns.context, columns.associated_data)):
            raise click.ClickException("--column: is for CSV and JSON Lines")
        return Lines()
    if not columns.ciphertext:
        raise click.ClickException(f"--column: is needed for {name}")
    if name == "jsonl":
        return JsonLines(columns)
    if len(delimiter) != 1:
        raise click.ClickException("--delimiter: takes one character")
    return Csv(columns, delimiter)


def _token(file: Path | None) -> Callable[[], str]:
    if file is not None:
        return lambda: file.read_text().strip()
    for name in _TOKENS:
        if text := os.environ.get(name):
            return lambda: text
    raise click.ClickException(f"no token: use --token-file, or set {' or '.join(_TOKENS)}")


def _report(task: Task, progress: Progress) -> int:
    done = progress.records - progress.failed
    click.echo(f"{task.target}: {done} records rewrapped or passed over, {progress.failed} failed")
    if progress.failed:
        click.echo(f"{task.beside('rewrap.errors')} says which and why; they are as they were")
    return 1 if progress.failed else 0
