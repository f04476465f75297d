"""deploy/compose.yaml: every service a container of its own, on three etcd members with TLS and users."""

import re
import secrets
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import hvac
import pytest
import requests
from testcontainers.core.container import DockerContainer

from strongroom_cli.settings import SERVICES
from tests.containers.cluster import ROOT, build
from tests.containers.composed import Composition
from tests.containers.writer import Writer
from tests.integration.platforms import b64, until
from tests.ports import free_port

FILE = ROOT / "deploy" / "compose.yaml"
AUDIT_LOG = "/var/log/strongroom/audit.log"
PASSWORD = "container-Password-1"
MEMBERS = ("etcd-0", "etcd-1", "etcd-2")


@dataclass
class Composed:
    """The platform as the file starts it."""

    containers: Composition
    state: Path
    port: int
    root: str = ""
    shares: list[str] = field(default_factory=list)

    @property
    def ca(self) -> str:
        return str(self.state / "ca.pem")

    def http(self, method: str, path: str, token: str = "", **options: Any) -> requests.Response:
        url = f"https://localhost:{self.port}/v1/{path}"
        headers = {"X-Vault-Token": token or self.root}
        return requests.request(method, url, headers=headers, verify=self.ca, timeout=60, **options)

    def hvac(self) -> Any:
        url = f"https://localhost:{self.port}"
        return hvac.Client(url=url, token=self.root, verify=self.ca, timeout=60)

    def unseal(self) -> bool:
        """Gives the shares until every seal is open: one that the gateway did not know yet has missed them."""
        if all(self.ready("seal", n) for n in range(len(self.containers.containers["seal"]))):
            return True
        for share in self.shares[:3]:
            self.hvac().sys.submit_unseal_key(share)
        return False

    def run(self, service: str, *command: str, number: int = 0) -> tuple[int, str]:
        """Runs a command that changes nothing in a container."""
        container = self.containers.container(service, number)

        def whole() -> "re.Match[str] | None":
            # Engines have been seen to lose what a command said that ended at once.
            script = ["sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", *command]
            return re.fullmatch(r"(?s)(.*)exit (\d+)\n", container.exec_run(script)[1].decode())

        found = until(whole)
        return int(found[2]), found[1]

    def etcd_is_healthy(self, member: str) -> bool:
        return self.run(member, "etcdctl", "endpoint", "health")[0] == 0

    def lives(self, service: str, number: int = 0) -> bool:
        return self.run(service, "strongroom", "health", number=number)[0] == 0

    def ready(self, service: str, number: int = 0) -> bool:
        return self.run(service, "strongroom", "health", "--ready", number=number)[0] == 0


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    state, port = tmp_path_factory.mktemp("compose") / "state", free_port()
    variables = {
        "STRONGROOM_IMAGE": build("deploy/Dockerfile", "strongroom:test"),
        "ETCD_IMAGE": build("Dockerfile", "strongroom-etcd:test", ROOT / "deploy" / "etcd"),
        "STRONGROOM_STATE": str(state),
        "STRONGROOM_HTTP": f"127.0.0.1:{port}",
        "STRONGROOM_GRPC": f"127.0.0.1:{free_port()}",
    }
    containers = Composition(FILE, f"strongroom-{secrets.token_hex(4)}", variables)
    composed = Composed(containers, state, port)
    try:
        containers.run("setup")
        containers.up()
        yield composed
    finally:
        print(containers.logs())  # shown where something failed
        containers.down()
        # What the containers' user owns goes with them.
        subprocess.run(["rm", "-rf", str(state)], check=False)


@pytest.fixture(scope="module")
def platform(composed: Composed) -> Composed:
    """The platform, initialised and opened with shares, with an audit device and mounts."""
    until(lambda: composed.http("GET", "sys/seal-status").ok)
    for service in SERVICES:
        assert composed.lives(service), service
        assert not composed.ready(service), service
    made = composed.hvac().sys.initialize(5, 3)
    composed.root, composed.shares = made["root_token"], made["keys_base64"]
    until(composed.unseal)
    for service in SERVICES:
        until(partial(composed.ready, service))
    client = composed.hvac()
    client.sys.enable_audit_device("file", options={"file_path": AUDIT_LOG})
    client.sys.enable_secrets_engine("kv", "secret", options={"version": "2"})
    client.sys.enable_secrets_engine("transit")
    client.sys.enable_secrets_engine("database")
    client.secrets.transit.create_key("orders")
    return composed


def test_setting_up_again_changes_nothing_and_so_do_the_users(composed: Composed) -> None:
    def there() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in composed.state.rglob("*") if p.is_file()}

    before = there()
    composed.containers.run("setup")
    assert there() == before
    assert composed.containers.run("etcd-users").splitlines()[-1] == "nothing to change"


