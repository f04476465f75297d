"""What clients of Vault ask for and this platform does not have: errors say so, beside `unsupported path`."""

from strongroom_runtime.errors import Kind, ServiceError

# What it is called in a path, and what to know of it. The first that fits counts.
_ABSENT = {
    "sys/storage/raft": "raft storage is not in use; etcd keeps the state, with members and snapshots of its own",
    "sys/namespaces": "namespaces are not supported; root is the only one",
    "sys/plugins": "plugins are part of the product, and cannot be added or removed",
    "sys/mfa": "MFA for logins is not supported",
    "sys/pprof": "it shows what Go programs have; see sys/metrics and sys/host-info",
    "sys/raw": "what is stored cannot be reached past the services",
    "sys/replication": "there are no secondary clusters",
    "sys/license": "there are no licences",
    "identity/mfa": "MFA for logins is not supported",
    "identity": "identity is not supported; there are no entities, groups or OIDC tokens",
}


def why(error: ServiceError, path: str) -> ServiceError:
    """Returns an error for a path, with what is known of why there is nothing."""
    if error.kind is Kind.NOT_FOUND:
        for prefix, text in _ABSENT.items():
            if f"{path}/".startswith(f"{prefix}/"):
                return ServiceError(error.kind, f"{error.message.rstrip('.')}: {text}")
    return error.again()
