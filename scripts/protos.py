"""Generates protos/gen from protos/strongroom with the pinned grpcio-tools and mypy-protobuf.

Usage: python scripts/protos.py [FILE.proto ...]   (default: all of them)
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = PROTOS / "gen"


def main() -> None:
    """Runs protoc over the files named, or over all, and completes the Python packages."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    files = named or sorted((PROTOS / "strongroom").rglob("*.proto"))
    GEN.mkdir(exist_ok=True)
    tools = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{PROTOS}",
        f"--python_out={GEN}",
        f"--mypy_out=quiet:{GEN}",
        f"--grpc_python_out={GEN}",
        f"--mypy_grpc_out=quiet,only_async:{GEN}",
        *(str(path.relative_to(PROTOS)) for path in files),
    ]
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, check=True, cwd=PROTOS, env=environment)
    _comments(environment)
    for folder in [GEN / "strongroom", *(p for p in (GEN / "strongroom").rglob("*") if p.is_dir())]:
        if folder.name != "__pycache__":
            (folder / "__init__.py").touch()
    (GEN / "strongroom" / "py.typed").touch()


def _comments(environment: dict[str, str]) -> None:
    """Writes what the contracts say of their methods, messages and fields: help and API description show it."""
    with tempfile.NamedTemporaryFile() as file:
        files = sorted(
            str(path.relative_to(PROTOS)) for path in (PROTOS / "strongroom").rglob("*.proto")
        )
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", "--include_source_info",
             f"--descriptor_set_out={file.name}", *files],
            check=True, cwd=PROTOS, env=environment,
        )  # fmt: skip
        found = descriptor_pb2.FileDescriptorSet.FromString(Path(file.name).read_bytes())
    comments: dict[str, str] = {}
    for each in found.file:
        for location in each.source_code_info.location:
            name = _name(each, list(location.path))
            if name and location.leading_comments:
                comments[name] = " ".join(location.leading_comments.split())
    text = json.dumps(comments, indent=0, sort_keys=True, ensure_ascii=False)
    (GEN / "strongroom" / "comments.json").write_text(text + "\n")


def _name(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str:
    """Returns the full name of what a location stands for: a message, a field, a service or a method."""
    if len(path) not in (2, 4) or path[0] not in (4, 6):
        return ""
    outer: Any = file.message_type[path[1]] if path[0] == 4 else file.service[path[1]]
    name = f"{file.package}.{outer.name}"
    if len(path) == 2:
        return name
    if path[2] != 2:
        return ""
    inner: Any = outer.field[path[3]] if path[0] == 4 else outer.method[path[3]]
    return f"{name}.{inner.name}"


if __name__ == "__main__":
    main()
