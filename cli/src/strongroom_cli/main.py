"""The entry point: argument parsing. Each command loads what it needs when it runs, so that help is quick."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from strongroom_cli.options import server_options
from strongroom_cli.settings import SERVICES, ServerConfig, check, reachable


@click.group()
@click.version_option(package_name="strongroom-cli", prog_name="strongroom")
def main() -> None:
    """Strongroom: secrets management as gRPC microservices."""
    try:
        os.getcwd()
    except FileNotFoundError:
        # What starts here starts others, which find no folder of theirs, and cannot say which one is meant.
        raise click.ClickException(
            "the working folder was removed: go to one that is there, such as by `cd`, and try again"
        ) from None


@main.group()
def pki() -> None:
    """The internal certificate authority, for mutual TLS between services."""


@pki.command("init")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("strongroom-pki"),
    show_default=True,
    help="Where the CA and the certificates go.",
)
@click.option("--trust-domain", default="strongroom.internal", show_default=True)
@click.option(
    "--service",
    "services",
    multiple=True,
    default=("gateway", "auth", "kv", "transit", "dbcreds", "audit", "seal"),
    show_default=True,
    help="A service to make a certificate for; may be repeated.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A host name or address by which clients reach the gateway, or others etcd; may be repeated.",
)
def pki_init(
    folder: Path, trust_domain: str, services: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    """Create what is missing: the CA and one certificate for each service.

    Certificates of earlier versions, without one of the hosts, or in the last third of their life are issued anew,
    with the same key and for the hosts that they had as well.
    """
    from strongroom_runtime.transport import pki as authority

    try:
        made = authority.initialise(folder, trust_domain, services, hosts)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder}: " + (f"issued for {', '.join(made)}" if made else "nothing to issue"))


@main.group()
def etcd() -> None:
    """An outside etcd cluster."""


@etcd.command("users")
@click.option(
    "--password-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    default=Path("strongroom-etcd-passwords"),
    show_default=True,
    help="Where the passwords are, one file for each service and for root; those that are missing are made.",
)
@click.option(
    "--apply",
    "endpoints",
    metavar="HOST:PORT,...",
    default="",
    help="Do it at this cluster instead, root and turning access control on included.",
)
@click.option(
    "--keep-rights",
    is_flag=True,
    help="Take none away: while processes of the release before still run.",
)
@click.option(
    "--etcd-pki-dir",
    "pki_folder",
    envvar="STRONGROOM_ETCD_PKI_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="ca.pem, client.pem and client.key for it.",
)
def etcd_users(folder: Path, endpoints: str, keep_rights: bool, pki_folder: Path | None) -> None:
    """Print the etcdctl commands that make a user for each service, limited to the keys that it needs.

    With --apply, the users and their rights are made here, and brought up to date where they are there already:
    passwords to those in the files, rights to those of this release.
    """
    import asyncio

    from strongroom_cli import outside_etcd
    from strongroom_runtime.errors import ServiceError

    try:
        outside_etcd.make_passwords(folder, SERVICES)
        if not endpoints:
            click.echo("\n".join(outside_etcd.commands(folder)))
            return
        cluster = outside_etcd.reached(tuple(endpoints.split(",")), pki_folder)
        changes = asyncio.run(outside_etcd.apply(folder, cluster, keep_rights=keep_rights))
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error
    except (ServiceError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(changes or ["nothing to change"]))


@main.group()
def audit() -> None:
    """Audit files."""


@audit.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--chains",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What `bao read -format=json sys/audit-chains` said before the files were copied; may be repeated,"
    " with older answers too.",
)
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    help="A key that is known to be the platform's, as 64 hexadecimal digits or a file that has them; may be"
    " repeated. Else all that --chains names are believed.",
)
@click.option("--since", default="", help="From when on the files are complete. Else always.")
@click.option("--device", "devices", multiple=True, help="Only this device's; may be repeated.")
@click.option(
    "--unsealed-until",
    default="",
    help="Until when a version that sealed nothing ran. Else until the first key was made.",
)
def audit_verify(**options: Any) -> None:
    """Check that a log is as it was written, and that nothing of it is missing.

    FILES may come in any order, compressed with gzip or not. Times are RFC 3339 or seconds since 1970. Exits 0 where
    all holds, 1 where something was changed or is missing, 2 where the files or options cannot be used.
    """
    from strongroom_cli import audit_verify as command

    sys.exit(command.run(**options))


@main.group()
def transit() -> None:
    """Work in bulk with the keys of transit, over gRPC."""


@transit.command("rewrap")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", required=True, help="The key that the ciphertexts are of.")
@click.option("--mount", default="transit", show_default=True, help="The path of its mount.")
@click.option("--key-version", default=0, help="The version to encrypt with; 0 for the latest.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "lines", "csv", "jsonl"]),
    default="auto",
    show_default=True,
    help="auto goes by the name of SOURCE: .csv, .jsonl or .ndjson, else lines.",
)
@click.option("--column", default="", help="Of CSV or JSON Lines: where the ciphertexts are.")
@click.option("--context-column", default="", help="The contexts of derived keys, base64.")
@click.option("--associated-data-column", default="", help="The associated data, base64.")
@click.option("--delimiter", default=",", show_default=True, help="Between the fields of CSV.")
@click.option(
    "--address",
    envvar="STRONGROOM_GRPC_ADDR",
    default="127.0.0.1:8202",
    show_default=True,
    help="HOST:PORT of the gateway's gRPC listener.",
)
@click.option(
    "--ca-cert",
    envvar=["STRONGROOM_CACERT", "BAO_CACERT", "VAULT_CACERT"],
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CA of its certificate; else the machine's.",
)
@click.option("--no-tls", is_flag=True, help="Speak plain text; to loopback only.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Has the token; read again for each new stream. Else STRONGROOM_TOKEN, BAO_TOKEN or VAULT_TOKEN has it.",
)
def transit_rewrap(**options: Any) -> None:
    """Encrypt the ciphertexts in SOURCE anew, into TARGET, which may be the same file.

    Needs `update` on MOUNT/rewrap/KEY. The same command goes on where one that was interrupted ended. A record that
    cannot be rewrapped stays as it is and is named in TARGET.rewrap.errors; the command then exits 1.
    """
    from strongroom_cli.rewrap import command

    sys.exit(command.run(**options))


def _config(flags: dict[str, Any], **defaults: Any) -> ServerConfig:
    """Returns the configuration from file, environment and flags; ends with a clear text where it is wrong."""
    from strongroom_runtime.config import ConfigError, load

    file = flags.pop("config", None)
    try:
        environment = dict(os.environ)
        given = {name: value for name, value in flags.items() if value is not None}
        config = load(ServerConfig, file=file, environment=environment, flags={**defaults, **given})
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    wrong = check(config, environment)
    if wrong:
        raise click.ClickException("\n".join(wrong))
    return config


@main.command()
@server_options()
@click.option("--split", is_flag=True, default=None, help="Each service is a process of its own.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written as JSON when ready.")
def server(ready_file: Path | None, **flags: Any) -> None:
    """Run the platform, or some of its services, on this machine."""
    poll_in_waiting_threads()  # servers are copies of this process
    from strongroom_cli import platform

    config = _config(flags)
    start = platform.Start(initialise=config.seal == "static", furnish=True, ready_file=ready_file)
    sys.exit(platform.run(config, start))


def _root_token(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Returns the text, where it can be a token and go over either wire.

    Raises:
        click.BadParameter: it cannot; said before anything is started.
    """
    if "." in value or not all("!" <= character <= "~" for character in value):
        raise click.BadParameter(
            "takes printable ASCII without spaces, and without dots, by which tokens that are made are known"
        )
    return value


