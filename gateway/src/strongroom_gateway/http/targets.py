"""Which method a path and an operation lead to, remembered for as long as the mounts stay as they are."""

import sys
from collections.abc import Mapping

import msgspec

from strongroom.options.v1 import options_pb2 as options
from strongroom_gateway.contract.routes import CAPABILITY, LISTS, MethodSpec, RouteTable, respelled
from strongroom_gateway.http.absent import why
from strongroom_gateway.http.paths import ABSOLUTE, canonical, check_folder
from strongroom_gateway.mounts.table import ACTIVE, MountTable, Snapshot
from strongroom_gateway.pipeline import HELP
from strongroom_runtime.bounded import Bounded
from strongroom_runtime.context import MountContext
from strongroom_runtime.errors import Kind, ServiceError

_KEPT_BYTES = 16 << 20  # some 18,000 usual ones
_COPIES = 5  # of a path: as it came, as it is clean, for lists, in what it names, and in what is said of it
_OBJECTS = 500  # bytes that the objects of one target take, however long its path is
_COMMANDS: dict[int, str] = {
    options.OPERATION_LIST: "list",
    options.OPERATION_SCAN: "scan",
    options.OPERATION_UPDATE: "put",
    options.OPERATION_DELETE: "delete",
    options.OPERATION_PATCH: "patch",
}


class Target(msgspec.Struct, gc=False):
    """Where requests for a path with an operation go.

    Args:
        path: canonical; a list's ends with a slash.
        operation: what is asked for.
        spec: the method; None where there is none.
        captures: the fields that the path gives.
        mount: that the path lies in.
        snapshot: the mounts that this rests on; None where it rests on none.
        missing: what to say, to those who may know, where there is no method.
        capability: what policies are asked for.
    """

    path: str
    operation: int
    spec: MethodSpec | None = None
    captures: Mapping[str, str] = {}
    mount: MountContext | None = None
    snapshot: Snapshot | None = None
    missing: ServiceError | None = None
    capability: str = ""


class Targets:
    """Finds targets.

    Args:
        routes: the methods.
        mounts: the mounts.
    """

    def __init__(self, routes: RouteTable, mounts: MountTable) -> None:
        self._routes = routes
        self._mounts = mounts
        self._kept: Bounded[tuple[str, int, bool], Target] = Bounded(_KEPT_BYTES)

    async def of(self, path: str, operation: int, *, helps: bool) -> Target:
        """Returns where a request goes.

        Args:
            path: as it came, decoded once.
            operation: what is asked for.
            helps: for an explanation of the path instead.

        Raises:
            ServiceError: as `canonical`; SEALED where the mounts cannot be read.
        """
        name = (path, operation, helps)
        known = self._kept.get(name)
        if known is not None and (
            known.snapshot is None or known.snapshot is await self._mounts.current()
        ):
            return known
        clean, folder = canonical(path)
        if folder:
            check_folder(clean, operation)
        found = await self._find(clean, operation, helps=helps)
        self._kept.keep(name, found, _COPIES * sys.getsizeof(path) + _OBJECTS)
        return found

    def work_sealed(self, path: str) -> bool:
        """Returns whether a path, as it came, has methods that need no keys.

        Raises:
            ServiceError: as `canonical`.
        """
        clean, _ = canonical(path)
        return any(spec.works_sealed for spec in self._routes.at(None, clean))

    async def _find(self, path: str, operation: int, *, helps: bool) -> Target:
        target = await (self._help(path, operation) if helps else self._route(path, operation))
        spec = target.spec
        target.capability = spec.capability if spec is not None else CAPABILITY[operation]
        if helps:
            target.capability = "help"
        if operation in LISTS and path:
            target.path = f"{target.path}/"
        return target

    async def _help(self, path: str, operation: int) -> Target:
        mounts = await self._mounts.current()
        spec, captures = self._routes.methods[HELP], {"path": path}
        return Target(path, operation, spec, captures, mounts.contexts["sys/"], mounts)

    async def _route(self, path: str, operation: int) -> Target:
        if path.startswith(ABSOLUTE):
            return await self._absolute(path, operation)
        mounts = await self._mounts.current()
        found = mounts.find(path + "/")
        if found is None or found[0].state != ACTIVE:
            return Target(path, operation, snapshot=mounts, missing=_no_route(path))
        mount, context = found
        try:
            spec, captures = self._routes.match(mount.kind, path[len(mount.path) :], operation)
        except ServiceError as error:
            missing = _hint(error, operation) if mount.kind == ("kv", "2") else error.again()
            return Target(path, operation, mount=context, snapshot=mounts, missing=missing)
        relative, captures = respelled(spec, path[len(mount.path) :], captures)
        path = (mount.path + relative).removesuffix("/")
        return Target(path, operation, spec, captures, context, mounts)

    async def _absolute(self, path: str, operation: int) -> Target:
        try:
            spec, captures = self._routes.match(None, path, operation)
        except ServiceError as error:
            return Target(path, operation, missing=why(error, path))
        path, captures = respelled(spec, path, captures)
        if spec.works_sealed:
            return Target(path, operation, spec, captures)  # the table may not be readable
        mounts = await self._mounts.current()
        mount = mounts.contexts["sys/" if path.startswith("sys/") else "auth/token/"]
        return Target(path, operation, spec, captures, mount, mounts)


def _hint(error: ServiceError, operation: int) -> ServiceError:
    """Returns the error for a path that a mount of versioned secrets does not have: people forget `data/`."""
    if error.kind is not Kind.NOT_FOUND:
        return error.again()
    command = _COMMANDS.get(operation, "get")
    return ServiceError(
        Kind.NOT_FOUND,
        warnings=(
            "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to"
            f" use. If using the OpenBao CLI, use 'bao kv {command}' for this operation.",
        ),
    )


def _no_route(path: str) -> ServiceError:
    shown = path.replace('"', "")
    text = f'no handler for route "{shown}". route entry not found.'
    return why(ServiceError(Kind.NOT_FOUND, text), path)
