"""The first start of a platform: keys, and in development what is handy to have, over the public gRPC API."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from strongroom.audit.v1 import audit_pb2, audit_pb2_grpc
from strongroom.auth.v1 import token_pb2, token_pb2_grpc
from strongroom.seal.v1 import seal_pb2, seal_pb2_grpc
from strongroom.sys.v1 import mounts_pb2, mounts_pb2_grpc
from strongroom_runtime.transport.credentials import DIRECTLY

_READY_SECONDS = 120.0  # of a machine that is busy; what never comes is said then
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Secrets:
    """What an initialisation gives, once."""

    root_token: str
    shares: tuple[str, ...]

    def __repr__(self) -> str:
        return "Secrets(…)"


class Platform:
    """A running platform, as a client sees it.

    Args:
        address: host:port of its gRPC.
        ca: the certificate that vouches for it; None for plain text.
    """

    def __init__(self, address: str, ca: Path | None) -> None:
        if ca is None:
            self._channel = grpc.aio.insecure_channel(address, options=DIRECTLY)
        else:
            credentials = grpc.ssl_channel_credentials(ca.read_bytes())
            self._channel = grpc.aio.secure_channel(address, credentials, options=DIRECTLY)
        self._seal = seal_pb2_grpc.SealServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def status(self) -> seal_pb2.SealStatus:
        """Returns the state of the seal, once anything answers."""
        answer: seal_pb2.ReadSealStatusResponse = await _until_ready(
            lambda: self._seal.ReadSealStatus(seal_pb2.ReadSealStatusRequest())
        )
        return answer.status

    async def initialise(self, shares: int, threshold: int) -> Secrets:
        """Makes the keys; with a static key, shares are of the recovery key."""
        request = seal_pb2.InitializeRequest(
            secret_shares=shares,
            secret_threshold=threshold,
            recovery_shares=shares,
            recovery_threshold=threshold,
        )
        answer = await _until_ready(lambda: self._seal.Initialize(request))
        return Secrets(answer.root_token, tuple(answer.keys or answer.recovery_keys))

    async def unseal(self, shares: Iterable[str]) -> None:
        """Opens the seal with the shares of its key."""
        for share in shares:
            await self._seal.Unseal(seal_pb2.UnsealRequest(key=share))

    async def usable(self, token: str) -> None:
        """Returns once a root token is accepted that was just made: auth may not have taken it over yet."""
        tokens = token_pb2_grpc.TokenServiceStub(self._channel)
        await _until_ready(
            lambda: tokens.LookupSelf(token_pb2.LookupSelfRequest(), metadata=_with(token)),
            grpc.StatusCode.PERMISSION_DENIED,
        )

    async def serving(self) -> bool:
        """Returns whether all services take calls, which may take a while after a start."""
        health = health_pb2_grpc.HealthStub(self._channel)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    answer = await _until_ready(
                        lambda: health.Check(health_pb2.HealthCheckRequest())
                    )
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return True
                    await asyncio.sleep(_AGAIN_SECONDS)
        return False

    async def furnish(self, token: str, audit_file: str) -> None:
        """Mounts secret/ (KV version 2) and enables an audit file, where they are not there.

        Args:
            token: may do both.
            audit_file: its name in the folder of audit files.
        """
        mounts = mounts_pb2_grpc.MountServiceStub(self._channel)
        devices = audit_pb2_grpc.AuditServiceStub(self._channel)
        mount = mounts_pb2.EnableMountRequest(
            path="secret",
            type="kv",
            options={"version": "2"},
            description="key/value secret storage",
        )
        device = audit_pb2.EnableDeviceRequest(
            path="file", type="file", options={"file_path": audit_file}
        )
        for call in (
            lambda: mounts.EnableMount(mount, metadata=_with(token)),
            lambda: devices.EnableDevice(device, metadata=_with(token)),
        ):
            try:
                await _until_ready(call)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise

    async def replace_root(self, token: str, wanted: str) -> None:
        """Makes a chosen text the root token, in place of the one that was made."""
        tokens = token_pb2_grpc.TokenServiceStub(self._channel)
        parameters = token_pb2.TokenParameters(id=wanted, policies=["root"], no_parent=True)
        request = token_pb2.CreateTokenRequest(parameters=parameters)
        # Services start once more after the initialisation of a seal with shares, which closes it.
        await _until_ready(lambda: tokens.CreateToken(request, metadata=_with(token)))
        revocation = token_pb2.RevokeSelfRequest()
        await _until_ready(lambda: tokens.RevokeSelf(revocation, metadata=_with(token)))


def _with(token: str) -> tuple[tuple[str, str], ...]:
    return (("x-vault-token", token),)


async def _until_ready(call: Any, *passing: grpc.StatusCode) -> Any:
    """Calls until it is answered otherwise than with UNAVAILABLE, as by services that start, or with what passes."""
    async with asyncio.timeout(_READY_SECONDS):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, *passing):
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)
