"""LeaseService: what operators and holders do with leases."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

from strongroom.auth.v1.token_lease_pb2 import LookupTokenLeaseResponse
from strongroom.dbcreds.v1 import lease_pb2 as pb
from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_dbcreds.leases import storage
from strongroom_dbcreds.leases.renew import Renewer
from strongroom_dbcreds.leases.revoke import Failures, Revoker
from strongroom_dbcreds.leases.storage import EVENTS, Happened, Kept, Leases
from strongroom_dbcreds.leases.tokens import TokenLeases, of_tokens
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.requests import page
from strongroom_runtime.storage import CompactedError
from strongroom_runtime.timestamps import timestamp

_ACCEPTED = 202
_MOST = 10_000
_IRREVOCABLE = "irrevocable"
_KINDS = {
    storage.ISSUED: pb.LEASE_EVENT_KIND_ISSUED,
    storage.RENEWED: pb.LEASE_EVENT_KIND_RENEWED,
    storage.REVOKED: pb.LEASE_EVENT_KIND_REVOKED,
    storage.FAILED: pb.LEASE_EVENT_KIND_FAILED,
}


class _Refusals(NamedTuple):
    """What is said, as in Vault, of a lease that is not there, and of one that the caller may not act on."""

    absent: Callable[[], ServiceError]
    foreign: Callable[[], ServiceError]


def _not_found() -> ServiceError:
    return invalid("lease not found")


_REFUSALS = _Refusals(partial(invalid, "invalid lease"), denied)
# A client whose lease ended with its former token renews it with the next one. It asks for a new secret when it reads
# this, and gives up when it reads that permission is denied.
_OF_RENEWALS = _Refusals(_not_found, _not_found)


class LeaseHandlers:
    """Answers requests to sys/leases/, and to sys/renew and sys/revoke."""

    def __init__(
        self,
        leases: Leases,
        tokens: TokenLeases,
        renewer: Renewer,
        revoker: Revoker,
        clock: Clock,
    ) -> None:
        self._leases = leases
        self._tokens = tokens
        self._renewer = renewer
        self._revoker = revoker
        self._clock = clock

    async def LookupLease(
        self, request: pb.LookupLeaseRequest, context: RequestContext
    ) -> pb.LookupLeaseResponse:
        if of_tokens(request.lease_id):
            return _token_message(request.lease_id, await self._token(request.lease_id, context))
        lease = (await self._one(request.lease_id, context)).lease
        now = self._clock.now()
        response = pb.LookupLeaseResponse(
            id=lease.id,
            issue_time=timestamp(lease.issued),
            expire_time=timestamp(lease.expires),
            last_renewal=timestamp(lease.renewed),
            renewable=lease.alive(now),
            ttl=max(0, round(lease.expires - now)) if lease.state is State.ACTIVE else 0,
            path=lease.path,
        )
        if lease.error:
            response.revoke_error = lease.error
        return response

    async def ListLeases(
        self, request: pb.ListLeasesRequest, context: RequestContext
    ) -> pb.ListLeasesResponse:
        prefix, after, limit = request.prefix, request.after, request.limit
        if of_tokens(prefix):
            names, paged = await self._tokens.names(prefix, after, limit)
            return pb.ListLeasesResponse(keys=names if paged else page(names, after, limit))
        some = await self._leases.page(prefix, after, limit)
        if some is not None:
            return pb.ListLeasesResponse(keys=some)
        names = await self._leases.names(prefix)
        if not prefix.strip("/"):
            of_all, _ = await self._tokens.names("")
            names = sorted({*names, *of_all})
        return pb.ListLeasesResponse(keys=page(names, after, limit))

    async def RenewLease(
        self, request: pb.RenewLeaseRequest, context: RequestContext
    ) -> pb.RenewLeaseResponse:
        if request.increment < 0:
            raise invalid("increment: must not be negative")
        if of_tokens(request.lease_id):
            token = await self._token(request.lease_id, context, _OF_RENEWALS)
            raise invalid(
                "tokens cannot be renewed through this endpoint"
                if token.renewable
                else "lease is not renewable"
            )
        kept = await self._one(request.lease_id, context, _OF_RENEWALS)
        if not kept.lease.alive(self._clock.now()):
            raise invalid("lease not found or lease is not renewable")
        renewed = await self._renewer.renew(kept, request.increment, context.mount)
        return pb.RenewLeaseResponse(
            lease_id=renewed.lease.id,
            lease_duration=renewed.ttl,
            renewable=True,
            warnings=renewed.warnings,
        )

    async def RevokeLease(
        self, request: pb.RevokeLeaseRequest, context: RequestContext
    ) -> pb.RevokeLeaseResponse:
        done = pb.RevokeLeaseResponse(status=_status(request))
        if of_tokens(request.lease_id):
            if await self._found_token(request.lease_id, context) is not None:
                await self._tokens.revoke(request.lease_id)
            return done
        kept = await self._found(request.lease_id, context)
        if kept is None:
            return done  # as in Vault: gone is what was asked for
        if done.status:
            await self._revoker.mark(kept.lease.key)
            return done
        error = await self._revoker.revoke_now(kept.lease.key)
        if error:
            raise _not_yet(Failures(1, error))
        return done

    async def RevokePrefix(
        self, request: pb.RevokePrefixRequest, context: RequestContext
    ) -> pb.RevokePrefixResponse:
        done = pb.RevokePrefixResponse(status=_status(request))
        if of_tokens(request.prefix):
            await self._tokens.revoke_below(request.prefix)
            return done
        pages = self._revoker.below(request.prefix)
        # All are certain to end before any is waited for: this may take long, and be cut off.
        await self._revoker.mark_all(pages)
        if done.status:
            return done
        failures = await self._revoker.revoke_all(self._revoker.below(request.prefix))
        if failures.count:
            raise _not_yet(failures)
        return done

    async def ForceRevokePrefix(
        self, request: pb.ForceRevokePrefixRequest, context: RequestContext
    ) -> pb.ForceRevokePrefixResponse:
        if of_tokens(request.prefix):
            await self._tokens.revoke_below(request.prefix)
            return pb.ForceRevokePrefixResponse()
        await self._revoker.mark_all(self._revoker.below(request.prefix))
        await self._revoker.revoke_all(self._revoker.below(request.prefix), force=True)
        return pb.ForceRevokePrefixResponse()

    async def TidyLeases(
        self, request: pb.TidyLeasesRequest, context: RequestContext
    ) -> pb.TidyLeasesResponse:
        for mount, database in await self._leases.failing():
            after = ""
            while keys := await self._leases.failing_of(mount, database, after):
                for key in keys:
                    await self._revoker.hurry(key)
                after = keys[-1]
        return pb.TidyLeasesResponse(
            warnings=["Tidy operation successfully started. Any information from the operation "
                      "will be printed to the server logs."]
        )  # fmt: skip

    async def CountLeases(
        self, request: pb.CountLeasesRequest, context: RequestContext
    ) -> pb.CountLeasesResponse:
        if _irrevocable_only(request.type):
            counts: dict[str, int] = {}
            async for lease in self._failing():
                if lease.irrevocable(self._clock.now()):
                    counts[_mount(lease)] = counts.get(_mount(lease), 0) + 1
        else:
            counts = await self._counts()
        return pb.CountLeasesResponse(lease_count=sum(counts.values()), counts=counts)

    async def ListFailingLeases(
        self, request: pb.ListFailingLeasesRequest, context: RequestContext
    ) -> pb.ListFailingLeasesResponse:
        irrevocable_only, most = _irrevocable_only(request.type), _limit(request.limit)
        response, now = pb.ListFailingLeasesResponse(), self._clock.now()
        async for lease in self._failing():
            if irrevocable_only and not lease.irrevocable(now):
                continue
            if response.lease_count >= most:
                break
            response.lease_count += 1
            response.counts[_mount(lease)] += 1
            response.leases.append(_failing_message(lease, now))
        return response

    async def WatchLeases(
        self, request: pb.WatchLeasesRequest, context: RequestContext
    ) -> AsyncIterator[pb.WatchLeasesResponse]:
        if request.from_revision < 0:
            raise invalid("from_revision: must not be negative")
        prefix = request.prefix.strip("/")
        store = self._leases.store
        start = request.from_revision or await store.revision() + 1
        yield pb.WatchLeasesResponse(revision=start - 1)
        try:
            async for changes in store.watch(EVENTS, from_revision=start):
                told = [self._leases.event(each.value) for each in changes.events if each.value]
                yield pb.WatchLeasesResponse(
                    revision=changes.revision,
                    events=[_event_message(each) for each in told if _below(each.id, prefix)],
                )
        except CompactedError:
            raise ServiceError(
                Kind.FAILED_PRECONDITION,
                "from_revision: its events are forgotten; list the leases, and watch from now",
            ) from None

    async def _found(
        self, lease_id: str, context: RequestContext, refusals: _Refusals = _REFUSALS
    ) -> Kept | None:
        """Returns a lease, if the caller may act on it; None where there is none."""
        if not lease_id.strip("/"):
            raise invalid("lease_id: must be given")
        kept = await self._leases.find(lease_id)
        own = (
            kept is not None and context.token is not None and kept.lease.token == context.token.id
        )
        if not (own or context.of_others):
            raise refusals.foreign()  # whether there is such a lease or not
        return kept

    async def _one(
        self, lease_id: str, context: RequestContext, refusals: _Refusals = _REFUSALS
    ) -> Kept:
        kept = await self._found(lease_id, context, refusals)
        if kept is None or kept.lease.state is State.CREATING:
            raise refusals.absent()
        return kept

    async def _found_token(
        self, lease_id: str, context: RequestContext, refusals: _Refusals = _REFUSALS
    ) -> LookupTokenLeaseResponse | None:
        """Returns the lease of a token, if the caller may act on it; None where there is none."""
        found = await self._tokens.find(lease_id)
        own = found is not None and context.token is not None and found.token_id == context.token.id
        if not (own or context.of_others):
            raise refusals.foreign()  # whether there is such a lease or not
        return found

    async def _token(
        self, lease_id: str, context: RequestContext, refusals: _Refusals = _REFUSALS
    ) -> LookupTokenLeaseResponse:
        found = await self._found_token(lease_id, context, refusals)
        if found is None:
            raise refusals.absent()
        return found

    async def _failing(self) -> AsyncIterator[Lease]:
        for mount, database in await self._leases.failing():
            after = ""
            while keys := await self._leases.failing_of(mount, database, after):
                for key in keys:
                    kept = await self._leases.get(key)
                    if kept is not None and kept.lease.state is not State.GHOST:
                        yield kept.lease
                after = keys[-1]

    async def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for mount, count in (await self._leases.counts()).items():
            keys = await self._leases.of_mount(mount)
            kept = await self._leases.get(keys[0]) if keys else None
            if kept is not None:
                path = _mount(kept.lease)
                counts[path] = counts.get(path, 0) + count
        return counts


def _token_message(lease_id: str, token: LookupTokenLeaseResponse) -> pb.LookupLeaseResponse:
    shown = pb.LookupLeaseResponse(
        id=lease_id.strip("/"), renewable=token.renewable, ttl=token.ttl, path=token.path
    )
    for name in ("issue_time", "expire_time", "last_renewal"):
        if token.HasField(name):
            getattr(shown, name).CopyFrom(getattr(token, name))
    return shown


def _status(request: pb.RevokeLeaseRequest | pb.RevokePrefixRequest) -> int:
    """Returns the status of an answer that does not wait; 0, for the usual one, of one that does."""
    return _ACCEPTED if request.HasField("sync") and not request.sync else 0


def _below(lease_id: str, prefix: str) -> bool:
    return not prefix or lease_id == prefix or lease_id.startswith(prefix + "/")


def _mount(lease: Lease) -> str:
    return lease.path.rpartition("creds/")[0]


def _not_yet(failures: Failures) -> ServiceError:
    return ServiceError(
        Kind.UNAVAILABLE,
        f"{failures.count} of the leases could not be revoked yet, and will be tried again: {failures.last}",
    )


def _irrevocable_only(kind: str) -> bool:
    if kind not in ("", _IRREVOCABLE):
        raise invalid("type: takes irrevocable, or nothing")
    return kind == _IRREVOCABLE


def _limit(text: str) -> float:
    if text == "none":
        return float("inf")
    if not text:
        return _MOST
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise invalid("limit: takes a number from 1, or none")
    return int(text)


def _failing_message(lease: Lease, now: float) -> pb.FailingLease:
    return pb.FailingLease(
        lease_id=lease.id,
        path=lease.path,
        error=lease.error,
        attempts=lease.attempts,
        next_attempt=timestamp(lease.due),
        irrevocable=lease.irrevocable(now),
    )


def _event_message(event: Happened) -> pb.LeaseEvent:
    return pb.LeaseEvent(
        kind=_KINDS[event.kind],
        lease_id=event.id,
        time=timestamp(event.time),
        expire_time=timestamp(event.expires),
        error=event.error,
    )
