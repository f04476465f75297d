"""Mounts as messages."""

from typing import Any

import msgspec

from strongroom.auth.v1 import login_pb2
from strongroom.sys.v1 import mounts_pb2 as pb
from strongroom_gateway.mounts.table import REMOVING, Mount
from strongroom_gateway.mounts.tunable import LISTS, TOKEN_TYPES, check_plugin_version
from strongroom_runtime.errors import invalid

_LOCKOUT = ("lockout_threshold", "lockout_duration", "lockout_counter_reset", "lockout_disable")


def info(mount: Mount) -> pb.MountInfo:
    """Returns a mount as clients see it, with times to live as they were set."""
    config = _tuning(mount)
    config.default_lease_ttl, config.max_lease_ttl = mount.default_ttl, mount.max_ttl
    message = pb.MountInfo(
        type=mount.type,
        description=mount.description,
        accessor=mount.accessor,
        uuid=mount.uuid,
        config=config,
        options=mount.options,
        local=mount.local,
        seal_wrap=mount.seal_wrap,
        external_entropy_access=mount.external_entropy_access,
        deprecation_status="supported",
    )
    if mount.state == REMOVING:
        message.state = mount.state
    return message


def listed(mount: Mount) -> pb.MountInfo:
    """Returns what everybody may see of a mount that is listed to all: enough to log in by."""
    return pb.MountInfo(type=mount.type, description=mount.description, options=mount.options)


def effective(mount: Mount) -> pb.MountTuning:
    """Returns how a mount is tuned, with times to live as they work."""
    config = _tuning(mount)
    config.default_lease_ttl = mount.effective_default
    config.max_lease_ttl = mount.effective_max
    return config


def lockout(mount: Mount) -> pb.LockoutTuning:
    """Returns when users are locked, as far as it was set."""
    known = mount.tuning.get("user_lockout_config")
    given = dict(known) if isinstance(known, dict) else {}
    return pb.LockoutTuning(
        user_lockout_threshold=given.get("lockout_threshold"),
        user_lockout_duration=given.get("lockout_duration"),
        user_lockout_counter_reset_duration=given.get("lockout_counter_reset"),
        user_lockout_disable=given.get("lockout_disable"),
    )


def tuned(mount: Mount, config: pb.MountTuning) -> Mount:
    """Returns a mount with what a message gives.

    Raises:
        ServiceError: INVALID.
    """
    tuning: dict[str, object] = dict(mount.tuning)
    check_plugin_version(config.plugin_version)
    if config.HasField("listing_visibility") and config.listing_visibility not in (
        "",
        "hidden",
        "unauth",
    ):
        raise invalid("listing_visibility: takes hidden or unauth, or nothing")
    if config.HasField("token_type") and config.token_type not in TOKEN_TYPES:
        raise invalid("token_type: only service tokens are supported")
    for name in (*_texts(mount), "force_no_cache"):
        if config.HasField(name):  # type: ignore[arg-type]
            tuning[name] = getattr(config, name)
    for name in LISTS:
        if config.HasField(name):  # type: ignore[arg-type]
            tuning[name] = list(getattr(config, name).values)
    if config.HasField("user_lockout_config"):
        tuning["user_lockout_config"] = _lockout(mount, tuning, config.user_lockout_config)
    after = msgspec.structs.replace(
        mount,
        default_ttl=_ttl(config, "default_lease_ttl", mount.default_ttl),
        max_ttl=_ttl(config, "max_lease_ttl", mount.max_ttl),
        tuning=tuning,
    )
    given = config.HasField("default_lease_ttl") or config.HasField("max_lease_ttl")
    if given and after.default_ttl > after.effective_max:
        raise invalid(
            "default_lease_ttl: must not be longer than max_lease_ttl, which is 768h where it is not set"
        )
    return after


def _texts(mount: Mount) -> tuple[str, ...]:
    """Returns the names of settings that are texts; only login methods make tokens."""
    return ("listing_visibility", "token_type") if mount.auth else ("listing_visibility",)


def _tuning(mount: Mount) -> pb.MountTuning:
    config = pb.MountTuning(force_no_cache=bool(mount.tuning.get("force_no_cache", False)))
    for name in _texts(mount):
        if mount.tuning.get(name):
            setattr(config, name, mount.tuning[name])
    if mount.auth and config.token_type in ("", "default"):
        config.token_type = "default-service"  # noqa: S105 (a kind of token, not one)
    for name in LISTS:
        values: Any = mount.tuning.get(name)
        if values:
            getattr(config, name).CopyFrom(login_pb2.TextList(values=values))
    lockout = mount.tuning.get("user_lockout_config")
    if isinstance(lockout, dict):
        config.user_lockout_config.CopyFrom(pb.UserLockout(**lockout))
    return config


def _lockout(mount: Mount, tuning: dict[str, object], given: pb.UserLockout) -> dict[str, object]:
    if not mount.auth or mount.builtin:
        raise invalid("user_lockout_config: is for login methods with users of their own")
    known = tuning.get("user_lockout_config")
    after = dict(known) if isinstance(known, dict) else {}
    for name in _LOCKOUT:
        if given.HasField(name):  # type: ignore[arg-type]
            after[name] = getattr(given, name)
            if after[name] < 0:
                raise invalid(f"{name}: must not be negative")
    return after


def _ttl(config: pb.MountTuning, name: str, before: int) -> int:
    if not config.HasField(name):  # type: ignore[arg-type]
        return before
    value = int(getattr(config, name))
    if value < 0:
        raise invalid(f"{name}: must not be negative")
    return value
