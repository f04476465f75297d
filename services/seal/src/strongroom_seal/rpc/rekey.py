"""RekeyService: replacing the shares that people hold, and the root key."""

import base64

import msgspec

from strongroom.seal.v1 import rekey_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_seal import pgp
from strongroom_seal.rekey import Rekey
from strongroom_seal.seal import Seal
from strongroom_seal.storage import Attempt


class RekeyHandlers:
    """Answers clients."""

    def __init__(self, seal: Seal, rekey: Rekey) -> None:
        self._seal = seal
        self._rekey = rekey

    async def ReadRekey(
        self, request: pb.ReadRekeyRequest, context: RequestContext
    ) -> pb.ReadRekeyResponse:
        return pb.ReadRekeyResponse(status=await self._status(await self._rekey.attempts.current()))

    async def StartRekey(
        self, request: pb.StartRekeyRequest, context: RequestContext
    ) -> pb.StartRekeyResponse:
        attempt = await self._rekey.begin(
            request.secret_shares,
            request.secret_threshold,
            request.pgp_keys,
            request.backup,
            request.require_verification,
        )
        return pb.StartRekeyResponse(status=await self._status(attempt))

    async def CancelRekey(
        self, request: pb.CancelRekeyRequest, context: RequestContext
    ) -> pb.CancelRekeyResponse:
        await self._rekey.attempts.cancel()
        return pb.CancelRekeyResponse()

    async def UpdateRekey(
        self, request: pb.UpdateRekeyRequest, context: RequestContext
    ) -> pb.UpdateRekeyResponse:
        required = (await self._seal.openers.config()).threshold
        attempt, shares = await self._rekey.add(request.key, request.nonce)
        verification = attempt.verification
        return pb.UpdateRekeyResponse(
            nonce=attempt.nonce,
            started=not shares or verification is not None,
            complete=bool(shares),
            t=attempt.new_threshold,
            n=attempt.new_shares,
            progress=len(attempt.given),
            required=required,
            keys=[share.hex() for share in shares],
            keys_base64=[base64.b64encode(share).decode() for share in shares],
            pgp_fingerprints=pgp.fingerprints(attempt.pgp_keys),
            backup=attempt.backup,
            verification_required=attempt.verify,
            verification_nonce=verification.nonce if verification else "",
        )

    async def ReadRekeyVerification(
        self, request: pb.ReadRekeyVerificationRequest, context: RequestContext
    ) -> pb.ReadRekeyVerificationResponse:
        status = _verification_status(await self._rekey.verification())
        return pb.ReadRekeyVerificationResponse(status=status)

    async def VerifyRekey(
        self, request: pb.VerifyRekeyRequest, context: RequestContext
    ) -> pb.VerifyRekeyResponse:
        attempt, complete = await self._rekey.verify(request.key, request.nonce)
        status = _verification_status(attempt)
        return pb.VerifyRekeyResponse(
            nonce=status.nonce,
            started=not complete,
            t=status.t,
            n=status.n,
            progress=status.progress,
            complete=complete,
        )

    async def RestartRekeyVerification(
        self, request: pb.RestartRekeyVerificationRequest, context: RequestContext
    ) -> pb.RestartRekeyVerificationResponse:
        status = _verification_status(await self._rekey.restart_verification())
        return pb.RestartRekeyVerificationResponse(status=status)

    async def ReadRekeyBackup(
        self, request: pb.ReadRekeyBackupRequest, context: RequestContext
    ) -> pb.ReadRekeyBackupResponse:
        backup = await self._rekey.backup()
        hexadecimal: dict[str, list[str]] = {}
        encoded: dict[str, list[str]] = {}
        for fingerprint, share in backup.shares:
            hexadecimal.setdefault(fingerprint, []).append(share.hex())
            encoded.setdefault(fingerprint, []).append(base64.b64encode(share).decode())
        return pb.ReadRekeyBackupResponse(
            nonce=backup.nonce,
            keys=msgspec.json.encode(hexadecimal),
            keys_base64=msgspec.json.encode(encoded),
        )

    async def DeleteRekeyBackup(
        self, request: pb.DeleteRekeyBackupRequest, context: RequestContext
    ) -> pb.DeleteRekeyBackupResponse:
        await self._rekey.delete_backup()
        return pb.DeleteRekeyBackupResponse()

    async def RotateRootKey(
        self, request: pb.RotateRootKeyRequest, context: RequestContext
    ) -> pb.RotateRootKeyResponse:
        await self._seal.rotate_root()
        return pb.RotateRootKeyResponse()

    async def _status(self, attempt: Attempt | None) -> pb.RekeyStatus:
        required = (await self._seal.openers.config()).threshold
        if attempt is None:
            return pb.RekeyStatus(required=required)
        verification = attempt.verification
        return pb.RekeyStatus(
            started=True,
            nonce=attempt.nonce,
            t=attempt.new_threshold,
            n=attempt.new_shares,
            progress=len(attempt.given),
            required=required,
            pgp_fingerprints=pgp.fingerprints(attempt.pgp_keys),
            backup=attempt.backup,
            verification_required=attempt.verify,
            verification_nonce=verification.nonce if verification else "",
        )


def _verification_status(attempt: Attempt) -> pb.RekeyVerificationStatus:
    verification = attempt.verification
    return pb.RekeyVerificationStatus(
        nonce=verification.nonce if verification else "",
        started=verification is not None,
        t=attempt.new_threshold,
        n=attempt.new_shares,
        progress=len(verification.given) if verification else 0,
    )
