"""What is stored of policies, and where.

policy/<name>               the policy
policy-due/<time>/<name>    one that ends, by the second in which it does
"""

import msgspec

from strongroom_runtime.storage import Path, Plain

POLICY, DUE = Plain("policy"), Plain("policy-due")
DUE_DIGITS = 12  # of the seconds in its paths


class PolicyRecord(msgspec.Struct, frozen=True):
    """A policy.

    Args:
        text: HCL or JSON.
        version: how often it was written.
        modified: when it was written last, seconds since 1970; 0 where that is not known.
        cas_required: whether writing it takes its version.
        expires: when it ends, by the clock of all replicas; 0 for never.
    """

    text: str
    version: int = 0
    modified: float = 0.0
    cas_required: bool = False
    expires: float = 0.0

    def gone(self, now: float) -> bool:
        """Whether it has ended: then it is as if it had been deleted."""
        return 0 < self.expires <= now


class Change(msgspec.Struct, frozen=True):
    """What a writer gives of a policy; None for as it is.

    `cas` is the version that it must have, -1 where it must not be there. `expires` is when it ends, 0 for never.
    """

    text: str | None = None
    cas: int | None = None
    cas_required: bool | None = None
    expires: float | None = None


def decoded(value: bytes) -> PolicyRecord:
    """Returns a policy as it is kept: before there were versions, as its text alone.

    A record begins with a byte (msgpack's fixmap) that no text in UTF-8 begins with.
    """
    if value[0] & 0xF0 != 0x80:
        return PolicyRecord(value.decode(), version=1)
    return msgspec.msgpack.decode(value, type=PolicyRecord)


def policy_path(name: str) -> Path:
    """Returns where a policy is."""
    return (POLICY, name)


def due_path(name: str, record: PolicyRecord) -> Path | None:
    """Returns where a policy stands among those that end; None for one that does not."""
    return (DUE, Plain(f"{int(record.expires):0{DUE_DIGITS}}"), name) if record.expires else None
