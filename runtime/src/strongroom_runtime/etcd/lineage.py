"""Whether etcd is still the one that a process began with.

What a process has in memory rests on what etcd told it: caches, confirmations of other members, keys. An etcd that
was restored from a backup, or replaced by another, contradicts that, and says so: each answer names its cluster, and
a revision that never goes back. See `docs/decisions/0016-etcd-that-went-back.md`.
"""

import logging
from collections.abc import Callable

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError

log = logging.getLogger(__name__)


class Lineage:
    """Watches the answers of one client. Once one of them contradicts those before it, none is taken any more."""

    def __init__(self) -> None:
        self._cluster = 0
        self._seen = 0
        self._seen_at = 0  # which member said so
        self._broken = False
        self._uses: list[Callable[[], None]] = []

    def on_break(self, use: Callable[[], None]) -> None:
        """Adds what is called, once, when the first contradiction is found."""
        self._uses.append(use)

    def begin(self) -> int:
        """Returns the revision that an answer has to have at the least, if it is asked for from now on.

        Raises:
            ServiceError: UNAVAILABLE once there was a contradiction.
        """
        if self._broken:
            raise _error()
        return self._seen

    def take(self, header: etcd_pb2.ResponseHeader, at_least: int = 0) -> None:
        """Takes the header of an answer.

        Args:
            header: which every answer has.
            at_least: what `begin` returned, where the answer is linearizable. Others may be behind, since a member
                may be.

        Raises:
            ServiceError: UNAVAILABLE where it contradicts earlier ones: it is to be used for nothing.
        """
        if self._broken:
            raise _error()
        if self._cluster and header.cluster_id and header.cluster_id != self._cluster:
            self._break("it is another cluster", header)
        if header.revision < at_least:
            self._break("its revision went back", header)
        self._cluster = self._cluster or header.cluster_id
        if header.revision > self._seen:
            self._seen, self._seen_at = header.revision, header.member_id

    def _break(self, reason: str, header: etcd_pb2.ResponseHeader) -> None:
        self._broken = True
        # Which member says what: where they contradict each other, it is their data that has to be looked at.
        log.critical(
            "etcd is not what this process began with: it was restored from a backup, or replaced",
            extra={
                "reason": reason,
                "member": f"{header.member_id:x}",
                "revision": header.revision,
                "term": header.raft_term,
                "seen_revision": self._seen,
                "seen_at_member": f"{self._seen_at:x}",
            },
        )
        for use in self._uses:
            use()
        raise _error()


def _error() -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, "etcd was restored or replaced under this process")
