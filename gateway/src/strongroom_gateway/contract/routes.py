"""Routes: from a path and an operation to a method of the contract, and back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.bodies import MAX_BODY, MAX_KEPT_BODY
from strongroom_gateway.contract.decode import RequestPlan
from strongroom_gateway.contract.encode import ResponsePlan
from strongroom_gateway.contract.given import GivenPlan
from strongroom_runtime.derived import Derived
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Shape, shape_of

# What a request may do, as policies name it; `write` where the service tells create from update.
CAPABILITY: dict[int, str] = {
    options.OPERATION_READ: "read",
    options.OPERATION_LIST: "list",
    options.OPERATION_UPDATE: "update",
    options.OPERATION_CREATE_OR_UPDATE: "write",
    options.OPERATION_DELETE: "delete",
    options.OPERATION_PATCH: "patch",
    options.OPERATION_SCAN: "scan",
}
LISTS = (options.OPERATION_LIST, options.OPERATION_SCAN)
_READS = {options.OPERATION_READ, *LISTS}
# What comes with a body over HTTP; of others a query says what there is to say.
WITH_BODY = (
    options.OPERATION_UPDATE,
    options.OPERATION_CREATE_OR_UPDATE,
    options.OPERATION_PATCH,
)

MountKind = tuple[str, str]  # type and version
_HASH = "/strongroom.sys.v1.SystemService/Hash"


@dataclass(frozen=True, slots=True, eq=False)
class MethodSpec:
    """A public method."""

    name: str
    area: str  # its package, by which it is found who answers: `auth` for strongroom.auth.v1
    descriptor: MethodDescriptor
    request: type[Message]
    response: type[Message]
    operation: int
    capability: str
    patterns: tuple[str, ...]
    mount: MountKind | None
    sudo: bool
    unauthenticated: bool
    body: int
    success_status: int
    no_side_effects: bool
    works_sealed: bool
    shape: Shape
    path_fields: tuple[
        str, ...
    ]  # of the request message: the captures of the patterns, and the mount
    subject: str
    any_case: tuple[str, ...]  # fields with names that are the same in capitals
    given_plan: GivenPlan  # of the request message, for policies and audit entries
    request_plan: RequestPlan
    response_plan: ResponsePlan

    @property
    def lists(self) -> bool:
        """Whether its policy path ends with a slash."""
        return self.operation in LISTS

    @property
    def most_bytes(self) -> int:
        """How large a request may be."""
        return MAX_BODY if self.area == "transit" or self.name == _HASH else MAX_KEPT_BODY


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    one: "_Node | None" = None
    # Captures of several segments, each with the literals behind it.
    rest: dict[tuple[str, ...], "_Node"] = field(default_factory=dict)
    methods: dict[int, tuple[MethodSpec, tuple[str, ...]]] = field(default_factory=dict)


class RouteTable:
    """All public methods of some services."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        self.methods: dict[str, MethodSpec] = {}
        self._absolute = _Node()
        self._relative: dict[MountKind, _Node] = {}
        # Of methods over gRPC alone: each by itself, since some have the paths of others.
        self._alone: dict[str, _Node] = {}
        for service in services:
            for rpc in service.methods:
                if rpc.GetOptions().HasExtension(options.route):
                    self._add(_spec(service, rpc))

    @property
    def mount_kinds(self) -> list[MountKind]:
        """The kinds of mounts that are served."""
        return list(self._relative)

    def match(
        self, mount: MountKind | None, path: str, operation: int
    ) -> tuple[MethodSpec, Mapping[str, str]]:
        """Returns the method for a path and what its pattern captures.

        Args:
            mount: the kind of mount that the path is relative to; None for absolute paths, without a slash before.
            path: canonical, without a slash at its end.
            operation: OPERATION_UPDATE finds create-or-update methods as well.

        Raises:
            ServiceError: NOT_FOUND for an unknown path, or one that is no folder; UNSUPPORTED where it does not know
                the operation.
        """
        root = self._absolute if mount is None else self._relative.get(mount)
        return _match(root or _Node(), path, operation)

    def captures(self, spec: MethodSpec, path: str) -> Mapping[str, str]:
        """Returns what the path of a gRPC call captures.

        A field of the message can have slashes, and with them make the path of another method, which is what policies
        for that path are about. So only the method to which the path leads over HTTP is one for it.

        Args:
            spec: the method that is called.
            path: canonical, relative to its mount or absolute without a slash before, and without one at its end.

        Raises:
            ServiceError: INVALID where it is not the path of the method.
        """
        alone = self._alone.get(spec.name)
        root = alone or (self._absolute if spec.mount is None else self._relative[spec.mount])
        try:
            found, captures = _match(root, path, spec.operation)
        except ServiceError:
            found, captures = None, {}
        if found is not spec:
            raise invalid("a field of the message makes its path one that is not this method's")
        return captures

    def at(self, mount: MountKind | None, path: str) -> list[MethodSpec]:
        """Returns the methods of a path; those of the most literal pattern that matches."""
        root = self._absolute if mount is None else self._relative.get(mount)
        for node, _ in _walk(root, path.split("/") if path else [], ()) if root is not None else ():
            if node.methods:
                return [spec for spec, _ in node.methods.values()]
        return []

    def respelled(self, mount: MountKind | None, path: str) -> str:
        """Returns a path with names in the spelling by which they are known, whatever is asked of it.

        Args:
            mount: the kind of mount that the path is relative to; None for absolute paths, without a slash before.
            path: canonical, without a slash at its end.
        """
        root = self._absolute if mount is None else self._relative.get(mount)
        for node, captured in _walk(root or _Node(), path.split("/"), ()):
            # The methods of one pattern fold the same names: a test sees to it.
            for spec, names in node.methods.values():
                return respelled(spec, path, dict(zip(names, captured, strict=True)))[0]
        return path

    def _add(self, spec: MethodSpec) -> None:
        self.methods[spec.name] = spec
        raw_stream = spec.shape is Shape.STREAM and spec.body == options.BODY_RAW
        over_http = spec.shape is Shape.UNARY or raw_stream
        for pattern in spec.patterns:
            absolute = pattern.startswith("/")
            if spec.mount is None and not absolute:
                raise TypeError(f"{spec.name}: a relative path needs a mount")
            if not over_http:
                node = self._alone.setdefault(spec.name, _Node())
            elif absolute or spec.mount is None:
                node = self._absolute
            else:
                node = self._relative.setdefault(spec.mount, _Node())
            names = _insert(node, pattern.removeprefix("/"), spec)
            for name in names:
                if name not in spec.request.DESCRIPTOR.fields_by_name:
                    raise TypeError(f"{spec.name}: no field {name} for the path")


