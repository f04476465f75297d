"""deploy/compose.yaml beside the settings and the image."""

import re
from dataclasses import fields

import pytest
from tests.unit.deploy.manifests import DEPLOY, read

from strongroom_cli import outside_etcd
from strongroom_cli.settings import SERVICES, ServerConfig, check
from strongroom_runtime.config import load

(DOCUMENT,) = read(DEPLOY / "compose.yaml")
CONTAINERS = DOCUMENT["services"]
MEMBERS = ("etcd-0", "etcd-1", "etcd-2")


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_there_with_settings_that_hold(service: str) -> None:
    container = CONTAINERS[service]
    environment = container["environment"]
    known = {f"STRONGROOM_{field.name.upper()}" for field in fields(ServerConfig)}
    assert {name for name in environment if name.startswith("STRONGROOM_")} <= known
    command, *flags = container["command"]
    assert command == "serve-one"
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    config = load(
        ServerConfig,
        environment=environment,
        flags={key.replace("-", "_"): value for key, value in given.items()},
    )
    assert check(config, environment) == []
    assert config.targets == (service,)
    assert config.etcd_user == outside_etcd.user_of(service)
    assert {endpoint.partition(":")[0] for endpoint in config.etcd_endpoints} == set(MEMBERS)


def test_who_makes_etcds_users_goes_to_the_same_members() -> None:
    endpoints = CONTAINERS["kv"]["environment"]["STRONGROOM_ETCD_ENDPOINTS"]
    assert f"--apply={endpoints}" in CONTAINERS["etcd-users"]["command"]


def test_only_the_gateway_publishes_ports_and_on_loopback() -> None:
    published = {name: each["ports"] for name, each in CONTAINERS.items() if "ports" in each}
    assert published.keys() == {"gateway"}
    for port in published["gateway"]:
        assert re.fullmatch(r"\$\{\w+:-127\.0\.0\.1:(\d+)\}:\1", port)
    for name in ("services", "peers"):
        assert DOCUMENT["networks"][name]["internal"] is True


@pytest.mark.parametrize("name", [*SERVICES, *MEMBERS, "etcd-users"])
def test_a_container_has_no_rights(name: str) -> None:
    container = CONTAINERS[name]
    user = re.search(r"^USER (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert container["user"] == user[1]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", [*SERVICES, *MEMBERS, "etcd-users"])
def test_a_container_has_its_certificates_in_folders_and_no_others(name: str) -> None:
    """A file that is mounted by itself is the one that was there at the start, whatever takes its place."""
    volumes = "\n".join(CONTAINERS[name]["volumes"])
    mounted = dict(re.findall(r"^(.+?):(/[^:]+?)(?::ro)?$", volumes, re.MULTILINE))
    assert len(mounted) == len(CONTAINERS[name]["volumes"])
    folder = "${STRONGROOM_STATE:-./state}/certificates"
    certificates = {source: at for source, at in mounted.items() if "/certificates" in source}
    if name in SERVICES:
        assert certificates == {
            f"{folder}/{name}": "/run/pki",
            f"{folder}/etcd-client": "/run/etcd",
        }
    else:
        own = "etcd-client" if name == "etcd-users" else "etcd"
        assert certificates == {f"{folder}/{own}": "/run/etcd"}
    assert not any(
        source.endswith((".pem", ".key", "/pki", "/etcd"))
        for source in mounted.keys() - certificates.keys()
    )


def test_no_certificate_is_a_secret_of_its_own() -> None:
    assert not [name for name in DOCUMENT["secrets"] if name.endswith((".pem", ".key"))]


def test_every_secret_is_there_and_used() -> None:
    used = {
        each if isinstance(each, str) else each["source"]
        for container in CONTAINERS.values()
        for each in container.get("secrets", ())
    }
    assert used == DOCUMENT["secrets"].keys()
