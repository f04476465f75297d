"""Starts what a compose file says, by the API of the Docker engine: where tests run there may be no compose command.

Knows the keys that deploy/compose.yaml has, and refuses others: what the file says is what runs.
"""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.types import Mount, Ulimit

from tests.integration.platforms import until

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):-(?P<default>[^}]*)\})")
_KNOWN = {
    "cap_add", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck", "image",
    "network_mode", "networks", "ports", "profiles", "read_only", "restart", "secrets", "security_opt",
    "stop_grace_period", "tmpfs", "ulimits", "user", "volumes",
}  # fmt: skip
_SECONDS = 180
_LABELS = {"org.testcontainers": "true"}  # whoever clears up after tests finds them by it


class Composition:
    """The containers of a compose file.

    Args:
        file: the compose file.
        project: what names begin with.
        variables: for the `${…}` in the file.
    """

    def __init__(self, file: Path, project: str, variables: Mapping[str, str]) -> None:
        self._project = project
        self._variables = variables
        self._document = self._resolved(yaml.safe_load(file.read_text()))
        self._engine = docker.from_env(timeout=_SECONDS)
        self._networks: dict[str, Any] = {}
        self.containers: dict[str, list[Any]] = {}
        for name, service in self.services.items():
            assert service.keys() <= _KNOWN, (name, service.keys() - _KNOWN)

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """What the file says of each service."""
        services: dict[str, dict[str, Any]] = self._document["services"]
        return services

    def container(self, service: str, number: int = 0) -> Any:
        """Returns a container."""
        return self.containers[service][number]

    def network(self, name: str) -> Any:
        """Returns a network, made when it is first asked for."""
        if name not in self._networks:
            options = self._document["networks"][name] or {}
            self._networks[name] = self._engine.networks.create(
                f"{self._project}-{name}", internal=options.get("internal", False), labels=_LABELS
            )
        return self._networks[name]

    def run(self, service: str) -> str:
        """Runs a service until it ends, and returns what it said."""
        container = self._create(service)
        container.start()
        status = container.wait(timeout=_SECONDS)["StatusCode"]
        said = str(container.logs().decode())
        assert status == 0, said
        container.remove()
        self.containers[service].remove(container)
        return said

    def up(self) -> None:
        """Starts every service that has no profile, after those that it depends on."""
        for name, service in self.services.items():
            if "profiles" not in service:
                self._start(name)

    def scale(self, service: str, count: int) -> None:
        """Starts further containers of a service."""
        while len(self.containers[service]) < count:
            self._create(service).start()

    def logs(self) -> str:
        """Returns the last of what every container said."""
        return "".join(
            f"--- {name}\n{container.logs(tail=20).decode()}"
            for name, some in self.containers.items()
            for container in some
        )

    def down(self) -> None:
        """Removes everything, volumes too."""
        for container in [each for some in self.containers.values() for each in some]:
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        for network in self._networks.values():
            network.remove()
        for name in self._document["volumes"]:
            with contextlib.suppress(docker.errors.NotFound):
                self._engine.volumes.get(f"{self._project}-{name}").remove(force=True)

    def grace_seconds(self, service: str) -> int:
        """Returns how long a container of a service may take to stop."""
        return _nanoseconds(self.services[service].get("stop_grace_period", "10s")) // 10**9

    def _start(self, name: str) -> None:
        if name in self.containers:
            return
        for other, how in self.services[name].get("depends_on", {}).items():
            self._start(other)
            container = self.container(other)
            if how["condition"] == "service_healthy":
                until(partial(_healthy, container), _SECONDS)
            else:
                assert how["condition"] == "service_completed_successfully", how
                assert container.wait(timeout=_SECONDS)["StatusCode"] == 0, (
                    container.logs().decode()
                )
        for _ in range(self.services[name].get("deploy", {}).get("replicas", 1)):
            self._create(name).start()

    def _create(self, name: str) -> Any:
        service = self.services[name]
        networks = service.get("networks", [])
        health = service.get("healthcheck")
        made = self.containers.setdefault(name, [])
        container = self._engine.containers.create(
            service["image"],
            name=f"{self._project}-{name}-{time.monotonic_ns()}",
            labels=_LABELS,
            entrypoint=service.get("entrypoint"),
            command=service.get("command"),
            environment=service.get("environment"),
            user=service.get("user"),
            read_only=service.get("read_only", False),
            cap_drop=service.get("cap_drop"),
            cap_add=service.get("cap_add"),
            security_opt=service.get("security_opt"),
            ulimits=[Ulimit(name=k, soft=v, hard=v) for k, v in service.get("ulimits", {}).items()],
            restart_policy={"Name": service["restart"]} if "restart" in service else None,
            tmpfs=dict.fromkeys(service.get("tmpfs", ()), ""),
            mounts=[*self._volumes(service), *self._secrets(service)],
            ports=dict(_port(each) for each in service.get("ports", ())),
            healthcheck=health and _health(health),
            network=self.network(next(iter(networks))).name if networks else None,
            network_mode=service.get("network_mode"),
        )
        made.append(container)
        for number, network in enumerate(networks):
            if number == 0:
                self.network(network).disconnect(container)  # and again, with its names
            settings = (networks[network] if isinstance(networks, dict) else None) or {}
            aliases = [name, *settings.get("aliases", ())]
            self.network(network).connect(container, aliases=aliases)
        return container

    def _volumes(self, service: Mapping[str, Any]) -> Iterator[Mount]:
        for each in service.get("volumes", ()):
            source, target, *mode = each.split(":")
            read_only = mode == ["ro"]
            if source in self._document["volumes"]:
                yield Mount(target, f"{self._project}-{source}", "volume", read_only=read_only)
            else:
                Path(source).mkdir(parents=True, exist_ok=True)
                yield Mount(target, source, "bind", read_only=read_only)

    def _secrets(self, service: Mapping[str, Any]) -> Iterator[Mount]:
        for each in service.get("secrets", ()):
            source = each if isinstance(each, str) else each["source"]
            target = each if isinstance(each, str) else each["target"]
            path = target if target.startswith("/") else f"/run/secrets/{target}"
            file = self._document["secrets"][source]["file"]
            yield Mount(path, file, "bind", read_only=True)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._resolved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(self._variable, value)

    def _variable(self, match: "re.Match[str]") -> str:
        name = match["name"]
        return "$" if name is None else self._variables.get(name, match["default"])


def _healthy(container: Any) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


def _nanoseconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text[:-1]) * 10**9


def _health(told: Mapping[str, Any]) -> dict[str, Any]:
    durations = ("interval", "timeout", "start_period")
    return {key: _nanoseconds(value) if key in durations else value for key, value in told.items()}


def _port(text: str) -> tuple[str, tuple[str, str]]:
    address, outside, inside = text.rsplit(":", 2)
    return f"{inside}/tcp", (address, outside)
