"""SealService and KeyService: the contract to and from the seal."""

import asyncio
import base64
import string
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from secrets import SystemRandom

from strongroom.seal.v1 import seal_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.secrets import new_token
from strongroom_runtime.storage import Transaction
from strongroom_runtime.timestamps import rfc3339
from strongroom_seal import pgp
from strongroom_seal.attempts import Attempts
from strongroom_seal.config import Config
from strongroom_seal.domain import ceremony
from strongroom_seal.followers import Followers
from strongroom_seal.rotation import Rotation
from strongroom_seal.seal import Seal
from strongroom_seal.storage import GENERATE, Attempt, SealConfig

_OTP_LENGTH = len(new_token())


class SealHandlers:
    """Answers clients."""

    def __init__(
        self, seal: Seal, followers: Followers, config: Config, rotation: Rotation
    ) -> None:
        self._seal = seal
        self._followers = followers
        self._config = config
        self._rotation = rotation
        self._attempts = Attempts(seal, GENERATE, "root generation")

    async def ReadInit(
        self, request: pb.ReadInitRequest, context: RequestContext
    ) -> pb.ReadInitResponse:
        return pb.ReadInitResponse(initialized=await self._seal.config() is not None)

    async def Initialize(
        self, request: pb.InitializeRequest, context: RequestContext
    ) -> pb.InitializeResponse:
        static = self._config.static_key_file is not None
        shares = request.recovery_shares if static else request.secret_shares
        threshold = request.recovery_threshold if static else request.secret_threshold
        if static and not shares and not threshold:
            # Clients that do not know of automatic unsealing name secret shares.
            shares, threshold = request.secret_shares or 1, request.secret_threshold or 1
        # Keys are read before anything is made: afterwards nothing may fail, or the shares would be lost.
        holders = _holders(request, static, shares)
        token_key = request.root_token_pgp_key
        token_keys = pgp.read_keys("root_token_pgp_key", [token_key] if token_key else [])
        unseal, recovery, token = await self._seal.initialise(shares, threshold)
        await self._known_everywhere()
        unseal = pgp.encrypt_shares(holders, unseal) if unseal else []
        recovery = pgp.encrypt_shares(holders, recovery) if recovery else []
        return pb.InitializeResponse(
            keys=[share.hex() for share in unseal],
            keys_base64=[base64.b64encode(share).decode() for share in unseal],
            recovery_keys=[share.hex() for share in recovery],
            recovery_keys_base64=[base64.b64encode(share).decode() for share in recovery],
            root_token=_for_holder(token_keys, token) or token,
        )

    async def ReadSealStatus(
        self, request: pb.ReadSealStatusRequest, context: RequestContext
    ) -> pb.ReadSealStatusResponse:
        return pb.ReadSealStatusResponse(status=await self._status())

    async def Unseal(self, request: pb.UnsealRequest, context: RequestContext) -> pb.UnsealResponse:
        if request.migrate:
            raise invalid("migrate: moving to another seal is not supported")
        if request.reset:
            if not self._seal.sealed:
                raise invalid("vault is unsealed")
            self._seal.reset_shares()
        elif not request.key:
            raise invalid("'key' must be specified in request body as JSON, or 'reset' set to true")
        else:
            await self._seal.add_share(request.key)
            await self._known_everywhere()
        return pb.UnsealResponse(status=await self._status())

    async def Seal(self, request: pb.SealRequest, context: RequestContext) -> pb.SealResponse:
        try:
            await self._seal.seal()
        finally:
            await self._known_everywhere()
        return pb.SealResponse()

    async def ReadKeyStatus(
        self, request: pb.ReadKeyStatusRequest, context: RequestContext
    ) -> pb.ReadKeyStatusResponse:
        ring = self._seal.ring
        term = ring.terms[ring.active_term]
        return pb.ReadKeyStatusResponse(
            term=ring.active_term,
            install_time=rfc3339(term.installed),
            encryptions=await self._seal.usage(),
        )

    async def Rotate(self, request: pb.RotateRequest, context: RequestContext) -> pb.RotateResponse:
        await self._rotation.rotate()
        return pb.RotateResponse()

    async def ReadGenerateRoot(
        self, request: pb.ReadGenerateRootRequest, context: RequestContext
    ) -> pb.ReadGenerateRootResponse:
        status = await self._attempt_status(await self._attempts.current())
        return pb.ReadGenerateRootResponse(status=status)

    async def StartGenerateRoot(
        self, request: pb.StartGenerateRootRequest, context: RequestContext
    ) -> pb.StartGenerateRootResponse:
        status = await self._start(request.otp, request.pgp_key)
        return pb.StartGenerateRootResponse(status=status)

    async def CancelGenerateRoot(
        self, request: pb.CancelGenerateRootRequest, context: RequestContext
    ) -> pb.CancelGenerateRootResponse:
        await self._attempts.cancel()
        return pb.CancelGenerateRootResponse()

    async def UpdateGenerateRoot(
        self, request: pb.UpdateGenerateRootRequest, context: RequestContext
    ) -> pb.UpdateGenerateRootResponse:
        status = await self._update(request.key, request.nonce)
        return pb.UpdateGenerateRootResponse(status=status)

    async def ReadGenerateRootToken(
        self, request: pb.ReadGenerateRootTokenRequest, context: RequestContext
    ) -> pb.ReadGenerateRootTokenResponse:
        status = await self._attempt_status(await self._attempts.current())
        return pb.ReadGenerateRootTokenResponse(status=status)

    async def StartGenerateRootToken(
        self, request: pb.StartGenerateRootTokenRequest, context: RequestContext
    ) -> pb.StartGenerateRootTokenResponse:
        status = await self._start(request.otp, request.pgp_key)
        return pb.StartGenerateRootTokenResponse(status=status)

    async def CancelGenerateRootToken(
        self, request: pb.CancelGenerateRootTokenRequest, context: RequestContext
    ) -> pb.CancelGenerateRootTokenResponse:
        await self._attempts.cancel()
        return pb.CancelGenerateRootTokenResponse()

    async def UpdateGenerateRootToken(
        self, request: pb.UpdateGenerateRootTokenRequest, context: RequestContext
    ) -> pb.UpdateGenerateRootTokenResponse:
        status = await self._update(request.key, request.nonce)
        return pb.UpdateGenerateRootTokenResponse(status=status)

    async def DecodeToken(
        self, request: pb.DecodeTokenRequest, context: RequestContext
    ) -> pb.DecodeTokenResponse:
        if not request.encoded_token or not request.otp:
            raise invalid("provided 'encoded_token' or 'otp' is empty")
        token = ceremony.decode_with_password(request.encoded_token, request.otp)
        return pb.DecodeTokenResponse(token=token)

    async def _known_everywhere(self) -> None:
        """Returns once the processes that have their keys from here know whether there are any.

        Not from a seal elsewhere, which is told through the store.
        """
        await self._followers.settled(self._config.settle_seconds)

    async def _start(self, otp: str, pgp_key: str) -> pb.GenerateRootStatus:
        if pgp_key:
            if otp:
                raise invalid("otp, pgp_key: give one of them")
            keys = pgp.read_keys("pgp_key", [pgp_key])
            return await self._attempt_status(
                await self._attempts.begin(Attempt("", pgp_keys=keys))
            )
        password = otp or _new_password()
        if len(password.encode()) != _OTP_LENGTH:
            raise invalid(f"otp: must have {_OTP_LENGTH} characters of one byte each")
        status = await self._attempt_status(await self._attempts.begin(Attempt("", otp=password)))
        if not otp:
            status.otp = password
        return status

    async def _update(self, key: str, nonce: str) -> pb.GenerateRootStatus:
        async def finish(attempt: Attempt, config: SealConfig, change: Transaction) -> None:
            change.deletes.append(GENERATE)
            await self._seal.store.commit(change)

        attempt, complete = await self._attempts.add(key, nonce, finish)
        status = await self._attempt_status(attempt)
        if complete:
            # Only now, when this process alone has ended the attempt: whatever fails leaves no token behind.
            token = await self._seal.make_root_token()
            status.complete = True
            encrypted = _for_holder(attempt.pgp_keys, token)
            status.encoded_token = encrypted or ceremony.encode_with_password(token, attempt.otp)
            status.encoded_root_token = status.encoded_token
        return status

    async def _status(self) -> pb.SealStatus:
        config, gathering = await self._seal.config(), self._seal.gathering
        static = self._config.static_key_file is not None
        status = pb.SealStatus(
            type="static" if static else "shamir",
            initialized=config is not None,
            sealed=self._seal.sealed,
            version=self._config.version,
            recovery_seal=static,
            storage_type="etcd",
            recovery_seal_type="shamir" if static else None,
        )
        if config is not None:
            status.t, status.n = config.threshold, config.shares
            if not self._seal.sealed:
                status.cluster_name, status.cluster_id = config.cluster_name, config.cluster_id
        if gathering is not None:
            status.progress, status.nonce = gathering.progress, gathering.nonce
        return status

    async def _attempt_status(self, attempt: Attempt | None) -> pb.GenerateRootStatus:
        config = await self._seal.config()
        return pb.GenerateRootStatus(
            started=attempt is not None,
            nonce=attempt.nonce if attempt else "",
            progress=len(attempt.given) if attempt else 0,
            required=config.threshold if config else 0,
            otp_length=_OTP_LENGTH,
            pgp_fingerprint="".join(pgp.fingerprints(attempt.pgp_keys)) if attempt else "",
        )


