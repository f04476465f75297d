"""KV and transit over HTTP, Strongroom beside OpenBao, in turn on one machine: throughput, latency, CPU.

Needs wrk (Debian package wrk) on PATH. Both servers are started here on loopback, without TLS, with a file audit
device; OpenBao with raft storage. Figures of one run can be compared with each other and with nothing else.

With --runs N each measurement is repeated N times, the servers in turn, and every figure is the median of its own.

With --replicas N, so many replicas of transit run beside the one of --split.

Usage: python bench/compare.py [--split] [--workers N] [--replicas N] [--seconds S] [--runs N] [--connections 1,16,64]
                               [--only read,write,encrypt,decrypt,sign,rsa,batch]

A request of `batch` encrypts 200 items; `sign` signs with Ed25519, `rsa` with RSA of 2,048 bits.
"""

import argparse
import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import Server, openbao, strongroom, transit_replicas

READ = 'wrk.method = "GET"\nwrk.headers["X-Vault-Token"] = "{token}"\n'
WRITE = """
local n = 0
function setup(thread) end
wrk.headers["X-Vault-Token"] = "{token}"
wrk.headers["Content-Type"] = "application/json"
request = function()
  n = n + 1
  local body = '{{"data":{{"user":"app","password":"hunter2hunter2","host":"db.internal"}}}}'
  return wrk.format("POST", "/v1/secret/data/w" .. (n % 500), nil, body)
end
"""

OPERATE = """
wrk.method = "POST"
wrk.path = "/v1/transit/{path}"
wrk.body = '{body}'
wrk.headers["X-Vault-Token"] = "{{token}}"
wrk.headers["Content-Type"] = "application/json"
"""
TEXT = base64.b64encode(b"4111 1111 1111 1111 111").decode()


@dataclass
class Figures:
    """What one measurement gave: requests a second, milliseconds, microseconds of CPU a request by process."""

    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]

    @property
    def total_cpu(self) -> float:
        return sum(self.cpu.values())


def median(runs: list[Figures]) -> Figures:
    """Returns the median of each figure by itself."""
    return Figures(
        statistics.median(each.rate for each in runs),
        statistics.median(each.p50 for each in runs),
        statistics.median(each.p99 for each in runs),
        {name: statistics.median(each.cpu[name] for each in runs) for name in runs[0].cpu},
    )


def measure(server: Server, folder: Path, script: str, connections: int, seconds: int) -> Figures:
    file = folder / "load.lua"
    file.write_text(script.format(token=server.token))
    before = server.cpu()
    output = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(file),
         f"{server.address}/v1/secret/data/app"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    after = server.cpu()
    requests = int(re.search(r"(\d+) requests in", output).group(1))  # type: ignore[union-attr]
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if errors:
        raise RuntimeError(f"{server.name}: {errors.group(1)} requests failed")
    latency = {
        name: _milliseconds(value) for name, value in re.findall(r"(50|99)%\s+([\d.]+\w+)", output)
    }
    return Figures(
        float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),  # type: ignore[union-attr]
        latency["50"],
        latency["99"],
        {name: (after[name] - before[name]) / requests * 1e6 for name in before},
    )


def script_of(title: str, server: Server) -> str:
    """Returns what wrk runs: braces of bodies doubled, since the token is filled in later."""
    if title in ("read", "write"):
        return {"read": READ, "write": WRITE}[title]
    path, body = f"{title}/sealer", {"plaintext": TEXT}
    if title == "decrypt":
        made = json.loads(server.call("POST", "/v1/transit/encrypt/sealer", body))
        body = {"ciphertext": made["data"]["ciphertext"]}
    elif title in ("sign", "rsa"):
        path, body = f"sign/{title}", {"input": TEXT}
    elif title == "batch":
        path, body = "encrypt/sealer", {"batch_input": [body] * 200}  # type: ignore[dict-item]
    text = json.dumps(body).replace("{", "{{").replace("}", "}}")
    return OPERATE.format(path=path, body=text)


def _milliseconds(text: str) -> float:
    number, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def show(
    title: str, connections: int, our: Server, ours: Figures, their: Server, theirs: Figures
) -> None:
    """Writes a line for each of both, and one with the ratios."""
    for server, figures in ((our, ours), (their, theirs)):
        parts = " ".join(f"{name} {used:.0f}" for name, used in figures.cpu.items() if used >= 1)
        sys.stdout.write(
            f"{title:8}{connections:3} {server.name[:8]:8}{figures.rate:12.0f}{figures.p50:9.2f}"
            f"{figures.p99:9.2f}{figures.total_cpu:9.0f}  {parts}\n"
        )
    sys.stdout.write(
        f"{'':10}ratio {ours.rate / theirs.rate:14.2f}{ours.p50 / theirs.p50:9.2f}{'':9}"
        f"{ours.total_cpu / theirs.total_cpu:9.2f}\n"
    )
    sys.stdout.flush()


def make_keys(server: Server) -> None:
    """Makes the keys of transit that operations use."""
    server.call("POST", "/v1/sys/mounts/transit", {"type": "transit"})
    for name, kind in (("sealer", "aes256-gcm96"), ("sign", "ed25519"), ("rsa", "rsa-2048")):
        server.call("POST", f"/v1/transit/keys/{name}", {"type": kind})


def compare(options: argparse.Namespace, folder: Path, servers: tuple[Server, Server]) -> None:
    for title in options.only.split(","):
        for connections in (int(c) for c in options.connections.split(",")):
            runs: tuple[list[Figures], list[Figures]] = ([], [])
            for _ in range(options.runs):
                for server, results in zip(servers, runs, strict=True):
                    script = script_of(title, server)
                    results.append(measure(server, folder, script, connections, options.seconds))
            ours, theirs = map(median, runs)
            show(title, connections, servers[0], ours, servers[1], theirs)


def arguments(about: str, only: str) -> argparse.ArgumentParser:
    """Returns what reads the options that all comparisons have; by default they measure `only`."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1, help="take the median of so many")
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--only", default=only)
    return parser


def main() -> None:
    parser = arguments(__doc__ or "", "read,write")
    parser.add_argument("--replicas", type=int, default=0, help="of transit, beside --split")
    options = parser.parse_args()
    if options.replicas and not options.split:
        sys.exit(
            "bench: --replicas needs --split; beside one process they answer only what it cannot"
        )
    if shutil.which("wrk") is None:
        sys.exit("bench: needs wrk on PATH (Debian package wrk)")
    extra = ["--workers", options.workers, *(["--split"] if options.split else [])]
    sys.stdout.write(
        f"{os.cpu_count()} cores; wrk -t1; {' '.join(extra)}; median of {options.runs}\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name,
        strongroom(Path(name), extra) as ours,
        transit_replicas(ours, Path(name), options.replicas),
        openbao(Path(name)) as theirs,
    ):
        theirs.call("POST", "/v1/sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        for server in (ours, theirs):
            server.call("POST", "/v1/secret/data/app", {"data": {"user": "a", "password": "b"}})
            make_keys(server)
        sys.stdout.write(f"{'':18}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}\n")
        compare(options, Path(name), (ours, theirs))


if __name__ == "__main__":
    main()
