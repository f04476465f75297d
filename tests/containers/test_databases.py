"""The drivers' suite against databases in containers, and TLS to them."""

import asyncio
import contextlib
import datetime
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer

from strongroom_dbcreds.credentials import Credentials, Made
from strongroom_dbcreds.domain.usernames import Known
from strongroom_dbcreds.drivers import PLUGINS
from strongroom_dbcreds.drivers.base import Driver, NewUser, Password
from strongroom_dbcreds.policies import PasswordPolicies
from strongroom_dbcreds.records import Connection, Role
from strongroom_runtime.errors import Kind, ServiceError
from tests.conformance.test_drivers import connection_to
from tests.containers import ferretdb
from tests.containers.certificates import Pair, authority, issued
from tests.containers.cluster import ROOT, build
from tests.fakes.store import MemoryStore
from tests.ports import free_port

IMAGES = ROOT / "tests" / "containers" / "images"
PASSWORD = "container-Password-1"


@pytest.fixture(scope="module")
def ca() -> Pair:
    return authority("databases")


def server(name: str, port: int, **environment: str) -> tuple[DockerContainer, int]:
    image = build("Dockerfile", f"strongroom-{name}:test", IMAGES / name)
    published = free_port()
    container = DockerContainer(image).with_bind_ports(port, published)
    for variable, value in environment.items():
        container = container.with_env(variable, value)
    return container, published


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, str]]:
    """MariaDB and Redis; returns the variables that name them."""
    mariadb, mysql_port = server("mariadb", 3306, MARIADB_ROOT_PASSWORD=PASSWORD)
    redis, redis_port = server("redis", 6379, REDIS_PASSWORD=PASSWORD)
    with mariadb, redis:
        yield {
            "STRONGROOM_TEST_MYSQL": f"mysql://root:{PASSWORD}@127.0.0.1:{mysql_port}",
            "STRONGROOM_TEST_VALKEY": f"redis://default:{PASSWORD}@127.0.0.1:{redis_port}",
        }


@pytest.fixture(scope="module")
def tls(ca: Pair) -> Iterator[dict[str, Connection]]:
    """PostgreSQL, MariaDB and Redis that take TLS alone, by kind."""
    pair = issued(ca, "server", "127.0.0.1")
    files = {
        "TLS_CERTIFICATE": pair.certificate,
        "TLS_KEY": pair.key,
        "TLS_CA": ca.certificate,
    }
    postgresql, pg_port = server("postgresql", 5432, POSTGRES_PASSWORD=PASSWORD, **files)
    mariadb, mysql_port = server("mariadb", 3306, MARIADB_ROOT_PASSWORD=PASSWORD, **files)
    redis, redis_port = server("redis", 6379, REDIS_PASSWORD=PASSWORD, **files)
    urls = {
        "postgresql": (
            "postgres",
            f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{pg_port}/postgres",
        ),
        "mysql": ("root", f"{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{mysql_port})/"),
    }
    valkey = {"host": "127.0.0.1", "port": redis_port, "tls": True, "username": "default"}
    with postgresql, mariadb, redis:
        yield {
            kind: Connection(
                f"{kind}-database-plugin",
                {"connection_url": url, "username": user, "password": PASSWORD},
            )
            for kind, (user, url) in urls.items()
        } | {"valkey": Connection("valkey-database-plugin", {**valkey, "password": PASSWORD})}


def opened(connection: Connection, **details: str) -> Driver:
    return PLUGINS[connection.plugin](
        Connection(connection.plugin, {**connection.details, **details})
    )


async def eventually(driver: Driver) -> None:
    """Waits until a database that is starting lets its user in."""
    for attempt in range(240):
        try:
            await driver.verify()
            return
        except ServiceError as error:
            assert error.kind is Kind.UNAVAILABLE and attempt < 239, error.message
        await asyncio.sleep(0.5)


async def test_the_suite_of_the_drivers(plain: dict[str, str]) -> None:
    for kind in ("mysql", "valkey"):
        known = connection_to(kind, plain[f"STRONGROOM_TEST_{kind.upper()}"])
        driver = PLUGINS[known.plugin](known)
        await eventually(driver)
        await driver.close()
    _run_suite("mysql or valkey", plain)


