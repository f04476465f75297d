"""One contract, two wires: whatever a request says over gRPC, it says over HTTP, to policies, services and the log.

Requests are made from the descriptors: every method, with all of its fields set.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from tests.fakes.store import MemoryStore

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.call import Call
from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import MethodSpec, RouteTable, path_for
from strongroom_gateway.grpc_wire import GrpcWire
from strongroom_gateway.http.wire import HttpRequest, HttpWire
from strongroom_gateway.mounts.table import MountTable, new_mount
from strongroom_gateway.wrapping.older_unwrap import OlderUnwrap
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.durations import format_seconds
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.handlers import Shape

NOTHING: Any = None  # what these requests do not get to
ROUTES = RouteTable(public_services())
MOUNTS = {
    ("kv", "1"): "one",
    ("kv", "2"): "team/two",
    ("cubbyhole", ""): "cubbyhole",
    ("transit", ""): "transit",
    ("database", ""): "databases",
    ("approle", ""): "auth/approle",
    ("userpass", ""): "auth/people",
}
# ?help=1 over HTTP, and what wrapping tokens alone find there.
OTHERWISE = ("/ReadHelp", "/UnwrapAsText")
BOTH = {
    name: spec
    for name, spec in ROUTES.methods.items()
    if spec.shape is Shape.UNARY and not name.endswith(OTHERWISE)
}
VERBS: dict[int, str] = {
    options.OPERATION_READ: "GET",
    options.OPERATION_LIST: "LIST",
    options.OPERATION_SCAN: "SCAN",
    options.OPERATION_UPDATE: "POST",
    options.OPERATION_CREATE_OR_UPDATE: "POST",
    options.OPERATION_DELETE: "DELETE",
    options.OPERATION_PATCH: "PATCH",
}
TEXTS = frozenset({options.FORMAT_DURATION_TEXT, options.FORMAT_DURATION_OR_OFF})


def option(field: FieldDescriptor, extension: Any) -> Any:
    return field.GetOptions().Extensions[extension]


class Pipeline:
    """Remembers what was asked."""

    asked: Any = None

    async def handle(self, call: Call) -> Any:
        self.asked = call
        raise ServiceError(NOTHING)


class Context:
    """Of a gRPC call by nobody."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"


class Wires:
    """Both, with a mount of each kind."""

    def __init__(self) -> None:
        mounts = MountTable(MemoryStore())
        clock: Any = ManualClock()
        self._mounts = mounts
        self.http = HttpWire(
            ROUTES,
            mounts,
            NOTHING,
            NOTHING,
            NOTHING,
            clock,
            lambda: None,
            OlderUnwrap(ROUTES, NOTHING),
        )
        self.grpc = GrpcWire(ROUTES, mounts, NOTHING, NOTHING, clock)

    async def mount(self) -> None:
        made = {
            f"{path}/": new_mount(f"{path}/", kind, options={"version": version} if version else {})
            for (kind, version), path in MOUNTS.items()
            if kind != "cubbyhole"
        }
        await self._mounts.change(lambda known: known | made)

    async def over_grpc(self, spec: MethodSpec, message: Message) -> Call:
        sent = spec.request.FromString(message.SerializeToString())
        context: Any = Context()
        return await self.grpc._call(spec, sent, context, ("id", "trace"))

    async def over_http(
        self, operation: int, path: str, query: str = "", body: bytes = b""
    ) -> Call:
        async def read() -> bytes:
            return body

        headers = {}
        if operation == options.OPERATION_PATCH:
            headers["content-type"] = "application/merge-patch+json"
        verb = VERBS[operation]
        request = HttpRequest(verb, f"/v1/{path}", query, headers.get, read, "127.0.0.1")
        return await self.http._call(request)


@pytest.fixture
async def wires() -> Wires:
    both = Wires()
    await both.mount()
    return both


def filled(descriptor: Descriptor, message: Any) -> Any:
    """Sets every field of a message to something of its own."""
    for field in descriptor.fields:
        if option(field, options.format) == options.FORMAT_MALFORMED:
            continue
        name = field.name
        kind = field.message_type
        if option(field, options.mount_path):
            continue
        if kind is not None and kind.GetOptions().map_entry:
            of_texts = kind.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
            getattr(message, name)[f"key-{name}"] = f"of-{name}" if of_texts else 3
        elif kind is not None and field.is_repeated:
            filled(kind, getattr(message, name).add())
        elif kind is not None:
            filled(kind, getattr(message, name))
        elif field.is_repeated:
            getattr(message, name).extend([scalar(field), scalar(field)])
        else:
            setattr(message, name, scalar(field))
    return message


def scalar(field: FieldDescriptor) -> Any:
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return f"some-{field.name}"
    if kind == FieldDescriptor.TYPE_BYTES:
        is_json = option(field, options.format) in (options.FORMAT_JSON, options.FORMAT_INLINE)
        return b'{"user":"app","nested":{"list":[1,"two"]}}' if is_json else b"some bytes"
    return True if kind == FieldDescriptor.TYPE_BOOL else 90