@pytest.mark.parametrize("service", [*SERVICES, *MEMBERS])
def test_a_container_has_no_rights_and_no_other_secrets_than_its_own(
    platform: Composed, service: str
) -> None:
    code, said = platform.run(service, "cat", "/proc/1/status")
    status = dict(re.findall(r"^(\w+):\s*(\S+)", said, re.MULTILINE))
    assert (status["Uid"], status["CapEff"], status["CapBnd"]) == ("10001", "0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    code, said = platform.run(service, "touch", "/usr/new")
    assert code and "Read-only file system" in said

    def files(folder: str) -> set[str]:
        return set(platform.run(service, "ls", "-A", folder)[1].split())

    client = {"ca.pem", "client.pem", "client.key"}
    if service in MEMBERS:
        assert files("/run/etcd") == client | {"etcd.pem", "etcd.key"}
    else:
        assert files("/run/etcd") == client
        assert files("/run/pki") == {"ca.pem", f"{service}.pem", f"{service}.key"}
        assert files("/run/secrets") == {"etcd-password"}


def test_only_the_gateway_is_published_and_to_loopback_alone(platform: Composed) -> None:
    for service in (*SERVICES, *MEMBERS):
        container = platform.containers.container(service)
        container.reload()
        bound = {
            binding["HostIp"]
            for bindings in (container.attrs["NetworkSettings"]["Ports"] or {}).values()
            for binding in bindings or ()
        }
        assert bound == ({"127.0.0.1"} if service == "gateway" else set()), service


def test_etcd_lets_in_nobody_without_a_password_or_with_another_certificate(
    platform: Composed,
) -> None:
    code, said = platform.run("etcd-0", "etcdctl", "get", "--prefix", "", "--keys-only")
    assert code and ("user name is empty" in said or "permission denied" in said), said
    for flag in ("--cert=/run/etcd/missing.pem", "--cacert=/run/etcd/etcd.pem"):
        assert platform.run("etcd-0", "etcdctl", "endpoint", "health", flag)[0]
    for service in SERVICES:  # and each service was let in as the user that it has
        logs = platform.containers.container(service).logs().decode()
        assert "access control turned off" not in logs
        assert "does not allow" not in logs


def test_hvac_works_with_all_engines(platform: Composed) -> None:
    client = platform.hvac()
    client.secrets.kv.v2.create_or_update_secret("app", {"password": "hunter2"})
    read = client.secrets.kv.v2.read_secret_version("app", raise_on_deleted_version=True)
    assert read["data"]["data"] == {"password": "hunter2"}
    encrypted = client.secrets.transit.encrypt_data("orders", b64(b"hello"))["data"]["ciphertext"]
    decrypted = client.secrets.transit.decrypt_data("orders", encrypted)
    assert decrypted["data"]["plaintext"] == b64(b"hello")
    with database(platform) as host:
        client.secrets.database.configure(
            "db", plugin_name="postgresql-database-plugin", allowed_roles=["app"],
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{host}:5432/postgres?sslmode=disable",
            username="postgres", password=PASSWORD,
        )  # fmt: skip
        statement = (
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        )
        client.secrets.database.create_role("app", "db", [statement], default_ttl="1h")
        made = client.secrets.database.generate_credentials("app")
        assert made["data"]["username"].startswith("v-")
        client.sys.revoke_lease(made["lease_id"])
    # Calls go beside gRPC, at the port that is named for it.
    logs = platform.containers.container("gateway").logs().decode()
    assert "a direct connection failed" not in logs


def database(platform: Composed) -> Any:
    """Runs PostgreSQL where dbcreds finds it."""
    image = build(
        "Dockerfile", "strongroom-postgresql:test", Path(__file__).parent / "images" / "postgresql"
    )
    container = DockerContainer(image).with_env("POSTGRES_PASSWORD", PASSWORD)
    return _Joined(container, platform)


class _Joined:
    def __init__(self, container: DockerContainer, platform: Composed) -> None:
        self._container, self._platform = container, platform

    def __enter__(self) -> str:
        self._container.start()
        wrapped = self._container.get_wrapped_container()
        self._platform.containers.network("databases").connect(wrapped, aliases=["customers"])
        until(lambda: b"ready to accept connections" in wrapped.logs())
        return "customers"

    def __exit__(self, *_: object) -> None:
        self._container.stop()


class Load:
    """Clients that encrypt all the while; what was answered otherwise than with 200 is kept."""

    def __init__(self, platform: Composed, clients: int = 4) -> None:
        self._platform = platform
        self.answered = 0
        self.refused: list[int | str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        body = {"plaintext": b64(b"load")}
        while not self._done.is_set():
            try:
                answer = self._platform.http("POST", "transit/encrypt/orders", json=body)
            except requests.RequestException as error:
                self.refused.append(repr(error))
                continue
            if answer.ok:
                self.answered += 1
            else:
                self.refused.append(answer.status_code)

    def goes_on(self) -> None:
        """Returns once as many were answered again as are under way at most."""
        behind = self.answered + 2 * len(self._threads)
        until(lambda: self.answered > behind)


def used(platform: Composed) -> Callable[[int], bool]:
    """Returns a check of how many replicas of transit the gateway knows."""

    def check(count: int) -> bool:
        logs = platform.containers.container("gateway").logs().decode().splitlines()
        known = [line for line in logs if '"of":"transit"' in line]
        return bool(known) and f'"count":{count}' in known[-1]

    return check


def test_renewed_certificates_are_taken_without_a_restart(platform: Composed) -> None:
    pki = platform.state / "pki"

    def served() -> str:
        return ssl.get_server_certificate(("localhost", platform.port), ca_certs=platform.ca)

    before = served()
    for name in ("gateway", "kv"):
        (pki / f"{name}.pem").unlink()
    (platform.state / "etcd" / "etcd.pem").unlink()
    platform.containers.run("setup")
    with Load(platform) as load:
        for name in ("gateway", "kv"):
            platform.containers.container(name).kill(signal="HUP")
            until(partial(_took_a_certificate, platform, name))
        until(lambda: served() != before)
        load.goes_on()
    assert load.refused == []
    assert served() == (pki / "gateway.pem").read_text()
    for member in MEMBERS:  # which read theirs with each connection
        assert (
            platform.run(member, "cat", "/run/etcd/etcd.pem")[1]
            == (platform.state / "etcd" / "etcd.pem").read_text()
        )
        assert platform.etcd_is_healthy(member)


def _took_a_certificate(platform: Composed, service: str) -> bool:
    return (
        "a renewed certificate was taken" in platform.containers.container(service).logs().decode()
    )


def test_transit_scales_by_itself(platform: Composed) -> None:
    known = used(platform)
    platform.containers.scale("transit", 2)
    until(lambda: known(2))
    first, second = platform.containers.containers["transit"]
    with Load(platform) as load:
        second.stop(timeout=platform.containers.grace_seconds("transit"))
        load.goes_on()
    assert load.refused == []
    second.reload()
    assert second.attrs["State"]["ExitCode"] == 0
    second.start()
    until(lambda: known(2))
    with Load(platform) as load:
        first.kill()
        load.goes_on()
    # What was with the one that died, and nothing else: it may have been done.
    assert set(load.refused) <= {503} and len(load.refused) <= 4
    first.start()
    until(lambda: known(2))


def test_a_member_of_etcd_that_is_killed_loses_nothing(platform: Composed) -> None:
    with Writer(platform, "killed") as writer:
        for name in MEMBERS[:2]:  # one of them may lead
            writer.goes_on()
            member = platform.containers.container(name)
            member.kill()
            writer.goes_on()
            member.start()
            until(partial(platform.etcd_is_healthy, name))
    writer.check()


def test_a_kv_container_that_is_restarted_is_found_again(platform: Composed) -> None:
    kv = platform.containers.container("kv")
    with Writer(platform, "restarted") as writer:
        writer.goes_on()
        kv.restart(timeout=platform.containers.grace_seconds("kv"))
        writer.goes_on()
    writer.check()


def test_the_platform_works_while_a_seal_is_closed(platform: Composed) -> None:
    grace = platform.containers.grace_seconds("seal")
    for number, seal in enumerate(platform.containers.containers["seal"]):
        with Load(platform) as load:
            seal.restart(timeout=grace)
            until(partial(platform.lives, "seal", number))
            load.goes_on()
            assert not platform.ready("seal", number)
            # A service that starts meanwhile gets its keys from the other.
            platform.containers.container("transit").restart(timeout=grace)
            until(partial(platform.ready, "transit"))
            until(platform.unseal)
        assert load.refused == []


def test_everything_stops_in_time_and_leaves_a_log_that_is_whole(platform: Composed) -> None:
    assert platform.run("audit", "strongroom", "audit", "verify", AUDIT_LOG)[0] == 0
    for service in SERVICES[::-1]:
        for container in platform.containers.containers[service]:
            began = time.monotonic()
            container.stop(timeout=platform.containers.grace_seconds(service))
            container.reload()
            state = container.attrs["State"]
            assert state["ExitCode"] == 0, (service, state, time.monotonic() - began)
