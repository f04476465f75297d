"""A million items over gRPC streams of transit, encrypted and decrypted, beside batches of 200 on OpenBao's HTTP API.

Strongroom runs split, each service a process, or (--together) all in one; the memory of what does the work is read
before, during and after. Items a CPU-second count the CPU of all processes of the server; the client's is beside.

Usage: python bench/streams.py [--items N] [--together] [--seconds S]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.compare import measure, script_of
from bench.peers import OpenBao, Server, Strongroom, openbao, strongroom

from strongroom_client.bulk import BulkTransit

_BATCH = 200  # items of a request to OpenBao, which refuses more than some hundred KiB


class Memory:
    """The largest resident memory of some processes, sampled."""

    def __init__(self, server: Strongroom) -> None:
        # After a start the processes are children of the supervisor; what they are for stands in their arguments.
        self._processes: dict[str, psutil.Process] = {}
        for child in psutil.Process(server.supervisor).children():
            line = child.cmdline()
            if "serve-one" in line:
                targets = [word for word in line if word.startswith("--target=")]
                name = targets[0].removeprefix("--target=") if targets else "server"
                self._processes[name] = child
        self.largest: dict[str, float] = {}

    def now(self) -> dict[str, float]:
        """Returns MiB by process."""
        sizes = {n: p.memory_info().rss / (1 << 20) for n, p in self._processes.items()}
        for name, size in sizes.items():
            self.largest[name] = max(size, self.largest.get(name, 0.0))
        return sizes

    def said(self, sizes: dict[str, float]) -> str:
        """Returns them as text, those that do the work."""
        shown = ("gateway", "transit", "audit", "server", "all")
        return " ".join(f"{name} {size:.0f}" for name, size in sizes.items() if name in shown)


def plaintexts(items: int) -> Iterator[bytes]:
    return (b"4111 1111 1111 %09d" % number for number in range(items))


async def drain(results: AsyncIterator[object], watch: Callable[[], object]) -> int:
    """Returns how many results came; looks at the memory after each 10,000."""
    count = 0
    async for result in results:
        if getattr(result, "error", ""):
            raise RuntimeError("an item failed")
        count += 1
        if count % 10_000 == 0:
            watch()
    return count


async def there_and_back(server: Strongroom, items: int) -> None:
    memory = Memory(server)
    before = memory.now()
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        bulk = BulkTransit(channel, lambda: server.token)
        kept: list[str] = []

        async def sealed() -> AsyncIterator[object]:
            async for result in bulk.encrypt("sealer", plaintexts(items)):
                kept.append(result.ciphertext)
                yield result

        for title, results in (
            ("encrypt", sealed()),
            ("decrypt", bulk.decrypt("sealer", iter(kept))),
        ):
            own, cpu, started = time.process_time(), sum(server.cpu().values()), time.monotonic()
            count = await drain(results, memory.now)
            seconds, used = time.monotonic() - started, sum(server.cpu().values()) - cpu
            show(title, server.name, count, seconds, used, time.process_time() - own)
    sys.stdout.write(
        f"memory, MiB: before {memory.said(before)}; at most {memory.said(memory.largest)};"
        f" after {memory.said(memory.now())}\n"
    )


def batches(server: OpenBao, folder: Path, seconds: int) -> None:
    """Measures batches of 200 at 16 connections."""
    figures = measure(server, folder, script_of("batch", server), 16, seconds)
    items = figures.rate * seconds * _BATCH
    show(
        "encrypt", server.name, round(items), seconds, figures.total_cpu * 1e-6 * items / _BATCH, 0
    )


def show(title: str, name: str, items: int, seconds: float, cpu: float, client: float) -> None:
    sys.stdout.write(
        f"{title:8} {name:10} {items:9} items {items / seconds:9.0f}/s {items / cpu:9.0f} a CPU-second "
        f"({cpu / items * 1e6:.1f} us an item; client {client / items * 1e6:.1f})\n"
    )
    sys.stdout.flush()


def furnish(server: Server) -> None:
    server.call("POST", "/v1/sys/mounts/transit", {"type": "transit"})
    server.call("POST", "/v1/transit/keys/sealer", {"type": "aes256-gcm96"})
    json.loads(server.call("GET", "/v1/transit/keys/sealer"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--together", action="store_true", help="all services in one process")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    extra = [] if options.together else ["--split"]
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        with strongroom(Path(name), extra) as ours:
            furnish(ours)
            asyncio.run(there_and_back(ours, options.items))
        with openbao(Path(name)) as theirs:
            furnish(theirs)
            batches(theirs, Path(name), options.seconds)


if __name__ == "__main__":
    main()