def _run_suite(which: str, servers: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-k", which, "tests/conformance/test_drivers.py"],
        env=os.environ | servers, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert "names no server" not in done.stdout


@pytest.fixture(scope="module")
def ferret() -> Path:
    program = ferretdb.built()
    if program is None:
        pytest.skip("FerretDB cannot be built here, and MongoDB cannot be had")
    return program


def test_the_suite_of_the_drivers_on_ferretdb(ferret: Path) -> None:
    with ferretdb.ferretdb(ferret) as port:
        url = f"mongodb://{ferretdb.USER}:{ferretdb.PASSWORD}@127.0.0.1:{port}"
        _run_suite("ferretdb", {"STRONGROOM_TEST_FERRETDB": url})


async def test_the_certificate_of_mongodb_is_checked(ferret: Path, ca: Pair) -> None:
    with ferretdb.ferretdb(ferret, issued(ca, "server", "127.0.0.1")) as port:
        url = f"mongodb://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/admin"
        details = {"username": ferretdb.USER, "password": ferretdb.PASSWORD, "connection_url": url}
        known = Connection("mongodb-database-plugin", details)
        good = opened(known, tls_ca=ca.certificate)
        await eventually(good)
        await good.close()
        bad = opened(known, tls_ca=authority("others").certificate)
        with pytest.raises(ServiceError) as caught:
            await bad.verify()
        assert caught.value.kind is Kind.UNAVAILABLE
        assert "verify failed" in caught.value.message
        await bad.close()


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "valkey"])
async def test_the_certificate_of_a_database_is_checked(
    tls: dict[str, Connection], ca: Pair, kind: str
) -> None:
    authorities = "ca_cert" if kind == "valkey" else "tls_ca"
    good = opened(tls[kind], **{authorities: ca.certificate})
    await eventually(good)
    await good.close()
    bad = opened(tls[kind], **{authorities: authority("others").certificate})
    with pytest.raises(ServiceError) as caught:
        await bad.verify()
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "verify failed" in caught.value.message.lower()
    await bad.close()


async def test_a_client_certificate_logs_in(tls: dict[str, Connection], ca: Pair) -> None:
    admin = opened(tls["postgresql"], tls_ca=ca.certificate)
    await eventually(admin)
    statements = ('CREATE ROLE "own-certificate" LOGIN IN ROLE certified',)
    with contextlib.suppress(ServiceError):  # another test made it
        await admin.change_credential(("CREATE ROLE certified",), "postgres", Password("x"))
    await admin.change_credential(statements, "postgres", Password("not-used"))
    await admin.close()
    pair = issued(ca, "own-certificate")
    url = str(tls["postgresql"].details["connection_url"]).replace(
        "{{username}}:{{password}}", "own-certificate"
    )
    own = opened(
        tls["postgresql"], connection_url=url, username="", password="", tls_ca=ca.certificate,
        tls_certificate=pair.certificate, private_key=pair.key,
    )  # fmt: skip
    await own.verify()
    await own.close()


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
async def test_users_log_in_with_certificates_that_are_made_for_them(
    tls: dict[str, Connection], ca: Pair, kind: str
) -> None:
    admin = opened(tls[kind], tls_ca=ca.certificate)
    await eventually(admin)
    if kind == "postgresql":
        with contextlib.suppress(ServiceError):  # another test made it
            await admin.change_credential(("CREATE ROLE certified",), "postgres", Password("x"))
        creation = 'CREATE ROLE "{{name}}" LOGIN IN ROLE certified'
    else:
        creation = "CREATE USER '{{name}}'@'%' REQUIRE SUBJECT '{{subject}}'"
    role = Role(
        "db",
        credential_type="client_certificate",
        credential_config={"ca_cert": ca.certificate, "ca_private_key": ca.key, "key_type": "ec"},
    )
    now = time.time()
    store = PasswordPolicies(MemoryStore())
    made, other = [
        await Credentials(store).make(tls[kind], role, Known("token", "app", now), now + 600)
        for _ in range(2)
    ]
    later = datetime.datetime.fromtimestamp(now + 600, datetime.UTC)
    await admin.create_user((creation,), NewUser(made.username, made.credential, later))
    try:
        await _as_certified(tls[kind], ca, made.username, made)
        # The certificate of somebody else, and none.
        for wrong in (other, None):
            with pytest.raises(ServiceError) as caught:
                await _as_certified(tls[kind], ca, made.username, wrong)
            assert caught.value.kind is Kind.UNAVAILABLE
    finally:
        await admin.drop_user((), made.username)
    with pytest.raises(ServiceError):
        await _as_certified(tls[kind], ca, made.username, made)
    await admin.close()


async def _as_certified(connection: Connection, ca: Pair, username: str, made: Made | None) -> None:
    """Logs in with a certificate and no password."""
    details: dict[str, str] = {"username": username, "password": "", "tls_ca": ca.certificate}
    if connection.plugin.startswith("postgresql"):
        url = str(connection.details["connection_url"])
        details["connection_url"] = url.replace("{{username}}:{{password}}", "{{username}}")
        names = ("tls_certificate", "private_key")
    else:
        names = ("tls_certificate_key",) * 2
    if made is not None:
        for name, secret in zip(names, ("client_certificate", "private_key"), strict=True):
            details[name] = details.get(name, "") + made.secrets[secret]
    driver = opened(connection, **details)
    try:
        await driver.verify()
    finally:
        await driver.close()


async def test_the_name_of_a_certificate_can_be_given(tls: dict[str, Connection], ca: Pair) -> None:
    good = opened(tls["mysql"], tls_ca=ca.certificate, tls_server_name="127.0.0.1")
    await eventually(good)
    await good.close()
    bad = opened(tls["mysql"], tls_ca=ca.certificate, tls_server_name="other.example")
    with pytest.raises(ServiceError) as caught:
        await bad.verify()
    assert "other.example" in caught.value.message
    await bad.close()
