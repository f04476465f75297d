"""Request contexts and errors, to and from the wire."""

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError


def context_to_wire(context: RequestContext) -> link_pb2.RequestContext:
    """Returns the message for a context. Deadline and caller travel by other means."""
    message = link_pb2.RequestContext(
        request_id=context.request_id,
        path=context.path,
        client_address=context.client_address,
        may_create=context.may_create,
        may_update=context.may_update,
        sudo=context.sudo,
        traceparent=context.traceparent,
        linearizable=context.linearizable,
    )
    if context.mount is not None:
        message.mount.CopyFrom(_mount_to_wire(context.mount))
    if context.token is not None:
        token = context.token
        message.token.CopyFrom(
            link_pb2.TokenContext(
                id=token.id,
                accessor=token.accessor,
                display_name=token.display_name,
                policies=token.policies,
                entity_id=token.entity_id,
                root=token.root,
            )
        )
    return message


def context_from_wire(
    message: link_pb2.RequestContext, *, caller: str, deadline: float
) -> RequestContext:
    """Returns the context of a call that `caller` made; the deadline is in this process's time."""
    return RequestContext(
        request_id=message.request_id,
        path=message.path,
        mount=_mount_from_wire(message.mount) if message.HasField("mount") else None,
        token=_token_from_wire(message.token) if message.HasField("token") else None,
        client_address=message.client_address,
        deadline=deadline,
        may_create=message.may_create,
        may_update=message.may_update,
        sudo=message.sudo,
        caller=caller,
        traceparent=message.traceparent,
        linearizable=message.linearizable,
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


def _mount_from_wire(mount: link_pb2.MountContext) -> MountContext:
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


def _token_from_wire(token: link_pb2.TokenContext) -> TokenContext:
    return TokenContext(
        id=token.id,
        accessor=token.accessor,
        display_name=token.display_name,
        policies=tuple(token.policies),
        entity_id=token.entity_id,
        root=token.root,
    )