@main.command()
@server_options(data_dir="a temporary folder", log_level="warning")
@click.option("--split", is_flag=True, default=None, help="Each service is a process of its own.")
@click.option("--no-tls", is_flag=True, help="Serve plain text; on loopback only.")
@click.option("--root-token", default="", callback=_root_token, help="The root token to make.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written as JSON when ready.")
def dev(no_tls: bool, root_token: str, ready_file: Path | None, **flags: Any) -> None:
    """Run a platform for trying out: initialised, unsealed, with secret/ and an audit file."""
    poll_in_waiting_threads()  # servers are copies of this process
    from strongroom_cli import platform

    start = platform.Start(
        initialise=True,
        furnish=True,
        root_token=root_token,
        ready_file=ready_file,
        development=True,
    )
    if no_tls:
        flags["tls"] = "false"
    with tempfile.TemporaryDirectory(prefix="strongroom-dev-") as folder:
        config = _config(flags, data_dir=folder, log_level="warning")
        status = platform.run(config, start)
    sys.exit(status)


def poll_in_waiting_threads() -> None:
    """Lets gRPC, before it is loaded, poll its sockets in the thread that waits for them, not in threads of its own.

    It long did so, and each message crosses one thread less. See decision 0008; a release that knows these names no
    more goes on.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")


@main.command("serve-one")
@server_options()
def serve_one(**flags: Any) -> None:
    """Run some services in this one process: for containers, and what else starts it anew when it ends.

    Unlike `server` it makes no certificates, keys or etcd and initialises nothing: all must be given.
    """
    # What ends a container may come before there is an event loop, and its first process has no default for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    poll_in_waiting_threads()
    from strongroom_cli import serve

    sys.exit(serve.run(_config(flags)))


@main.command()
@click.option(
    "--health-listen",
    "address",
    envvar="STRONGROOM_HEALTH_LISTEN",
    required=True,
    help="HOST:PORT where the process tells it.",
)
@click.option("--ready", is_flag=True, help="Whether it is unsealed and takes calls, too.")
def health(address: str, ready: bool) -> None:
    """Ask a process on this machine whether it is well; exits 1 where it is not."""
    import http.client

    path = "/ready" if ready else "/live"
    connection = http.client.HTTPConnection(reachable(address), timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"{address}: does not answer ({type(error).__name__})") from None
    finally:
        connection.close()
    click.echo(text)
    sys.exit(0 if status == 200 else 1)


if __name__ == "__main__":
    main()