class KeyHandlers:
    """Hands out keys."""

    def __init__(self, seal: Seal, followers: Followers) -> None:
        self._seal = seal
        self._followers = followers
        seal.subscribe(followers.changed)

    async def WatchKeyRing(
        self, request: pb.WatchKeyRingRequest, context: RequestContext
    ) -> AsyncIterator[pb.WatchKeyRingResponse]:
        # A process that is only starting has nothing to say: services that have keys would drop them for a moment.
        await self._seal.started.wait()
        changed = asyncio.Event()
        unsubscribe = self._seal.subscribe(changed.set)
        service = context.caller
        # Those of an earlier version do not say what they have done.
        confirmed = self._followers.following(service) if request.confirms else nullcontext("")
        try:
            with confirmed as stream_id:
                while True:
                    changed.clear()
                    keys = self._keys(service)
                    keys.stream_id, keys.change = stream_id, self._followers.change
                    yield keys
                    await changed.wait()
        finally:
            unsubscribe()

    async def ConfirmKeyRing(
        self, request: pb.ConfirmKeyRingRequest, context: RequestContext
    ) -> pb.ConfirmKeyRingResponse:
        self._followers.confirm(context.caller, request.stream_id, request.change)
        return pb.ConfirmKeyRingResponse()

    def _keys(self, service: str) -> pb.WatchKeyRingResponse:
        if self._seal.sealed:
            return pb.WatchKeyRingResponse(sealed=True)
        terms, name_key = self._seal.ring.keys_for(service)
        active = self._seal.ring.active_term
        return pb.WatchKeyRingResponse(terms=terms, name_key=name_key, active_term=active)


def _holders(request: pb.InitializeRequest, static: bool, shares: int) -> tuple[bytes, ...]:
    """Returns the PGP keys of those who will hold the shares, if they are named.

    Raises:
        ServiceError: INVALID.
    """
    field, texts = "pgp_keys", request.pgp_keys
    if request.recovery_pgp_keys:
        if not static:
            raise invalid("recovery_pgp_keys: there is no recovery key with this seal")
        if request.pgp_keys:
            raise invalid("pgp_keys: with automatic unsealing only the recovery key has shares")
        field, texts = "recovery_pgp_keys", request.recovery_pgp_keys
    if texts and len(texts) != shares:
        raise invalid(f"{field}: there must be one for each share")
    return pgp.read_keys(field, texts)


def _for_holder(keys: Sequence[bytes], token: str) -> str:
    """Returns a token encrypted for the holder of a PGP key, in base64; empty without a key."""
    return base64.b64encode(pgp.encrypt(keys[0], token)).decode() if keys else ""


def _new_password() -> str:
    alphabet = string.ascii_letters + string.digits
    return "".join(SystemRandom().choice(alphabet) for _ in range(_OTP_LENGTH))
