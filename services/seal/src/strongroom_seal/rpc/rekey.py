"""RekeyService: replacing the shares that people hold."""

import base64

from strongroom.seal.v1 import rekey_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
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
        if request.pgp_keys or request.backup:
            raise invalid("pgp_keys: encrypting shares with PGP is not supported")
        if request.require_verification:
            raise invalid("require_verification: not supported")
        attempt = await self._rekey.begin(request.secret_shares, request.secret_threshold)
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
        return pb.UpdateRekeyResponse(
            nonce=attempt.nonce,
            started=not shares,
            complete=bool(shares),
            t=attempt.new_threshold,
            n=attempt.new_shares,
            progress=len(attempt.given),
            required=required,
            keys=[share.hex() for share in shares],
            keys_base64=[base64.b64encode(share).decode() for share in shares],
        )

    async def _status(self, attempt: Attempt | None) -> pb.RekeyStatus:
        config = await self._seal.openers.config()
        return pb.RekeyStatus(
            started=attempt is not None,
            nonce=attempt.nonce if attempt else "",
            t=attempt.new_threshold if attempt else 0,
            n=attempt.new_shares if attempt else 0,
            progress=len(attempt.given) if attempt else 0,
            required=config.threshold,
        )
