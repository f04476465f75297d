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
    one_by_one,
    outcomes,
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
            return pb.SignResponse(signature=signature, key_version=version, public_key=public)
        items = list(request.batch_input)
        results = await run(keyset, items, one_by_one(sign), self._config)
        return pb.SignResponse(
            status=status_of(results, request.partial_failure_response_code, 0),
            batch_results=outcomes(items, results, _signed, {"key_version": 0}),
        )

    async def Verify(self, request: pb.VerifyRequest, context: RequestContext) -> pb.VerifyResponse:
        items = list(request.batch_input)
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
        results = await run(keyset, items, one_by_one(verify), self._config)
        return pb.VerifyResponse(
            status=status_of(results, request.partial_failure_response_code, 0),
            batch_results=outcomes(items, results, _verified, {"valid": False}),
        )

    async def Hmac(self, request: pb.HmacRequest, context: RequestContext) -> pb.HmacResponse:
        check_partial(request.partial_failure_response_code)
        keyset = await usable(self._keys, request.name, {request.key_version}, context)

        def make(item: Any) -> str:
            data = _input(item)
            return signatures.make_hmac(keyset, data, request.key_version, request.algorithm)

        if not request.batch_input:
            return pb.HmacResponse(hmac=make(request))
        items = list(request.batch_input)
        results = await run(keyset, items, one_by_one(make), self._config)
        return pb.HmacResponse(
            status=status_of(results, request.partial_failure_response_code, 0),
            batch_results=outcomes(items, results, _with_hmac),
        )

    async def Cmac(self, request: pb.CmacRequest, context: RequestContext) -> pb.CmacResponse:
        check_partial(request.partial_failure_response_code)
        keyset = await usable(self._keys, request.name, {request.key_version}, context)
        cmacs.check(keyset)
        size = cmacs.length(request.mac_length, request.url_mac_length)

        def make(item: Any) -> str:
            return cmacs.make(keyset, _input(item), request.key_version, size)

        if not request.batch_input:
            return pb.CmacResponse(cmac=make(request))
        items = list(request.batch_input)
        results = await run(keyset, items, one_by_one(make), self._config)
        return pb.CmacResponse(
            status=status_of(results, request.partial_failure_response_code, 0),
            batch_results=outcomes(items, results, _with_cmac),
        )

    async def Random(self, request: pb.RandomRequest, context: RequestContext) -> pb.RandomResponse:
        text = tools.random_text(request.bytes, request.source, request.format)
        return pb.RandomResponse(random_bytes=text)

    async def Hash(self, request: pb.HashRequest, context: RequestContext) -> pb.HashResponse:
        return pb.HashResponse(
            sum=tools.hash_text(_input(request), request.algorithm, request.format)
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


def _signed(result: Signed) -> dict[str, Any]:
    fields = {"signature": result.signature, "key_version": result.version}
    return fields if result.public_key is None else {**fields, "publickey": result.public_key}


def _verified(valid: bool) -> dict[str, Any]:
    return {"valid": valid}


def _with_hmac(hmac: str) -> dict[str, Any]:
    return {"hmac": hmac}


def _with_cmac(cmac: str) -> dict[str, Any]:
    return {"cmac": cmac}
