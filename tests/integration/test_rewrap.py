"""`strongroom transit rewrap` against a platform: killed in the middle, gone on with, refused."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from strongroom_client.bulk import BulkTransit
from tests.integration.platforms import BIN, ROOT, Platform, until

ITEMS = 120_000


@pytest.fixture
def key(platform: Platform) -> Iterator[str]:
    platform.http("POST", "sys/mounts/transit", json={"type": "transit"})
    platform.http("POST", "transit/keys/cards")
    yield "cards"
    platform.http("DELETE", "sys/mounts/transit")


def start(
    platform: Platform, folder: Path, *options: str, token: str = ROOT
) -> "subprocess.Popen[str]":
    command = [str(BIN / "strongroom"), "transit", "rewrap", "in.txt", "out.txt", "--key=cards"]
    return subprocess.Popen(
        [*command, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={
            "STRONGROOM_GRPC_ADDR": platform.grpc_address, "STRONGROOM_CACERT": platform.ca,
            "STRONGROOM_TOKEN": token,
        },
    )  # fmt: skip


async def ciphertexts(platform: Platform) -> list[str]:
    async with channel(platform) as open_channel:
        bulk = BulkTransit(open_channel, lambda: ROOT)
        return [r.ciphertext async for r in bulk.encrypt("cards", plaintexts())]


async def opened(platform: Platform, texts: list[str]) -> list[bytes]:
    async with channel(platform) as open_channel:
        bulk = BulkTransit(open_channel, lambda: ROOT)
        return [r.plaintext async for r in bulk.decrypt("cards", texts)]


def channel(platform: Platform) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(Path(platform.ca).read_bytes())
    return grpc.aio.secure_channel(platform.grpc_address, credentials)


def plaintexts() -> Iterator[bytes]:
    return (b"%d" % number for number in range(ITEMS))


def killed_after_some(platform: Platform, folder: Path) -> None:
    """Starts the command, and kills it when it has noted that some is done."""
    note, process = folder / "out.txt.rewrap.json", start(platform, folder)
    until(lambda: process.poll() is not None or b'"records":0,' not in note.read_bytes())
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_file_is_rewrapped_although_the_command_is_killed(
    platform: Platform, tmp_path: Path, key: str
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(asyncio.run(ciphertexts(platform))) + "\n")
    platform.http("POST", "transit/keys/cards/rotate")
    partial = tmp_path / "out.txt.rewrap.partial"
    for _ in range(5):
        killed_after_some(platform, tmp_path)
        if partial.exists():
            break
        (tmp_path / "out.txt").unlink()  # it was done before the machine came to the signal
    assert not (tmp_path / "out.txt").exists()
    assert partial.exists()
    second = start(platform, tmp_path)
    said, told = second.communicate(timeout=120)
    assert second.returncode == 0, said + told
    assert f"{ITEMS} records rewrapped or passed over, 0 failed" in said
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert all(line.startswith("vault:v2:") for line in lines)
    assert asyncio.run(opened(platform, lines)) == list(plaintexts())
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.txt"}


def test_what_the_command_cannot_do_it_says_and_leaves_nothing_half_made(
    platform: Platform, tmp_path: Path, key: str
) -> None:
    (tmp_path / "in.txt").write_text("vault:v1:AAAA\n")
    for options, token, says in (
        ((), "srs.none", "the token may not do this"),
        (("--mount=elsewhere",), ROOT, "names no mount"),
        (("--column=x",), ROOT, "--column: is for CSV and JSON Lines"),
        (("--format=csv",), ROOT, "--column: is needed for csv"),
        (("--no-tls", "--address=example.test:1"), ROOT, "--no-tls: is for loopback only"),
    ):
        process = start(platform, tmp_path, *options, token=token)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert says in told
        assert "Traceback" not in told
        assert [file.name for file in tmp_path.iterdir()] == ["in.txt"]
    process = start(platform, tmp_path)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "0 records rewrapped or passed over, 1 failed" in said
    assert (tmp_path / "out.txt").read_text() == "vault:v1:AAAA\n"