def as_json(message: Message, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Returns what a client of the HTTP API would write for a message."""
    body: dict[str, Any] = {}
    for field, value in message.ListFields():
        form = option(field, options.format)
        if field.name in without or option(field, options.mount_path):
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            written: Any = dict(value)
        elif kind is not None and [each.name for each in kind.fields] == ["values"]:
            written = list(value.values)
        elif kind is not None and field.is_repeated:
            written = [as_json(each) for each in value]
        elif kind is not None:
            written = as_json(value)
        elif form in (options.FORMAT_JSON, options.FORMAT_INLINE):
            written = json.loads(value)
        elif form in TEXTS:
            written = format_seconds(value)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            written = base64.b64encode(value).decode()
        else:
            written = list(value) if field.is_repeated else value
        if form == options.FORMAT_INLINE:
            body |= written
        else:
            body[field.name] = written
    return body


def as_query(body: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return ",".join(map(text, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    return urlencode({name: text(value) for name, value in body.items()})


def messages(spec: MethodSpec) -> Iterator[Any]:
    """Yields a full message, and one without what its longer paths capture."""
    message: Any = filled(spec.descriptor.input_type, spec.request())
    if spec.mount is not None:
        message.mount = MOUNTS[spec.mount]
    yield message
    if spec.request_plan.from_path:
        bare = spec.request.FromString(message.SerializeToString())
        for name in spec.request_plan.from_path:
            bare.ClearField(name)
        try:
            path_for(spec, bare)
        except ServiceError:
            return
        yield bare


def whole_path(spec: MethodSpec, message: Any) -> str:
    place = f"{MOUNTS[spec.mount]}/" if spec.mount is not None else ""
    return (place + path_for(spec, message)).rstrip("/")


@pytest.mark.parametrize("method", BOTH)
async def test_a_request_says_the_same_over_both_wires(wires: Wires, method: str) -> None:
    spec = BOTH[method]
    for message in messages(spec):
        path = whole_path(spec, message)
        relative = path[len(MOUNTS[spec.mount]) + 1 :] if spec.mount is not None else path
        captured = frozenset(ROUTES.match(spec.mount, relative, spec.operation)[1])
        body = as_json(message, captured)
        with_body = VERBS[spec.operation] in ("POST", "PATCH")
        one = await wires.over_http(
            spec.operation,
            path,
            "" if with_body else as_query(body),
            json.dumps(body, separators=(",", ":")).encode() if with_body and body else b"",
        )
        other = await wires.over_grpc(spec, message)
        assert (one.spec, one.path, one.operation, one.mount) == (
            other.spec, other.path, other.operation, other.mount,
        )  # fmt: skip
        assert other.parameters() == one.parameters()
        assert not one.warnings
        sent: Any = other.message
        if spec.mount is not None:
            sent.ClearField("mount")
        assert sent == one.message


ODD = (
    "a/b", "a/", "/a", "//a//", "a//b", "/", "//", ".", "..", "a/..", "../a", "\x00", "a\nb", "é",
    "A", "%2e%2e", "a%2fb", " a", "a ", "a" * 70_000,
    # Ends of the paths of other methods.
    "a/tune", "a/config", "a/rotate", "a/password", "a/secret-id", "a/role-id", "a/login", "role-id",
    "secret-id", "create", "random/32", "lookup-self",
)  # fmt: skip


@pytest.mark.parametrize("method", ROUTES.methods)
async def test_no_value_of_a_field_makes_a_path_that_leads_elsewhere(
    wires: Wires, method: str
) -> None:
    """What policies judge is the path, and what is acted upon is what the message says."""
    spec = ROUTES.methods[method]
    fields = [name for name in spec.path_fields if name != "mount"]
    for field in fields:
        for value in ODD:
            message: Any = filled(spec.descriptor.input_type, spec.request())
            if spec.mount is not None:
                message.mount = MOUNTS[spec.mount]
            setattr(message, field, value)
            try:
                call = await wires.over_grpc(spec, message)
            except ServiceError:
                continue
            if method not in BOTH:
                assert all(
                    "**" in "".join(spec.patterns) or "/" not in getattr(call.message, name)
                    for name in fields
                )
                continue
            twin = await wires.over_http(spec.operation, call.path)
            assert twin.spec is spec
            assert twin.path == call.path
            for name in spec.request_plan.from_path:
                assert getattr(call.message, name) == getattr(twin.message, name)


@pytest.mark.parametrize(
    "mount",
    ["/team/two", "team/two/", "//team/two//", "team//two", "TEAM/two", "team", "team/two/data", "..",
     "team/../team/two", "team/two\x00", "one", "sys", "auth/token", "auth", "nothing"],
)  # fmt: skip
async def test_a_mount_is_the_one_in_whose_path_a_request_is_judged(
    wires: Wires, mount: str
) -> None:
    spec = BOTH["/strongroom.kv.v1.KvV2Service/ReadSecret"]
    try:
        call = await wires.over_grpc(spec, spec.request(mount=mount, path="a"))
    except ServiceError:
        assert mount.strip("/") != "team/two"
        return
    assert call.path == f"{mount.strip('/')}/data/a"
    if mount.strip("/") == "team/two":
        assert call.spec is spec
    else:
        assert call.spec is None
        assert call.missing is not None


@pytest.mark.parametrize("mount", ["", "/", "//"])
async def test_a_request_without_a_mount_is_refused(wires: Wires, mount: str) -> None:
    spec = BOTH["/strongroom.kv.v1.KvV2Service/ReadSecret"]
    with pytest.raises(ServiceError, match="mount"):
        await wires.over_grpc(spec, spec.request(mount=mount, path="a"))


async def test_what_is_not_set_is_no_parameter(wires: Wires) -> None:
    spec = BOTH["/strongroom.transit.v1.CipherService/Encrypt"]
    call = await wires.over_grpc(spec, spec.request(mount="transit", name="k", plaintext=b"abc"))
    assert call.parameters() == {"plaintext": "YWJj"}


@pytest.mark.parametrize(
    "document",
    [b"{", b"\xff", b'{"a":NaN}', b"[" * 400 + b"]" * 400, b"[" + b"[]," * 1_000_001 + b"[]]"],
)
async def test_json_in_a_field_is_held_to_the_bounds_of_bodies(
    wires: Wires, document: bytes
) -> None:
    for method in ("KvV2Service/WriteSecret", "KvV1Service/WriteValue"):
        spec = BOTH[f"/strongroom.kv.v1.{method}"]
        message: Any = spec.request(mount=MOUNTS[spec.mount or ("", "")], path="a", data=document)
        with pytest.raises(ServiceError, match="JSON"):
            await wires.over_grpc(spec, message)


@pytest.mark.parametrize("seconds", [-1, -(2**63), 2**63 - 1, 10**12])
async def test_spans_are_bounded_as_those_in_bodies(wires: Wires, seconds: int) -> None:
    """Times beyond the year 9999 cannot be written."""
    spec = BOTH["/strongroom.auth.v1.TokenService/CreateToken"]
    message: Any = spec.request()
    message.parameters.ttl = seconds
    with pytest.raises(ServiceError, match="ttl: takes a duration"):
        await wires.over_grpc(spec, message)
    body = json.dumps({"ttl": seconds}).encode()
    one = await wires.over_http(spec.operation, "auth/token/create", body=body)
    assert "ttl: takes a duration" in one.refusal().message


async def test_a_span_may_say_that_something_is_switched_off(wires: Wires) -> None:
    spec = BOTH["/strongroom.kv.v1.KvV2Service/WriteConfig"]
    message: Any = spec.request(mount=MOUNTS["kv", "2"], delete_version_after=-1)
    call = await wires.over_grpc(spec, message)
    assert call.parameters() == {"delete_version_after": "-1s"}


@pytest.mark.parametrize(
    ("method", "field", "path"),
    [
        ("auth.v1.PolicyService/DeletePolicy", "name", "sys/policies/acl/{}"),
        ("auth.v1.PolicyService/ListPolicies", "prefix", "sys/policies/acl/{}/"),
        ("auth.v1.PolicyService/ReadPolicyOld", "name", "sys/policy/{}"),
        ("auth.v1.UserpassService/DeleteUser", "username", "auth/people/users/{}"),
        ("auth.v1.UserpassService/WritePassword", "username", "auth/people/users/{}/password"),
        ("auth.v1.UserpassService/LoginUser", "username", "auth/people/login/{}"),
        ("auth.v1.AppRoleService/ReadRole", "role_name", "auth/approle/role/{}"),
        ("auth.v1.AppRoleService/ListSecretIds", "role_name", "auth/approle/role/{}/secret-id/"),
    ],
)
@pytest.mark.parametrize("name", ["admin", "ADMIN", "Admin", " admin "])
async def test_policies_judge_a_name_in_the_spelling_by_which_it_is_known(
    wires: Wires, method: str, field: str, path: str, name: str
) -> None:
    """As in OpenBao: who is denied `users/admin` must not have `users/ADMIN`, who is the same."""
    spec = BOTH[f"/strongroom.{method}"]
    message: Any = spec.request(**{field: name})
    if spec.mount is not None:
        message.mount = MOUNTS[spec.mount]
    for call in (
        await wires.over_grpc(spec, message),
        await wires.over_http(spec.operation, path.format(name).rstrip("/")),
    ):
        assert call.path == path.format("admin")
        assert getattr(call.message, field) == "admin"


async def test_other_names_stay_as_they_are(wires: Wires) -> None:
    for operation, path in (
        (options.OPERATION_READ, "team/two/data/ADMIN"),
        (options.OPERATION_READ, "auth/token/roles/ADMIN"),
        (options.OPERATION_UPDATE, "transit/encrypt/ADMIN"),
    ):
        assert (await wires.over_http(operation, path)).path == path
