"""Secrets and versions as messages, and the settings that clients change."""

from dataclasses import dataclass
from typing import Any

import msgspec

from strongroom.kv.v1 import kv2_pb2 as pb
from strongroom_kv.domain.versions import MountConfig, Secret, Version, check_custom
from strongroom_runtime.errors import invalid
from strongroom_runtime.timestamps import rfc3339, timestamp

_Patch = dict[str, str | None]
_GivenPatch = dict[str, str | int | float | None]  # numbers become texts, as in Vault


def version_message(secret: Secret, number: int, version: Version) -> pb.VersionMetadata:
    """Returns what is known of one version."""
    return pb.VersionMetadata(
        created_time=timestamp(version.created),
        deletion_time=timestamp(version.deleted),
        destroyed=version.destroyed,
        version=number,
        custom_metadata=_custom(secret),
    )


def version_json(secret: Secret, number: int, version: Version) -> bytes:
    """Returns the same as JSON, for errors that carry it."""
    return msgspec.json.encode(
        {
            "created_time": rfc3339(version.created),
            "custom_metadata": secret.custom,
            "deletion_time": rfc3339(version.deleted) if version.deleted else "",
            "destroyed": version.destroyed,
            "version": number,
        }
    )


def change_message(path: str, secret: Secret | None) -> pb.SecretChange:
    """Returns what became of a secret; None where it is gone."""
    if secret is None:
        return pb.SecretChange(path=path, removed=True)
    return pb.SecretChange(
        path=path, current_version=secret.current, updated_time=timestamp(secret.updated)
    )


def state_message(version: Version) -> pb.VersionState:
    """Returns what is known of a version among others."""
    return pb.VersionState(
        created_time=timestamp(version.created),
        deletion_time=timestamp(version.deleted),
        destroyed=version.destroyed,
    )


def secret_message(secret: Secret) -> pb.SecretMetadata:
    """Returns what is known of a secret."""
    return pb.SecretMetadata(
        cas_required=secret.cas_required,
        created_time=timestamp(secret.created),
        current_version=secret.current,
        oldest_version=secret.oldest,
        updated_time=timestamp(secret.updated),
        max_versions=secret.max_versions,
        delete_version_after=secret.delete_after,
        custom_metadata=_custom(secret),
        versions={str(n): state_message(v) for n, v in secret.versions.items()},
        current_metadata_version=secret.metadata_version,
        metadata_cas_required=secret.metadata_cas_required,
    )


@dataclass(frozen=True, slots=True)
class MetadataSettings:
    """The settings that a request gives; None where it is silent."""

    max_versions: int | None
    cas_required: bool | None
    delete_after: int | None
    metadata_cas_required: bool | None
    custom: _Patch | None
    replace_custom: bool

    @classmethod
    def of(cls, request: Any, *, merge: bool = False) -> "MetadataSettings":
        """Reads them from a request with these optional fields.

        Raises:
            ServiceError: INVALID.
        """
        given = {field.name for field, _ in request.ListFields()}
        if request.max_versions < 0 or request.max_versions > 100_000:
            raise invalid("max_versions: takes a number from 0 to 100000")
        of_mount = isinstance(request, pb.WriteConfigRequest)
        if request.delete_version_after < 0 and not of_mount:
            raise invalid("delete_version_after: must not be negative")
        custom = _read_custom(request.custom_metadata) if "custom_metadata" in given else None
        return cls(
            request.max_versions if "max_versions" in given else None,
            request.cas_required if "cas_required" in given else None,
            max(request.delete_version_after, -1) if "delete_version_after" in given else None,
            request.metadata_cas_required if "metadata_cas_required" in given else None,
            {} if "custom_metadata" in given and custom is None else custom,
            not merge or ("custom_metadata" in given and custom is None),
        )

    def fields(self) -> dict[str, Any]:
        """Returns what is given, by the names of a record's fields; custom metadata apart."""
        named = {
            "max_versions": self.max_versions,
            "cas_required": self.cas_required,
            "delete_after": self.delete_after,
            "metadata_cas_required": self.metadata_cas_required,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def nothing(self) -> bool:
        """Whether nothing is given at all."""
        return not self.fields() and self.custom is None

    def warnings(self, config: MountConfig) -> list[str]:
        """Returns what the settings of the mount make ineffective."""
        pairs = (
            ("cas_required", self.cas_required, config.cas_required),
            (
                "metadata_cas_required",
                self.metadata_cas_required,
                config.metadata_cas_required,
            ),
        )
        return [
            f'"{name}" set to false, but is mandated by backend config. This value will be ignored.'
            for name, given, mandated in pairs
            if given is False and mandated
        ]

    def apply(self, secret: Secret | None, now: float) -> Secret:
        """Returns the secret with the settings changed.

        Raises:
            ServiceError: INVALID where the custom metadata is beyond its limits.
        """
        before = secret or Secret(created=now, updated=now)
        custom = before.custom
        if self.custom is not None:
            merged: _Patch = {} if self.replace_custom else dict(before.custom or {})
            merged.update(self.custom)
            custom = check_custom({k: v for k, v in merged.items() if v is not None}) or None
        number = before.metadata_version + 1
        return msgspec.structs.replace(
            before, **self.fields(), custom=custom, updated=now, metadata_version=number
        )


def _read_custom(document: bytes) -> _Patch | None:
    try:
        given = msgspec.json.decode(document, type=_GivenPatch | None)
    except msgspec.DecodeError:
        raise invalid("custom_metadata: takes an object of texts") from None
    if given is None:
        return None
    return {key: None if value is None else str(value) for key, value in given.items()}


def _custom(secret: Secret) -> bytes:
    return b"null" if secret.custom is None else msgspec.json.encode(secret.custom)
