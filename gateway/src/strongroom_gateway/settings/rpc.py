"""ConfigService: the contract to and from the settings of the gateway."""

import re
from collections.abc import Iterable, Mapping

import msgspec

from strongroom.sys.v1 import config_pb2 as pb
from strongroom_gateway.http.cors import HEADERS, Cors
from strongroom_gateway.settings.store import Settings, SettingsStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid, not_found

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x20-\x7e]{1,4096}")
_MOST = 200
# They hold what opens something, whoever sends them.
_SECRET = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-vault-token", "x-vault-mfa"}
)


class ConfigHandlers:
    """Answers requests to sys/config.

    Args:
        settings: what is changed.
        state: the configuration of the process, without anything secret.
    """

    def __init__(self, settings: SettingsStore, state: Mapping[str, object]) -> None:
        self._settings = settings
        self._state = state

    async def ReadCors(
        self, request: pb.ReadCorsRequest, context: RequestContext
    ) -> pb.ReadCorsResponse:
        cors = (await self._settings.current()).cors
        if not cors.enabled:
            return pb.ReadCorsResponse()
        return pb.ReadCorsResponse(
            enabled=True,
            allowed_origins=pb.CorsValues(values=cors.origins),
            allowed_headers=pb.CorsValues(values=(*HEADERS, *cors.headers)),
            allow_credentials=cors.credentials,
        )

    async def WriteCors(
        self, request: pb.WriteCorsRequest, context: RequestContext
    ) -> pb.WriteCorsResponse:
        await self._change(cors=_cors(request))
        return pb.WriteCorsResponse()

    async def DeleteCors(
        self, request: pb.DeleteCorsRequest, context: RequestContext
    ) -> pb.DeleteCorsResponse:
        await self._change(cors=Cors())
        return pb.DeleteCorsResponse()

    async def ListUiHeaders(
        self, request: pb.ListUiHeadersRequest, context: RequestContext
    ) -> pb.ListUiHeadersResponse:
        names = sorted((await self._settings.current()).ui_headers)
        if not names:
            raise not_found()
        return pb.ListUiHeadersResponse(keys=names)

    async def ReadUiHeader(
        self, request: pb.ReadUiHeaderRequest, context: RequestContext
    ) -> pb.ReadUiHeaderResponse:
        values = (await self._settings.current()).ui_headers.get(_name(request.header))
        if values is None:
            raise not_found()
        if request.multivalue:
            return pb.ReadUiHeaderResponse(values=pb.CorsValues(values=values))
        return pb.ReadUiHeaderResponse(value=values[0])

    async def WriteUiHeader(
        self, request: pb.WriteUiHeaderRequest, context: RequestContext
    ) -> pb.WriteUiHeaderResponse:
        name = _name(request.header)
        if name.startswith("x-vault-"):
            raise invalid("header: X-Vault headers cannot be set")
        values = tuple(request.values)
        if not values or not all(_VALUE.fullmatch(value) for value in values):
            raise invalid("values: takes at least one text of printable ASCII")

        await self._put("ui_headers", name, values)
        return pb.WriteUiHeaderResponse()

    async def DeleteUiHeader(
        self, request: pb.DeleteUiHeaderRequest, context: RequestContext
    ) -> pb.DeleteUiHeaderResponse:
        await self._remove("ui_headers", _name(request.header))
        return pb.DeleteUiHeaderResponse()

    async def ReadAuditedHeaders(
        self, request: pb.ReadAuditedHeadersRequest, context: RequestContext
    ) -> pb.ReadAuditedHeadersResponse:
        headers = (await self._settings.current()).audited_headers
        return pb.ReadAuditedHeadersResponse(
            headers={name: pb.AuditedHeader(hmac=hmac) for name, hmac in headers.items()}
        )

    async def ReadAuditedHeader(
        self, request: pb.ReadAuditedHeaderRequest, context: RequestContext
    ) -> pb.ReadAuditedHeaderResponse:
        hmac = (await self._settings.current()).audited_headers.get(_name(request.header))
        if hmac is None:
            raise invalid("Could not find header in config")
        return pb.ReadAuditedHeaderResponse(header={request.header: pb.AuditedHeader(hmac=hmac)})

    async def WriteAuditedHeader(
        self, request: pb.WriteAuditedHeaderRequest, context: RequestContext
    ) -> pb.WriteAuditedHeaderResponse:
        name = _name(request.header)
        if name in _SECRET and not request.hmac:
            raise invalid("hmac: must be true for a header that holds a secret")

        await self._put("audited_headers", name, request.hmac)
        return pb.WriteAuditedHeaderResponse()

    async def DeleteAuditedHeader(
        self, request: pb.DeleteAuditedHeaderRequest, context: RequestContext
    ) -> pb.DeleteAuditedHeaderResponse:
        await self._remove("audited_headers", _name(request.header))
        return pb.DeleteAuditedHeaderResponse()

    async def ReadSanitizedState(
        self, request: pb.ReadSanitizedStateRequest, context: RequestContext
    ) -> pb.ReadSanitizedStateResponse:
        return pb.ReadSanitizedStateResponse(document=msgspec.json.encode(self._state))

    async def _change(self, **changes: object) -> None:
        await self._settings.change(lambda settings: msgspec.structs.replace(settings, **changes))

    async def _put(self, kind: str, name: str, value: object) -> None:
        """Sets one header of a kind, `ui_headers` or `audited_headers`.

        Raises:
            ServiceError: INVALID where there are too many.
        """

        def change(settings: Settings) -> Settings:
            headers = {**getattr(settings, kind), name: value}
            if len(headers) > _MOST:
                raise invalid(f"there may be at most {_MOST} headers")
            return msgspec.structs.replace(settings, **{kind: headers})

        await self._settings.change(change)

    async def _remove(self, kind: str, name: str) -> None:
        """Forgets one header of a kind."""

        def change(settings: Settings) -> Settings:
            headers = {k: v for k, v in getattr(settings, kind).items() if k != name}
            return msgspec.structs.replace(settings, **{kind: headers})

        await self._settings.change(change)


def _cors(request: pb.WriteCorsRequest) -> Cors:
    """Returns the settings that a message describes.

    Raises:
        ServiceError: INVALID.
    """
    if request.HasField("enabled") and not request.enabled:
        return Cors()
    origins = _texts("allowed_origins", request.allowed_origins)
    if not origins:
        raise invalid("allowed_origins: at least one origin or the wildcard must be provided")
    if "*" in origins and len(origins) > 1:
        raise invalid("allowed_origins: to allow all origins the '*' must be the only value")
    headers = _texts("allowed_headers", request.allowed_headers)
    if not all(_TOKEN.fullmatch(name) for name in headers):
        raise invalid("allowed_headers: takes names of headers")
    return Cors(True, origins, headers, request.allow_credentials)


def _texts(field: str, values: Iterable[str]) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys(value.strip() for value in values if value.strip()))
    if len(texts) > _MOST or not all(_VALUE.fullmatch(text) for text in texts):
        raise invalid(f"{field}: takes up to {_MOST} texts of printable ASCII")
    return texts


def _name(header: str) -> str:
    """Returns the one form of a header's name.

    Raises:
        ServiceError: INVALID for what cannot be one.
    """
    if not _TOKEN.fullmatch(header):
        raise invalid("header: takes the name of a header")
    return header.lower()
