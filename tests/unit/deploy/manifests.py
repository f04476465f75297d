"""What the files in deploy/ say, and what the contracts say of who calls whom."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import ServiceDescriptor

import strongroom
from strongroom.options.v1 import options_pb2
from strongroom_cli.settings import SERVICES, VIEWED

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

Document = dict[str, Any]


def read(file: Path) -> list[Document]:
    """Returns what a file of YAML has."""
    # Every worker reads all files to collect the tests: written in C it takes a tenth of the time.
    return [each for each in yaml.load_all(file.read_text(), yaml.CSafeLoader) if each]


def documents(folder: Path) -> list[Document]:
    """Returns the resources of a kustomization, and of those that it builds on."""
    (told,) = read(folder / "kustomization.yaml")
    found: list[Document] = []
    for name in (*told.get("resources", ()), *told.get("components", ())):
        path = (folder / name).resolve()
        if path.is_dir():
            found += documents(path)
        else:
            found += read(path)
    return found


def by_name(found: list[Document], *kinds: str) -> dict[str, Document]:
    """Returns the resources of some kinds, by name."""
    chosen = [each for each in found if each["kind"] in kinds]
    named = {each["metadata"]["name"]: each for each in chosen}
    assert len(named) == len(chosen), kinds
    return named


def callers() -> dict[str, set[str]]:
    """Returns which services open connections to which, by the contracts and by what is kept in memory."""
    allowed: dict[str, set[str]] = {service: {service} for service in SERVICES}
    for service in _services():
        called = service.full_name.split(".")[1]
        if called not in SERVICES:
            continue  # of the gateway itself, and what every process answers
        for rpc in service.methods:
            options = rpc.GetOptions()
            allowed[called] |= set(options.Extensions[options_pb2.callers])
            if options.HasExtension(options_pb2.route):
                allowed[called].add("gateway")
    for viewed in VIEWED:  # who writes asks those who keep it in memory
        allowed["gateway"].add(viewed)
    return allowed


def _services() -> Iterator[ServiceDescriptor]:
    for module in pkgutil.walk_packages(strongroom.__path__, "strongroom."):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(module.name).DESCRIPTOR
            yield from descriptor.services_by_name.values()
