"""SignatureService: signatures, HMACs, CMACs, random bytes and hashes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from strongroom.transit.v1 import signature_pb2 as pb
from strongroom.transit.v1.stream_pb2 import SignStreamRequest
from strongroom_runtime import tools
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_transit.config import Config
from strongroom_transit.domain import cmacs, signatures
from strongroom_transit.domain.keyset import Keyset, versions_in
from strongroom_transit.domain.signatures import Scheme, Signed
from strongroom_transit.rpc.common import (
    check_partial,
    outcomes,
    readable,
    run,
    status_of,
    usable,
)
from strongroom_transit.storage import Keys


class SignatureHandlers:
    """Answers requests to sign/, verify/, hmac/, cmac/, random/ and hash/."""

    def __init__(self, keys: Keys, config: Config) -> None:
        self._keys = keys
        self._config = config

    async def Sign(self, request: pb.SignRequest, context: RequestContext) -> pb.SignResponse:
        check_partial(request.partial_failure_response_code)
        keyset = await usable(
            self._keys, request.name, {request.key_version}, context, "signing key"
        )
        scheme = scheme_of(request)
        scheme.check(keyset.key.kind)

        def sign(item: Any) -> Signed:
            data = _input(item)
            return signatures.sign(keyset, data, item.context, request.key_version, scheme)

        if not request.batch_input:
            signature, version, public = sign(request)
            return pb.SignResponse(
                signature=signature, key_version=version, public_key=public, publickey=public
            )
        items = request.batch_input
        results = await run(keyset, items, readable(sign), self._config)
        response = pb.SignResponse(
            status=status_of(results, request.partial_failure_response_code, 0)
        )
        outcomes(response.batch_results, items, results, _signed, _not_signed)
        return response

    async def Verify(self, request: pb.VerifyRequest, context: RequestContext) -> pb.VerifyResponse:
        items = request.batch_input
        check_partial(request.partial_failure_response_code)
        versions = versions_in(
            each.signature or each.hmac or each.cmac for each in items or (request,)
        )
        keyset = await usable(
            self._keys, request.name, versions, context, "signature verification key"
        )
        verify = partial(_verifier(request), keyset)
        if not items:
            return pb.VerifyResponse(valid=verify(request))
        results = await run(keyset, items, readable(verify), self._config)
        response = pb.VerifyResponse(
            status=status_of(results, request.partial_failure_response_code, 0)
        )
        outcomes(response.batch_results, items, results, _verified, _not_verified)
        return response

    async def Hmac(self, request: pb.HmacRequest, context: RequestContext) -> pb.HmacResponse:
        check_partial(request.partial_failure_response_code)
        keyset = await usable(self._keys, request.name, {request.key_version}, context)

        def make(item: Any) -> str:
            data = _input(item)
            return signatures.make_hmac(keyset, data, request.key_version, request.algorithm)

        if not request.batch_input:
            return pb.HmacResponse(hmac=make(request))
        items = request.batch_input
        results = await run(keyset, items, readable(make), self._config)
        response = pb.HmacResponse(
            status=status_of(results, request.partial_failure_response_code, 0)
        )
        outcomes(response.batch_results, items, results, _with_hmac)
        return response

    async def Cmac(self, request: pb.CmacRequest, context: RequestContext) -> pb.CmacResponse:
        check_partial(request.partial_failure_response_code)
        keyset = await usable(self._keys, request.name, {request.key_version}, context)
        cmacs.check(keyset)
        size = cmacs.length(request.mac_length, request.url_mac_length)

        def make(item: Any) -> str:
            return cmacs.make(keyset, _input(item), request.key_version, size)

        if not request.batch_input:
            return pb.CmacResponse(cmac=make(request))
        items = request.batch_input
        results = await run(keyset, items, readable(make), self._config)
        response = pb.CmacResponse(
            status=status_of(results, request.partial_failure_response_code, 0)
        )
        outcomes(response.batch_results, items, results, _with_cmac)
        return response

    async def Random(self, request: pb.RandomRequest, context: RequestContext) -> pb.RandomResponse:
        text = tools.random_text(request.bytes, request.source, request.format)
        return pb.RandomResponse(random_bytes=text)

    async def Hash(self, request: pb.HashRequest, context: RequestContext) -> pb.HashResponse:
        return pb.HashResponse(
            sum=tools.hash_text(request.input, request.algorithm, request.format)
        )


def scheme_of(request: pb.SignRequest | pb.VerifyRequest | SignStreamRequest) -> Scheme:
    """Returns how a request wants its signatures."""
    return Scheme(
        request.hash_algorithm,
        request.prehashed,
        request.signature_algorithm,
        request.marshaling_algorithm,
        request.salt_length,
    )


def _verifier(request: pb.VerifyRequest) -> Callable[[Keyset, Any], bool]:
    scheme = scheme_of(request)

    def verify(keyset: Keyset, item: Any) -> bool:
        if sum(map(bool, (item.signature, item.hmac, item.cmac))) != 1:
            raise invalid("signature, hmac and cmac: exactly one of them must be given")
        data = _input(item)
        if item.cmac:
            cmacs.check(keyset)
            return cmacs.verify(keyset, data, item.cmac, cmacs.length(request.mac_length))
        if item.hmac:
            return signatures.verify_hmac(keyset, data, item.hmac, scheme.hash_name)
        scheme.check(keyset.key.kind)
        return signatures.verify(keyset, data, item.signature, item.context, scheme)

    return verify


def _input(item: Any) -> bytes:
    if not item.HasField("input"):
        raise invalid("input: is missing")
    data: bytes = item.input
    return data


def _signed(message: pb.SignResult, result: Signed) -> None:
    message.signature, message.key_version = result.signature, result.version
    if result.public_key is not None:
        message.publickey = result.public_key


def _not_signed(message: pb.SignResult) -> None:
    message.key_version = 0


def _verified(message: pb.VerifyResult, valid: bool) -> None:
    message.valid = valid


def _not_verified(message: pb.VerifyResult) -> None:
    message.valid = False


def _with_hmac(message: pb.HmacResult, hmac: str) -> None:
    message.hmac = hmac


def _with_cmac(message: pb.CmacResult, cmac: str) -> None:
    message.cmac = cmac
