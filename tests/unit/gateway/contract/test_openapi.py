"""The OpenAPI document is one, whichever mounts it is about."""

import json
from typing import Any

from openapi_spec_validator import validate

from strongroom_gateway.contract.openapi import describe
from strongroom_gateway.contract.public import public_services
from strongroom_gateway.contract.routes import RouteTable
from strongroom_runtime.handlers import Shape

ROUTES = RouteTable(public_services())
# Two of a kind, and one whose path looks like two segments of another.
MOUNTS = [
    ("secret/", ("kv", "2")),
    ("secret/team/", ("kv", "2")),
    ("old/", ("kv", "1")),
    ("cubbyhole/", ("cubbyhole", "")),
    ("transit/", ("transit", "")),
    ("auth/approle/", ("approle", "")),
]


def operations(mounts: Any = None) -> list[str]:
    """Returns the names of all operations."""
    paths = json.loads(describe(ROUTES, mounts))["paths"]
    every = (operation for item in paths.values() for operation in item.values())
    return [operation["operationId"] for operation in every if isinstance(operation, dict)]


def test_it_is_valid() -> None:
    """Each operation has a name of its own, each path names its parameters, and what is referred to is there."""
    validate(json.loads(describe(ROUTES)))


def test_mounts_of_a_kind_have_operations_of_their_own() -> None:
    names = operations(MOUNTS)
    assert len(set(names)) == len(names)
    assert {"secret-read-secret", "secret-team-read-secret", "old-read-value"} <= set(names)


def test_every_method_with_a_path_is_in_it() -> None:
    named = {name.partition("-at-")[0] for name in operations()}
    unary = [spec for spec in ROUTES.methods.values() if spec.shape is Shape.UNARY]
    # Recursive lists are the lists, with another parameter.
    scans = [spec for spec in unary if spec.capability == "scan"]
    assert len(named) == len(unary) - len(scans) + 1  # and sys/monitor
