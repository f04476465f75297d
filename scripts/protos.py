"""Generates protos/gen from protos/strongroom with the pinned grpcio-tools and mypy-protobuf.

Usage: python scripts/protos.py [FILE.proto ...]   (default: all of them)
"""

import os
import subprocess
import sys
from pathlib import Path

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
    for folder in [GEN / "strongroom", *(p for p in (GEN / "strongroom").rglob("*") if p.is_dir())]:
        if folder.name != "__pycache__":
            (folder / "__init__.py").touch()
    (GEN / "strongroom" / "py.typed").touch()


if __name__ == "__main__":
    main()
