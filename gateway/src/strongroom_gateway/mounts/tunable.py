"""What of a mount can be tuned, and which options it has."""

from collections.abc import Mapping
from typing import Any

from strongroom.sys.v1 import mounts_pb2 as pb
from strongroom_gateway.mounts.table import Mount
from strongroom_runtime.errors import invalid
from strongroom_runtime.requests import check_length, check_texts

# All mounts are one record: what one of them takes, others have not.
_MOST_TEXTS, _MOST_TEXT_CHARACTERS = 256, 512  # in lists, and of options
_MOST_DESCRIPTION_CHARACTERS = 4_096
_MOST_PATH_CHARACTERS = 512
TOKEN_TYPES = ("", "default-service", "service")
LISTS = (
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "passthrough_request_headers",
    "allowed_response_headers",
)
# What sys/ and cubbyhole/ are asked to be tuned by in vain: they belong to the platform.
_NOT_OF_THE_PLATFORM = (
    "default_lease_ttl",
    "max_lease_ttl",
    "listing_visibility",
    "passthrough_request_headers",
    "allowed_response_headers",
    "token_type",
    "user_lockout_config",
)


def check_tunable(mount: Mount, request: Any) -> None:
    """Raises where a mount of its type does not have what is to be tuned, with the texts of OpenBao.

    Raises:
        ServiceError: INVALID; it names the setting.
    """
    config: pb.MountTuning = request.config
    if mount.type in ("system", "cubbyhole"):
        given = [name for name in _NOT_OF_THE_PLATFORM if config.HasField(name)]  # type: ignore[arg-type]
        given += ["description"] if request.HasField("description") else []
        given += ["options"] if request.options else []
        if given:
            raise invalid(f"cannot tune parameter {given[0]} of {mount.path}")
    if config.HasField("token_type"):
        if not mount.auth:
            raise invalid("'token_type' can only be modified on auth mounts")
        if mount.builtin:
            raise invalid("'token_type' cannot be set for 'token' or 'ns_token' auth mounts")


def check_size(request: Any) -> None:
    """Raises where a mount is given more than is kept of one.

    Raises:
        ServiceError: INVALID; it names the setting and the bound.
    """
    check_length("description", request.description, _MOST_DESCRIPTION_CHARACTERS)
    texts = [text for pair in request.options.items() for text in pair]
    check_texts("options", texts, 2 * _MOST_TEXTS, _MOST_TEXT_CHARACTERS)
    for name in LISTS:
        values = getattr(request.config, name).values
        check_texts(name, values, _MOST_TEXTS, _MOST_TEXT_CHARACTERS)


def check_new_path(path: str) -> None:
    """Raises for a path that no mount is given any more.

    Raises:
        ServiceError: INVALID.
    """
    check_length("path", path, _MOST_PATH_CHARACTERS)


def check_plugin_version(version: str) -> None:
    """Raises where a version of an engine is asked for.

    Raises:
        ServiceError: INVALID.
    """
    if version:
        raise invalid("plugin_version: must be empty; engines are part of the product")


def first_options(kind: str, options: Mapping[str, str], *, auth: bool) -> dict[str, str]:
    """Returns the options of a new mount.

    Raises:
        ServiceError: INVALID for a version that there is not.
    """
    if kind == "kv" and options.get("version", "1") not in ("1", "2"):
        raise invalid("options.version: a kv mount has version 1 or 2")
    if kind != "kv" and "version" in options:
        what = "auth method" if auth else "secrets engine"
        raise invalid(f'options.version: {what} "{kind}" does not allow setting a version')
    return dict(options)


def changed_options(mount: Mount, options: Mapping[str, str]) -> dict[str, str]:
    """Returns a mount's options with what is given; an empty value takes one away.

    Raises:
        ServiceError: INVALID for a version that it cannot get.
    """
    before, version = mount.options.get("version"), options.get("version")
    if version is not None and version != before:
        if mount.type != "kv":
            raise invalid("options.version: only a kv mount has one")
        if (before or "1", version) not in (("1", "1"), ("1", "2")):
            raise invalid("options.version: a kv mount can be upgraded from 1 to 2, and not back")
    after = {**mount.options, **options}
    return {name: value for name, value in after.items() if value}
