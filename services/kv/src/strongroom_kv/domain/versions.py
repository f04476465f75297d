"""The versions of a secret: what a write, a deletion and a restoration do to them.

Pure: records in, records out, with the time passed in. All times are wall time in seconds since 1970; 0 is never.
"""

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid

DEFAULT_MAX_VERSIONS = 10
_MAX_CUSTOM_KEYS, _MAX_KEY_BYTES, _MAX_VALUE_BYTES = 64, 128, 512


class Version(msgspec.Struct, frozen=True, array_like=True):
    """One version. `deleted` may lie in the future."""

    created: float
    deleted: float = 0.0
    destroyed: bool = False

    def gone(self, now: float) -> bool:
        """Whether its data is not to be read, for now or for good."""
        return self.destroyed or 0 < self.deleted <= now


class Secret(msgspec.Struct, frozen=True):
    """Everything of a secret but its documents.

    `max_versions` and `delete_after` (seconds) of 0 mean the mount's. `filled` says that there were as many versions
    as may be.
    """

    created: float
    updated: float
    current: int = 0
    versions: dict[int, Version] = {}
    max_versions: int = 0
    cas_required: bool = False
    delete_after: int = 0
    custom: dict[str, str] | None = None
    metadata_version: int = 0
    metadata_cas_required: bool = False
    filled: bool = False

    @property
    def oldest(self) -> int:
        """The oldest version kept, once there were as many as may be; 0 before, as in Vault."""
        oldest = min(self.versions, default=0)
        return oldest if self.filled or oldest > 1 else 0


class MountConfig(msgspec.Struct, frozen=True):
    """The settings of a mount; 0 versions stand for the default, 0 seconds for what the secret says, -1 for never."""

    max_versions: int = 0
    cas_required: bool = False
    delete_after: int = 0
    metadata_cas_required: bool = False


def check_metadata_cas(secret: Secret | None, config: MountConfig, cas: int | None) -> None:
    """Raises unless a change of the settings may go on, given the version of them that it expects.

    Raises:
        ServiceError: FAILED_PRECONDITION.
    """
    if cas is None:
        if config.metadata_cas_required or (secret is not None and secret.metadata_cas_required):
            raise ServiceError(
                Kind.FAILED_PRECONDITION, "metadata check-and-set parameter required for this call"
            )
    elif secret is None and cas != 0:
        raise ServiceError(
            Kind.FAILED_PRECONDITION, "metadata_cas must be 0 when creating new metadata"
        )
    elif secret is not None and cas != secret.metadata_version:
        raise ServiceError(
            Kind.FAILED_PRECONDITION,
            "metadata check-and-set parameter does not match the current version",
        )


def check_cas(secret: Secret | None, config: MountConfig, cas: int | None) -> None:
    """Raises unless a write may go on, given the version that it expects to be the current one.

    Raises:
        ServiceError: FAILED_PRECONDITION.
    """
    if cas is None:
        if config.cas_required or (secret is not None and secret.cas_required):
            raise ServiceError(
                Kind.FAILED_PRECONDITION, "check-and-set parameter required for this call"
            )
    elif cas != (secret.current if secret else 0):
        raise ServiceError(
            Kind.FAILED_PRECONDITION,
            "check-and-set parameter did not match the current version",
        )


def add(secret: Secret | None, config: MountConfig, now: float) -> tuple[Secret, list[int]]:
    """Returns the secret with a new current version, and the versions that make room for it."""
    before = secret or Secret(created=now, updated=now)
    number = before.current + 1
    versions = {**before.versions, number: Version(now, _deletion(before, config, now))}
    keep = max(before.max_versions, config.max_versions) or DEFAULT_MAX_VERSIONS
    pruned = sorted(versions)[:-keep]
    for old in pruned:
        del versions[old]
    changed = msgspec.structs.replace(
        before,
        current=number,
        versions=versions,
        updated=now,
        filled=before.filled or len(versions) == keep,
    )
    return changed, pruned


def _deletion(secret: Secret, config: MountConfig, now: float) -> float:
    """Returns when a version that is there from now on is to be deleted; 0 for never."""
    spans = [s for s in (secret.delete_after, config.delete_after) if s > 0]
    return now + min(spans) if spans and config.delete_after >= 0 else 0.0


def overwrite(secret: Secret | None, now: float) -> Secret:
    """Returns the secret with one version, number 1, as an unversioned mount keeps it.

    The same record as a versioned secret's, so that a mount is upgraded without touching its secrets: what was
    written before is then version 1.
    """
    created = secret.created if secret else now
    return Secret(created=created, updated=now, current=1, versions={1: Version(now)})


def delete(secret: Secret, numbers: list[int], now: float) -> Secret:
    """Returns the secret with versions marked as deleted; those that are gone stay as they are."""
    return _change(
        secret,
        {n: Version(v.created, now) for n, v in _named(secret, numbers) if not v.gone(now)},
        now,
    )


def undelete(secret: Secret, numbers: list[int], config: MountConfig, now: float) -> Secret:
    """Returns the secret with the mark of deletion taken from versions; destroyed ones stay so.

    Where versions are deleted after a time, that begins anew, as in Vault.
    """
    deleted = _deletion(secret, config, now)
    known = _named(secret, numbers)
    return _change(
        secret, {n: Version(v.created, deleted) for n, v in known if not v.destroyed}, now
    )


def destroy(secret: Secret, numbers: list[int], now: float) -> tuple[Secret, list[int]]:
    """Returns the secret with versions destroyed, and those whose data is to be removed."""
    doomed = {
        n: Version(v.created, v.deleted, True)
        for n, v in _named(secret, numbers)
        if not v.destroyed
    }
    return _change(secret, doomed, now), sorted(doomed)


def check_custom(custom: dict[str, str]) -> dict[str, str]:
    """Returns custom metadata if it is within Vault's limits.

    Raises:
        ServiceError: INVALID; it names the limit.
    """
    if len(custom) > _MAX_CUSTOM_KEYS:
        raise invalid(f"custom_metadata: payload must contain at most {_MAX_CUSTOM_KEYS} keys")
    for key, value in custom.items():
        if not 0 < len(key.encode()) <= _MAX_KEY_BYTES:
            raise invalid(f"custom_metadata: a key has 1 to {_MAX_KEY_BYTES} bytes")
        if not 0 < len(value.encode()) <= _MAX_VALUE_BYTES:
            raise invalid(f"custom_metadata: a value has 1 to {_MAX_VALUE_BYTES} bytes")
        if not (key.isprintable() and value.isprintable()):
            raise invalid("custom_metadata: keys and values hold printable characters only")
    return custom


def _named(secret: Secret, numbers: list[int]) -> list[tuple[int, Version]]:
    return [(n, secret.versions[n]) for n in numbers if n in secret.versions]


def _change(secret: Secret, changes: dict[int, Version], now: float) -> Secret:
    if not changes:
        return secret
    return msgspec.structs.replace(secret, versions={**secret.versions, **changes}, updated=now)
