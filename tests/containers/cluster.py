"""A cluster of three etcd members in containers, and the images of this repository."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from tests.integration.platforms import until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def build(dockerfile: str, tag: str, context: Path = ROOT) -> str:
    """Builds an image of this repository and returns its name."""
    docker.from_env().images.build(path=str(context), dockerfile=dockerfile, tag=tag, rm=True)
    return tag


@dataclass
class Member:
    """One member; its port on this machine stays the same when it comes back."""

    container: DockerContainer
    endpoint: str

    @property
    def wrapped(self) -> Any:
        return self.container.get_wrapped_container()

    def kill(self) -> None:
        self.wrapped.kill()

    def revive(self) -> None:
        self.wrapped.start()

    def leads(self) -> bool:
        """Whether it answers and is the leader."""

        async def ask() -> bool:
            client = EtcdClient(EtcdConfig((self.endpoint,), timeout_seconds=2))
            try:
                status = await client.status()
            finally:
                await client.close()
            return bool(status.leader) and status.leader == status.header.member_id

        return asyncio.run(ask())


@contextlib.contextmanager
def cluster(size: int = 3) -> Iterator[list[Member]]:
    """Starts a cluster and ends it."""
    image = build("Dockerfile", "strongroom-etcd:test", ROOT / "deploy" / "etcd")
    names = [f"etcd-{number}" for number in range(size)]
    with Network() as network, contextlib.ExitStack() as stack:
        members = []
        for name in names:
            port = free_port()
            container = (
                DockerContainer(image)
                .with_network(network)
                .with_network_aliases(name)
                .with_bind_ports(2379, port)
                .with_env("ETCD_NAME", name)
                .with_env("ETCD_LISTEN_PEER_URLS", "http://0.0.0.0:2380")
                .with_env("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379")
                .with_env("ETCD_INITIAL_ADVERTISE_PEER_URLS", f"http://{name}:2380")
                .with_env("ETCD_ADVERTISE_CLIENT_URLS", f"http://127.0.0.1:{port}")
                .with_env("ETCD_INITIAL_CLUSTER", ",".join(f"{n}=http://{n}:2380" for n in names))
                .with_env("ETCD_HEARTBEAT_INTERVAL", "50")
                .with_env("ETCD_ELECTION_TIMEOUT", "500")
            )
            stack.enter_context(container)
            members.append(Member(container, f"127.0.0.1:{port}"))
        until(lambda: leader(members))
        yield members


def leader(members: list[Member]) -> Member | None:
    """Returns the member that leads, if one does."""
    for member in members:
        with contextlib.suppress(Exception):  # a member that is dead or has no leader
            if member.leads():
                return member
    return None
