"""The contracts that clients see."""

from google.protobuf.descriptor import ServiceDescriptor

from strongroom.audit.v1 import audit_pb2
from strongroom.auth.v1 import approle_pb2, policy_pb2, token_pb2, userpass_pb2
from strongroom.dbcreds.v1 import (
    connection_pb2,
    lease_pb2,
    passwords_pb2,
    quota_pb2,
    role_pb2,
    static_pb2,
)
from strongroom.kv.v1 import cubbyhole_pb2, kv1_pb2, kv2_pb2
from strongroom.seal.v1 import rekey_pb2, rotation_pb2, seal_pb2
from strongroom.sys.v1 import (
    config_pb2,
    locked_users_pb2,
    mounts_pb2,
    observe_pb2,
    plugins_pb2,
    quotas_pb2,
    system_pb2,
    wrapping_pb2,
)
from strongroom.transit.v1 import cipher_pb2, key_pb2, material_pb2, signature_pb2, stream_pb2

_MODULES = (
    audit_pb2,
    approle_pb2,
    policy_pb2,
    token_pb2,
    userpass_pb2,
    connection_pb2,
    lease_pb2,
    passwords_pb2,
    quota_pb2,
    role_pb2,
    static_pb2,
    cubbyhole_pb2,
    kv1_pb2,
    kv2_pb2,
    rekey_pb2,
    rotation_pb2,
    seal_pb2,
    config_pb2,
    locked_users_pb2,
    mounts_pb2,
    observe_pb2,
    plugins_pb2,
    quotas_pb2,
    system_pb2,
    wrapping_pb2,
    cipher_pb2,
    key_pb2,
    material_pb2,
    signature_pb2,
    stream_pb2,
)


def public_services() -> list[ServiceDescriptor]:
    """Returns every service of the contracts that has public methods, and those beside them."""
    return [s for module in _MODULES for s in module.DESCRIPTOR.services_by_name.values()]
