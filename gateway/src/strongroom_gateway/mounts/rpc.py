"""MountService: the contract to and from the mount table."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from strongroom.sys.v1 import mounts_pb2 as pb
from strongroom_gateway.mounts import messages
from strongroom_gateway.mounts.engines import LOGINS, SECRETS, Engine
from strongroom_gateway.mounts.table import (
    ACTIVE,
    REMOVING,
    RESERVED,
    Mount,
    Mounts,
    MountTable,
    check_free,
    new_mount,
)
from strongroom_gateway.mounts.tunable import (
    changed_options,
    check_new_path,
    check_plugin_version,
    check_size,
    check_tunable,
    first_options,
)
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import ServiceError, denied, invalid, not_found
from strongroom_runtime.handlers import Caller
from strongroom_runtime.policy import Acl
from strongroom_runtime.repeated import Repeated

_RETRY_SECONDS = 2.0

AclOf = Callable[[RequestContext], Awaitable[Acl | None]]


class MountHandlers:
    """Answers requests to sys/mounts, sys/auth and sys/remount."""

    def __init__(self, table: MountTable, services: Mapping[str, Caller], acl_of: AclOf) -> None:
        self._table = table
        self._services = services
        self._acl_of = acl_of

    async def ListMounts(
        self, request: pb.ListMountsRequest, context: RequestContext
    ) -> pb.ListMountsResponse:
        return pb.ListMountsResponse(mounts=await self._list(auth=False))

    async def ListAuth(
        self, request: pb.ListAuthRequest, context: RequestContext
    ) -> pb.ListAuthResponse:
        return pb.ListAuthResponse(mounts=await self._list(auth=True))

    async def ReadMount(
        self, request: pb.ReadMountRequest, context: RequestContext
    ) -> pb.ReadMountResponse:
        return pb.ReadMountResponse(mount=messages.info(await self._one(_path(request.path))))

    async def ReadAuth(
        self, request: pb.ReadAuthRequest, context: RequestContext
    ) -> pb.ReadAuthResponse:
        return pb.ReadAuthResponse(mount=messages.info(await self._one(_auth(request.path))))

    async def EnableMount(
        self, request: pb.EnableMountRequest, context: RequestContext
    ) -> pb.EnableMountResponse:
        path = _path(request.path)
        if path.startswith(("auth/", *RESERVED)):
            raise invalid(f'cannot mount "{path}"')
        await self._enable(path, request, SECRETS)
        return pb.EnableMountResponse()

    async def EnableAuth(
        self, request: pb.EnableAuthRequest, context: RequestContext
    ) -> pb.EnableAuthResponse:
        await self._enable(_auth(request.path), request, LOGINS)
        return pb.EnableAuthResponse()

    async def DisableMount(
        self, request: pb.DisableMountRequest, context: RequestContext
    ) -> pb.DisableMountResponse:
        path = _path(request.path)
        if path.startswith("auth/"):
            # It takes other rights: sys/auth wants sudo.
            raise invalid(f'cannot unmount "{path}"')
        await self._disable(path)
        return pb.DisableMountResponse()

    async def DisableAuth(
        self, request: pb.DisableAuthRequest, context: RequestContext
    ) -> pb.DisableAuthResponse:
        await self._disable(_auth(request.path))
        return pb.DisableAuthResponse()

    async def ReadMountTuning(
        self, request: pb.ReadMountTuningRequest, context: RequestContext
    ) -> pb.ReadMountTuningResponse:
        mount = await self._tuned(_path(request.path))
        return pb.ReadMountTuningResponse(
            config=messages.effective(mount),
            description=mount.description,
            options=mount.options,
            lockout=messages.lockout(mount),
        )

    async def ReadAuthTuning(
        self, request: pb.ReadAuthTuningRequest, context: RequestContext
    ) -> pb.ReadAuthTuningResponse:
        mount = await self._tuned(_auth(request.path))
        return pb.ReadAuthTuningResponse(
            config=messages.effective(mount),
            description=mount.description,
            options=mount.options,
            lockout=messages.lockout(mount),
        )

    async def TuneMount(
        self, request: pb.TuneMountRequest, context: RequestContext
    ) -> pb.TuneMountResponse:
        return pb.TuneMountResponse(warnings=await self._tune(_path(request.path), request))

    async def TuneAuth(
        self, request: pb.TuneAuthRequest, context: RequestContext
    ) -> pb.TuneAuthResponse:
        await self._tune(_auth(request.path), request)
        return pb.TuneAuthResponse()

    async def Remount(
        self, request: pb.RemountRequest, context: RequestContext
    ) -> pb.RemountResponse:
        if not getattr(request, "from") or not request.to:
            raise invalid("both 'from' and 'to' path must be specified as a string")
        source, target = _path(getattr(request, "from")), _path(request.to)
        check_new_path(target)
        if source == target:
            raise invalid(f'path already in use at "{target}"')

        def change(mounts: Mounts) -> Mounts:
            mount = mounts.pop(source, None)
            if mount is None or mount.state != ACTIVE:
                raise invalid(f'no matching mount at "{source}"')
            if mount.builtin:
                raise invalid(f'cannot remount "{source}"')
            if mount.auth != target.startswith("auth/"):
                raise invalid(f"cannot remount to destination {target}")
            check_free(mounts, target)
            moved = msgspec.structs.replace(
                mount, path=target, moves=mount.moves + 1, settling=True
            )
            return {**mounts, target: moved}

        await self._table.change(change)
        mount = (await self._table.current()).mounts.get(target)
        if mount is not None:
            with contextlib.suppress(ServiceError):
                await self._settle(mount)  # what cannot be done now is done by `finish_changes`
        return pb.RemountResponse(migration_id=_migration(source, target))

    async def ReadRemountStatus(
        self, request: pb.ReadRemountStatusRequest, context: RequestContext
    ) -> pb.ReadRemountStatusResponse:
        source, _, target = bytes.fromhex(_hex(request.migration_id)).decode().partition("\0")
        mount = (await self._table.current()).mounts.get(target)
        status = "in-progress" if mount is not None and mount.settling else "success"
        info = pb.MigrationInfo(source_mount=source, target_mount=target, status=status)
        return pb.ReadRemountStatusResponse(migration_id=request.migration_id, migration_info=info)

    async def ListUiMounts(
        self, request: pb.ListUiMountsRequest, context: RequestContext
    ) -> pb.ListUiMountsResponse:
        acl = await self._acl_of(context)
        response = pb.ListUiMountsResponse()
        for path, mount in (await self._table.current()).mounts.items():
            if mount.state != ACTIVE:
                continue
            if acl is not None and acl.any_below(path):
                shown = messages.info(mount)
            elif mount.tuning.get("listing_visibility") == "unauth":
                shown = messages.listed(mount)
            else:
                continue
            into = response.auth if mount.auth else response.secret
            into[path.removeprefix("auth/")].CopyFrom(shown)
        return response

    async def ReadUiMount(
        self, request: pb.ReadUiMountRequest, context: RequestContext
    ) -> pb.ReadUiMountResponse:
        acl = await self._acl_of(context)
        found = (await self._table.current()).find(request.path.strip("/") + "/")
        # As in Vault, what is not there and what may not be seen look alike.
        if acl is None or found is None or not acl.any_below(found[0].path):
            raise denied(
                "preflight capability check returned 403, please ensure client's policies grant access to path "
                f'"{request.path.strip("/")}/"'
            )
        path = found[0].path.removeprefix("auth/")
        return pb.ReadUiMountResponse(path=path, mount=messages.info(found[0]))

    async def finish_changes(self) -> None:
        """Ends what mounts left that are being disabled or were moved, after crashes too. Runs until cancelled."""
        looking = Repeated("the looking for changes of mounts")
        ending = Repeated("changes of mounts")
        while True:
            with looking.turn():
                mounts = (await self._table.current()).mounts
                ending.only(mounts)
                for path, mount in list(mounts.items()):
                    with ending.turn(path):
                        if mount.state == REMOVING:
                            await self._remove(path, mount)
                        elif mount.settling:
                            await self._settle(mount)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self, *, auth: bool) -> dict[str, pb.MountInfo]:
        mounts = (await self._table.current()).mounts.values()
        return {
            mount.path.removeprefix("auth/"): messages.info(mount)
            for mount in mounts
            if mount.auth == auth
        }

    async def _one(self, path: str) -> Mount:
        mount = await self._active(path)
        if mount is None:
            # Clients tell by these texts that a mount is gone.
            if path.startswith("auth/"):
                raise invalid(f"No auth engine at {path.removeprefix('auth/')}")
            raise invalid(f"No secret engine mount at {path}")
        return mount

    async def _tuned(self, path: str) -> Mount:
        mount = await self._active(path)
        if mount is None:
            raise invalid(f'cannot fetch sysview for path "{path}"')
        return mount

    async def _active(self, path: str) -> Mount | None:
        mount = (await self._table.current()).mounts.get(path)
        return mount if mount is not None and mount.state == ACTIVE else None

    async def _enable(self, path: str, request: Any, known: Mapping[str, Engine]) -> None:
        kind = (request.type or request.plugin_name).strip().lower()
        options = dict(request.options)
        check_plugin_version(request.plugin_version)
        check_size(request)
        check_new_path(path)
        if kind == "plugin":
            kind = request.plugin_name
        if kind == "kv-v2":
            kind, options = "kv", {**options, "version": "2"}
        if not kind:
            raise invalid("backend type must be specified as a string")
        if kind not in known:
            raise invalid(f"type: plugin not found in the catalog; there are {', '.join(known)}")
        mount = new_mount(
            path,
            kind,
            description=request.description,
            options=first_options(kind, options, auth=path.startswith("auth/")),
            local=request.local,
            seal_wrap=request.seal_wrap,
            external_entropy_access=request.external_entropy_access,
        )
        mount = messages.tuned(mount, request.config)

        def change(mounts: Mounts) -> Mounts:
            check_free(mounts, path)
            return {**mounts, path: mount}

        await self._table.change(change)

    async def _disable(self, path: str) -> None:
        """Refuses requests at once, then removes the data, then the mount."""
        removed: list[Mount] = []

        def change(mounts: Mounts) -> Mounts | None:
            removed.clear()
            mount = mounts.get(path)
            if mount is None:
                return None
            if mount.builtin:
                raise invalid(f'cannot unmount "{path}"')
            removed.append(msgspec.structs.replace(mount, state=REMOVING))
            return {**mounts, path: removed[0]}

        await self._table.change(change)
        for mount in removed:  # not whatever is at its path by now
            await self._remove(path, mount)

    async def _remove(self, path: str, mount: Mount) -> None:
        context = RequestContext(str(uuid.uuid4()))
        engine = (LOGINS if mount.auth else SECRETS)[mount.type]
        await self._services[engine.service].call(
            engine.drop, engine.request(mount_uuid=mount.uuid), context
        )

        def change(mounts: Mounts) -> Mounts | None:
            known = mounts.get(path)
            if known is None or known.uuid != mount.uuid:
                return None
            return {p: m for p, m in mounts.items() if p != path}

        await self._table.change(change)

    async def _settle(self, mount: Mount) -> None:
        """Ends what a mount gave before it was moved."""
        engine = (LOGINS if mount.auth else SECRETS)[mount.type]
        if engine.moved is not None:
            request = engine.moved.request(
                mount_uuid=mount.uuid, path=mount.path, moves=mount.moves
            )
            context = RequestContext(str(uuid.uuid4()))
            await self._services[engine.service].call(engine.moved.method, request, context)

        def change(mounts: Mounts) -> Mounts | None:
            known = mounts.get(mount.path)
            if known is None or (known.uuid, known.moves) != (mount.uuid, mount.moves):
                return None
            return {**mounts, mount.path: msgspec.structs.replace(known, settling=False)}

        await self._table.change(change)

    async def _tune(self, path: str, request: Any) -> list[str]:
        """Changes how a mount is tuned; returns what clients are to be told of it."""
        warnings: list[str] = []
        check_size(request)

        def change(mounts: Mounts) -> Mounts:
            mount = mounts.get(path)
            if mount is None or mount.state != ACTIVE:
                raise invalid(f'tune of path "{path}" failed: no mount entry found')
            check_tunable(mount, request)
            after = messages.tuned(mount, request.config)
            if request.HasField("description"):
                after = msgspec.structs.replace(after, description=request.description)
            options = changed_options(mount, request.options)
            after = msgspec.structs.replace(after, options=options)
            upgraded = after.kind != mount.kind
            warnings[:] = (
                ["The mount was upgraded from version 1 to version 2."] if upgraded else []
            )
            return {**mounts, path: after}

        await self._table.change(change)
        return warnings


def _path(text: str) -> str:
    path = text.strip("/")
    if not path:
        raise invalid("path: must not be empty")
    if any(not part or part in (".", "..") for part in path.split("/")) or not path.isprintable():
        raise invalid("path: has an empty segment or characters that a path cannot have")
    return path + "/"


def _auth(text: str) -> str:
    return "auth/" + _path(text)


def _migration(source: str, target: str) -> str:
    return f"{source}\0{target}".encode().hex()


def _hex(text: str) -> str:
    try:
        bytes.fromhex(text).decode()
    except ValueError:
        raise not_found() from None
    return text
