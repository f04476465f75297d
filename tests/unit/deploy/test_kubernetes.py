"""The manifests for Kubernetes beside the settings, the contracts and the image."""

import re
from dataclasses import fields
from typing import Any

import pytest
from cryptography import x509
from tests.unit.deploy.manifests import DEPLOY, KUBERNETES, Document, by_name, callers, documents

from strongroom_cli import outside_etcd
from strongroom_cli.settings import SERVICES, ServerConfig, check
from strongroom_runtime.config import load
from strongroom_runtime.transport import names

BASE = documents(KUBERNETES / "base")
PRODUCTION = documents(KUBERNETES / "overlays" / "production")
SETUP = documents(KUBERNETES / "setup")
WORKLOADS = by_name(PRODUCTION, "Deployment", "StatefulSet")
CONFIG = by_name(BASE, "ConfigMap")["strongroom"]["data"]
NAME = "app.kubernetes.io/name"
POLICIES = by_name(PRODUCTION, "NetworkPolicy")

# Misspelt keys would be dropped in silence.
POD_KEYS = {
    "affinity", "automountServiceAccountToken", "containers", "enableServiceLinks", "restartPolicy",
    "securityContext", "serviceAccountName", "terminationGracePeriodSeconds", "topologySpreadConstraints", "volumes",
}  # fmt: skip
CONTAINER_KEYS = {
    "args", "command", "env", "envFrom", "image", "lifecycle", "livenessProbe", "name", "ports", "readinessProbe",
    "resources", "securityContext", "startupProbe", "volumeMounts",
}  # fmt: skip


def pod(name: str) -> Document:
    spec: Document = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> Document:
    (only,) = pod(name)["containers"]
    found: Document = only
    return found


def ports(name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name)["ports"]}


def settings(name: str) -> ServerConfig:
    """Returns the configuration that a service finds, as it is read there."""
    own = {each["name"]: each["value"] for each in container(name)["env"] if "value" in each}
    environment = {**CONFIG, **own}
    known = {f"STRONGROOM_{field.name.upper()}" for field in fields(ServerConfig)}
    assert {name for name in environment if name.startswith("STRONGROOM_")} <= known
    environment["STRONGROOM_ADVERTISE"] = own["STRONGROOM_ADVERTISE"].replace(
        "$(POD_IP)", "10.0.0.1"
    )
    command, *flags = container(name)["args"]
    assert command == "serve-one"
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    config = load(
        ServerConfig,
        environment=environment,
        flags={key.replace("-", "_"): value for key, value in given.items()},
    )
    assert check(config, environment) == []
    return config


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_there_with_settings_that_hold(service: str) -> None:
    config = settings(service)
    assert config.targets == (service,)
    assert config.etcd_user == outside_etcd.user_of(service)
    assert config.seal == "shamir"  # a static seal would have to bring its key
    given = ports(service)
    assert given.pop("internal") == port_of(config.internal_listen) == port_of(config.advertise)
    assert given.pop("health") == port_of(config.health_listen)
    if service == "gateway":
        assert given.pop("https") == port_of(config.listen)
        assert given.pop("grpcs") == port_of(config.grpc_listen)
    assert given.pop("direct") == port_of(config.direct_listen)
    assert given == {}


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_finds_its_own_files_and_no_others(service: str) -> None:
    config = settings(service)
    mounts = {each["mountPath"]: each for each in container(service)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(service)["volumes"]}

    def files(folder: object) -> tuple[str, set[str]]:
        secret = volumes[mounts[str(folder)]["name"]]["secret"]
        assert secret["defaultMode"] == 0o440  # fsGroup reads it
        return secret["secretName"], {item["path"] for item in secret["items"]}

    assert config.etcd_password_file is not None
    assert files(config.pki_dir) == (
        f"{service}-tls",
        {"ca.pem", f"{service}.pem", f"{service}.key"},
    )
    assert files(config.etcd_pki_dir) == ("etcd-client-tls", {"ca.pem", "client.pem", "client.key"})
    folder, file = config.etcd_password_file.parent, config.etcd_password_file.name
    assert files(folder) == (f"{service}-etcd", {file})
    assert sum("secret" in volume for volume in volumes.values()) == 3


