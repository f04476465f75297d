"""Request contexts and errors, to and from the wire."""

import functools

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from strongroom.link.v1 import link_pb2
from strongroom_runtime.bounded import Bounded
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.derived import Derived
from strongroom_runtime.errors import Kind, ServiceError

CONTEXT_KEY = "strongroom-context-bin"
ERROR_DOMAIN = "strongroom"
# In the initial metadata of a stream: it was taken, and requests may come.
BEGUN = (("strongroom-begun", "1"),)
# In the trailing metadata of one that was refused before anything of it ran.
NOT_BEGUN = (("strongroom-not-begun", "1"),)
# In the metadata of a member's stream to another member: it carries confirmations alone, and those are given for as
# long as a process is a member, before it has keys and while it drains too.
AS_MEMBER = (("strongroom-member", "1"),)
_MOUNTS_KEPT = 5_000
_TOKENS_BYTES = 8 << 20  # of each kind; some 6,000 usual ones
_TOKEN_OBJECTS = 1_000  # bytes that the objects of one token take, whatever it says


class NotBegunError(ServiceError):
    """A call of which certainly nothing ran: another replica may take it."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, "the service cannot be reached")


def context_to_wire(context: RequestContext, message: link_pb2.RequestContext) -> None:
    """Puts a context into an empty message. Deadline and caller travel by other means.

    Into one that stands where it belongs: messages that are given to others are copied, at several times the cost.
    """
    message.request_id = context.request_id
    message.path = context.path
    message.client_address = context.client_address
    message.may_create = context.may_create
    message.may_update = context.may_update
    message.sudo = context.sudo
    message.traceparent = context.traceparent
    message.linearizable = context.linearizable
    message.of_others = context.of_others
    if context.mount is not None:
        message.mount.CopyFrom(_mounts.of(context.mount))
    if context.token is not None:
        message.token.CopyFrom(_tokens.of(context.token))


def context_from_wire(
    message: link_pb2.RequestContext, *, caller: str, deadline: float
) -> RequestContext:
    """Returns the context of a call that `caller` made; the deadline is in this process's time."""
    return RequestContext(
        request_id=message.request_id,
        path=message.path,
        mount=_mount_from_wire(message.mount.SerializeToString())
        if message.HasField("mount")
        else None,
        token=_token_from_wire(message.token.SerializeToString())
        if message.HasField("token")
        else None,
        client_address=message.client_address,
        deadline=deadline,
        may_create=message.may_create,
        may_update=message.may_update,
        sudo=message.sudo,
        caller=caller,
        traceparent=message.traceparent,
        linearizable=message.linearizable,
        of_others=message.of_others,
    )


def error_to_wire(error: ServiceError) -> link_pb2.Error:
    """Returns the message for an error."""
    return link_pb2.Error(
        kind=error.kind.value, message=error.message, data=error.data, warnings=error.warnings
    )


def error_from_wire(message: link_pb2.Error) -> ServiceError:
    """Returns the error that a handler raised on the other side.

    A kind that this version does not know, from a newer peer, is an internal error.
    """
    try:
        kind = Kind(message.kind)
    except ValueError:
        kind = Kind.INTERNAL
    return ServiceError(kind, message.message, data=message.data, warnings=tuple(message.warnings))


def error_from_status(error: grpc.aio.AioRpcError) -> ServiceError:
    """Returns the error that ended a method outside the stream of frames; UNAVAILABLE for one of the network."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return error_from_wire(link_pb2.Error(kind=info.reason, message=error.details() or ""))
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServiceError(Kind.DEADLINE, "the deadline passed")
    if NOT_BEGUN[0] in tuple(error.trailing_metadata() or ()):
        return NotBegunError()
    return unavailable()


def unavailable() -> ServiceError:
    """Returns the error for a service that no replica answers for."""
    return ServiceError(Kind.UNAVAILABLE, "the service cannot be reached")


def _mount_to_wire(mount: MountContext) -> link_pb2.MountContext:
    return link_pb2.MountContext(
        path=mount.path,
        type=mount.type,
        uuid=mount.uuid,
        accessor=mount.accessor,
        options=mount.options,
        default_lease_ttl=mount.default_lease_ttl,
        max_lease_ttl=mount.max_lease_ttl,
        config=mount.config,
    )


@functools.lru_cache(maxsize=_MOUNTS_KEPT)
def _mount_from_wire(data: bytes) -> MountContext:
    mount = link_pb2.MountContext.FromString(data)
    return MountContext(
        path=mount.path,
        type=mount.type,
        uuid=mount.uuid,
        accessor=mount.accessor,
        options=dict(mount.options),
        default_lease_ttl=mount.default_lease_ttl,
        max_lease_ttl=mount.max_lease_ttl,
        config=mount.config,
    )


def _token_from_wire(data: bytes) -> TokenContext:
    known = _read_tokens.get(data)
    if known is None:
        known = _read_token(data)
        _read_tokens.keep(data, known, 2 * len(data) + _TOKEN_OBJECTS)
    return known


def _read_token(data: bytes) -> TokenContext:
    token = link_pb2.TokenContext.FromString(data)
    return TokenContext(
        id=token.id,
        accessor=token.accessor,
        display_name=token.display_name,
        policies=tuple(token.policies),
        entity_id=token.entity_id,
        root=token.root,
    )


def _token_to_wire(token: TokenContext) -> link_pb2.TokenContext:
    return link_pb2.TokenContext(
        id=token.id,
        accessor=token.accessor,
        display_name=token.display_name,
        policies=token.policies,
        entity_id=token.entity_id,
        root=token.root,
    )


def _token_size(message: link_pb2.TokenContext) -> int:
    return 2 * message.ByteSize() + _TOKEN_OBJECTS


_mounts = Derived(_mount_to_wire, _MOUNTS_KEPT)
_tokens = Derived(_token_to_wire, _TOKENS_BYTES, _token_size)
_read_tokens: Bounded[bytes, TokenContext] = Bounded(_TOKENS_BYTES)
