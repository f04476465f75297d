"""The entry point: argument parsing. Each command loads what it needs when it runs, so that help is quick."""

from pathlib import Path

import click


@click.group()
@click.version_option(package_name="strongroom-cli", prog_name="strongroom")
def main() -> None:
    """Strongroom: secrets management as gRPC microservices."""


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
    default=("gateway", "auth", "kv", "audit", "seal"),
    show_default=True,
    help="A service to make a certificate for; may be repeated.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A host name or address that the services are reached by; may be repeated.",
)
def pki_init(
    folder: Path, trust_domain: str, services: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    """Create what is missing: the CA and one certificate for each service."""
    from strongroom_runtime.transport import pki as authority

    try:
        authority.initialise(folder, trust_domain, services, hosts)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{folder}: {error}") from error
    click.echo(f"{folder}: CA and certificates for {', '.join(services)}")