def test_the_audit_log_is_on_volumes_that_stay() -> None:
    audit = WORKLOADS["audit"]
    assert audit["kind"] == "StatefulSet"
    (claim,) = audit["spec"]["volumeClaimTemplates"]
    paths = {each["mountPath"]: each["name"] for each in container("audit")["volumeMounts"]}
    assert paths[str(settings("audit").audit_folder)] == claim["metadata"]["name"]
    assert audit["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    services = by_name(PRODUCTION, "Service")
    assert services[audit["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("name", [*WORKLOADS, "etcd-users"])
def test_a_pod_has_no_rights(name: str) -> None:
    resource = by_name([*PRODUCTION, *SETUP], "Deployment", "StatefulSet", "Job")[name]
    spec = resource["spec"]["template"]["spec"]
    (only,) = spec["containers"]
    assert spec.keys() <= POD_KEYS
    assert only.keys() <= CONTAINER_KEYS
    user = re.search(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    security = dict(spec["securityContext"])
    assert security.pop("fsGroupChangePolicy") == "OnRootMismatch"
    assert security == {
        "runAsNonRoot": True,
        "runAsUser": int(user[1]),
        "runAsGroup": int(user[2]),
        "fsGroup": int(user[2]),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert only["resources"]["limits"].keys() == {"memory"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    if resource["kind"] != "Job":
        accounts = by_name(PRODUCTION, "ServiceAccount")
        assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_survives_what_happens_to_nodes(name: str) -> None:
    spec = WORKLOADS[name]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == {NAME: name}
    budget = by_name(PRODUCTION, "PodDisruptionBudget")[name]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    scaler = by_name(PRODUCTION, "HorizontalPodAutoscaler").get(name)
    at_least = scaler["spec"]["minReplicas"] if scaler else spec["replicas"]
    assert at_least >= 2
    assert not (scaler and "replicas" in spec)  # each rollout would set it back
    if name == "etcd":
        assert at_least == 3
        return
    hosts, zones = pod(name)["topologySpreadConstraints"]
    for constraint in (hosts, zones):
        assert constraint["labelSelector"]["matchLabels"] == labels
    if WORKLOADS[name]["kind"] == "Deployment":
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_transit_alone_scales_by_itself() -> None:
    (scaler,) = by_name(PRODUCTION, "HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (WORKLOADS["transit"]["kind"], "transit")


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_where_the_process_tells(service: str) -> None:
    told = container(service)
    for probe, path in (("startup", "/live"), ("liveness", "/live"), ("readiness", "/ready")):
        assert told[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "health"}
    grace = pod(service)["terminationGracePeriodSeconds"]
    streams = ServerConfig().stream_drain_seconds if service in ("gateway", "transit") else 0
    # Draining calls may take some 20 seconds, and the gateway waits before it.
    assert grace >= 40 + streams


def test_services_lead_to_ports_that_are_there() -> None:
    for name, service in by_name(PRODUCTION, "Service").items():
        target = service["spec"]["selector"][NAME]
        for port in service["spec"]["ports"]:
            known = ports(target)
            assert port.get("targetPort", port["name"]) in known, name
            assert port["port"] == known[port.get("targetPort", port["name"])]


def selected(selector: Document) -> set[str]:
    """Returns the names that a selector of pods lets through."""
    if "matchLabels" in selector:
        return {selector["matchLabels"][NAME]}
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == (NAME, "In")
    return set(expression["values"])


def peers(rules: list[Document], end: str) -> set[str]:
    (rule,) = rules
    inner = {number for name, number in ports("kv").items() if name in ("internal", "direct")}
    assert {port["port"] for port in rule["ports"]} == inner
    (peer,) = rule[end]
    return selected(peer["podSelector"])


@pytest.mark.parametrize("service", SERVICES)
def test_the_network_lets_through_what_the_contracts_allow_and_no_more(service: str) -> None:
    allowed = callers()
    spec = POLICIES[service]["spec"]
    assert selected(spec["podSelector"]) == {service}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert peers(spec["ingress"], "from") == allowed[service]
    assert peers(spec["egress"], "to") == {other for other in SERVICES if service in allowed[other]}


def test_only_the_gateway_is_open_and_only_to_its_public_ports() -> None:
    assert POLICIES["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    opened = {}
    for name, policy in POLICIES.items():
        for rule in policy["spec"].get("ingress", ()):
            if "from" not in rule:
                opened[name] = policy["spec"]
    assert list(opened) == ["clients"]
    assert selected(opened["clients"]["podSelector"]) == {"gateway"}
    ports_open = [port["port"] for port in opened["clients"]["ingress"][0]["ports"]]
    assert ports_open == [ports("gateway")["https"], ports("gateway")["grpcs"]]


def test_etcd_is_reached_by_the_services_and_its_own_members() -> None:
    users = {*SERVICES, "etcd-users"}
    assert selected(POLICIES["to-etcd"]["spec"]["podSelector"]) == users
    clients, members = POLICIES["etcd"]["spec"]["ingress"]
    assert selected(clients["from"][0]["podSelector"]) == users
    assert selected(members["from"][0]["podSelector"]) == {"etcd"}
    assert clients["ports"][0]["port"] == ports("etcd")["client"]
    assert members["ports"][0]["port"] == ports("etcd")["peer"]
    (port,) = POLICIES["to-etcd"]["spec"]["egress"][0]["ports"]
    endpoints = settings("kv").etcd_endpoints
    assert {port_of(endpoint) for endpoint in endpoints} == {port["port"]}
    assert len(endpoints) == WORKLOADS["etcd"]["spec"]["replicas"]
    (job,) = by_name(SETUP, "Job").values()
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert f"--apply={','.join(endpoints)}" in only["args"]


def test_certificates_of_cert_manager_say_what_services_are_known_by() -> None:
    found = documents(KUBERNETES / "components" / "cert-manager")
    issued = by_name(found, "Certificate")
    domain = settings("kv").trust_domain
    for service in SERVICES:
        spec = issued[service]["spec"]
        assert spec["secretName"] == f"{service}-tls"
        told = [
            *map(x509.UniformResourceIdentifier, spec["uris"]),
            *map(x509.DNSName, spec["dnsNames"]),
        ]
        inside = [name for name in told if names.is_within(name, domain)]
        assert [told[0], *inside] == names.of_service(service, domain)
        assert {"server auth", "client auth"} <= set(spec["usages"])
    assert issued.keys() == {*SERVICES, "strongroom-ca"}


def test_every_file_is_used() -> None:
    used: set[Any] = set()
    for folder in (
        KUBERNETES / "base",
        *KUBERNETES.glob("overlays/*"),
        *KUBERNETES.glob("components/*"),
    ):
        assert documents(folder)
        used |= {path.name for path in folder.glob("*.yaml")}
    here = {path.name for path in (KUBERNETES / "base").glob("*.yaml")} - {"kustomization.yaml"}
    told = (KUBERNETES / "base" / "kustomization.yaml").read_text()
    assert all(f"- {name}\n" in told for name in here)