def path_for(spec: MethodSpec, message: Message) -> str:
    """Returns the path, relative to the mount or absolute without a slash before, of a gRPC call.

    Of the patterns whose captures the message all gives, the one with the most. A list's path ends with a slash.

    Raises:
        ServiceError: INVALID where the message leaves a field of the path empty.
    """
    for pattern in _patterns.of(spec):
        segments = [str(getattr(message, field)) if field else text for text, field in pattern]
        if spec.lists:
            segments = [segment.strip("/") for segment in segments]
        if all(segments):
            path = "/".join(segments)
            return path + "/" if spec.lists and path else path
    raise ServiceError(Kind.INVALID, "the message leaves a field of its path empty")


def respelled(
    spec: MethodSpec, path: str, captures: Mapping[str, str]
) -> tuple[str, Mapping[str, str]]:
    """Returns a path, and what it captures, with names in the spelling by which they are known.

    A policy that denies `users/admin` would else allow `users/ADMIN`, who is the same.

    Args:
        spec: the method.
        path: as it leads to the method.
        captures: what it captures.
    """
    plain = {
        name: captures[name].strip().lower() or captures[name]
        for name in spec.any_case
        if name in captures
    }
    plain |= {name: text for name, text in captures.items() if name not in plain}
    if plain != captures:
        for pattern in _patterns.of(spec):
            if path == _filled(pattern, captures):
                return _filled(pattern, plain), plain
    return path, captures


def _filled(pattern: list[tuple[str, str]], captures: Mapping[str, str]) -> str:
    return "/".join(captures.get(field, "") if field else text for text, field in pattern)


def _patterns_of(spec: MethodSpec) -> list[list[tuple[str, str]]]:
    """Returns the patterns of a method in the order in which they are tried.

    Each is a list of segments: a text, or the field that has it.
    """
    # What a request acts upon is judged beside the path (`Route.subject`), whichever of its forms was used.
    most_first = not spec.subject
    ordered = sorted(spec.patterns, key=lambda p: p.count("{"), reverse=most_first)
    return [
        [
            ("", _capture(segment)[0]) if segment.startswith("{") else (segment, "")
            for segment in (pattern.removeprefix("/").split("/") if pattern else [])
        ]
        for pattern in ordered
    ]


_patterns = Derived(_patterns_of)


