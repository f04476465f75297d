"""What travels with a request from the gateway to a handler."""

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True)
class MountContext:
    """The mount that a request was routed to.

    `path` ends with a slash (`secret/`, `auth/approle/`). `uuid` never changes, whatever the path
    becomes, and is what services key their storage by. Lease times are effective, in seconds.
    """

    path: str
    type: str
    uuid: str
    accessor: str
    options: dict[str, str] = field(default_factory=dict)
    default_lease_ttl: int = 2_764_800
    max_lease_ttl: int = 2_764_800
    config: bytes = b""  # JSON of the rest of the tuning: user_lockout_config, token_type, …


@dataclass(frozen=True, slots=True)
class TokenContext:
    """Who asks: what services may know of the token.

    `id` is the storage identity of the token (its HMAC, hexadecimal): it keys what belongs to the token
    (cubbyhole, leases) and cannot be used as a token.
    """

    id: str
    accessor: str
    display_name: str = ""
    policies: tuple[str, ...] = ()
    entity_id: str = ""
    root: bool = False


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """Everything about a request beside its message.

    `path` is the whole canonical path (`secret/data/app`). `may_create` and `may_update` say what the
    policy allows on a create-or-update route: the handler must refuse, with `errors.denied()`, to create
    or to update what is not allowed, in the transaction that writes. `deadline` is in the time of
    `Clock.monotonic` of this process; zero means none. `token` is None on unauthenticated routes.
    `of_others`: on a route that names a subject (a lease id), the policy allows the operation on its very path;
    without it the handler must refuse what belongs to another token. `mount` is then the one in which the subject
    lies.
    `caller` is the service that calls (`gateway`, `auth`).
    """

    request_id: str
    path: str = ""
    mount: MountContext | None = None
    token: TokenContext | None = None
    client_address: str = ""
    deadline: float = 0.0
    may_create: bool = True
    may_update: bool = True
    sudo: bool = False
    caller: str = "gateway"
    traceparent: str = ""
    linearizable: bool = False  # the client asked for a read through to etcd
    of_others: bool = False