def _spec(service: ServiceDescriptor, rpc: MethodDescriptor) -> MethodSpec:
    route = rpc.GetOptions().Extensions[options.route]
    mount = service.GetOptions().Extensions[options.mount]
    captures = _captures(route.path)
    return MethodSpec(
        name=f"/{service.full_name}/{rpc.name}",
        area=service.full_name.split(".")[1],
        descriptor=rpc,
        request=GetMessageClass(rpc.input_type),
        response=GetMessageClass(rpc.output_type),
        operation=route.operation,
        capability=CAPABILITY[route.operation],
        patterns=tuple(route.path),
        mount=(mount.type, mount.version) if mount.type else None,
        sudo=route.sudo,
        unauthenticated=route.unauthenticated,
        body=route.body,
        success_status=route.success_status,
        no_side_effects=route.no_side_effects
        or (route.operation in _READS and not route.side_effects),
        works_sealed=route.works_sealed,
        shape=shape_of(rpc),
        path_fields=(*_mount_fields(rpc.input_type), *captures),
        subject=route.subject,
        any_case=tuple(
            f.name for f in rpc.input_type.fields if f.GetOptions().Extensions[options.any_case]
        ),
        given_plan=GivenPlan(rpc.input_type, as_query=route.operation not in WITH_BODY),
        request_plan=RequestPlan(
            rpc.input_type,
            any_case=route.works_sealed,
            from_path=[name for name in captures if name not in route.path_or_body],
        ),
        response_plan=ResponsePlan(rpc.output_type),
    )


def _mount_fields(message: Descriptor) -> list[str]:
    return [f.name for f in message.fields if f.GetOptions().Extensions[options.mount_path]]


def _captures(patterns: Iterable[str]) -> list[str]:
    """Returns the fields that the patterns capture, each once."""
    segments = (segment for pattern in patterns for segment in pattern.split("/"))
    return list(dict.fromkeys(_capture(each)[0] for each in segments if each.startswith("{")))


def _capture(segment: str) -> tuple[str, bool]:
    """Returns the name of a capture, and whether it takes several segments."""
    name, _, stars = segment[1:-1].partition("=")
    return name, stars == "**"


def _insert(node: _Node, pattern: str, spec: MethodSpec) -> tuple[str, ...]:
    names: list[str] = []
    segments = pattern.split("/") if pattern else []
    while segments:
        segment = segments.pop(0)
        if not segment.startswith("{"):
            node = node.literals.setdefault(segment, _Node())
            continue
        name, several = _capture(segment)
        names.append(name)
        if several:
            node = node.rest.setdefault(tuple(segments), _Node())
            break
        if node.one is None:
            node.one = _Node()
        node = node.one
    if spec.operation in node.methods:
        raise TypeError(f"{spec.name}: {pattern} has that operation already")
    node.methods[spec.operation] = (spec, tuple(names))
    return tuple(names)


def _match(root: _Node, path: str, operation: int) -> tuple[MethodSpec, dict[str, str]]:
    """Returns the method for a path below a node and what its pattern captures.

    Raises:
        ServiceError: as `RouteTable.match`.
    """
    known = False
    for node, captured in _walk(root, path.split("/") if path else [], ()):
        known = known or bool(node.methods)
        for wanted in _alternatives(operation):
            if wanted in node.methods:
                spec, names = node.methods[wanted]
                return spec, dict(zip(names, captured, strict=True))
    if known and operation not in LISTS:
        raise ServiceError(Kind.UNSUPPORTED, "unsupported operation")
    raise ServiceError(Kind.NOT_FOUND, "unsupported path")


def _walk(
    node: _Node, segments: list[str], captured: tuple[str, ...]
) -> Iterable[tuple[_Node, tuple[str, ...]]]:
    """Yields the nodes that a path reaches, the most literal first."""
    if not segments:
        yield node, captured
        return
    head, tail = segments[0], segments[1:]
    if head in node.literals:
        yield from _walk(node.literals[head], tail, captured)
    if node.one is not None:
        yield from _walk(node.one, tail, (*captured, head))
    for behind in sorted(node.rest, key=len, reverse=True):
        count = len(segments) - len(behind)
        if count >= 1 and tuple(segments[count:]) == behind:
            yield node.rest[behind], (*captured, "/".join(segments[:count]))


def _alternatives(operation: int) -> tuple[int, ...]:
    if operation == options.OPERATION_UPDATE:
        return (options.OPERATION_UPDATE, options.OPERATION_CREATE_OR_UPDATE)
    return (operation,)
