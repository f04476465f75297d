"""Connections that say nothing, too much at once, or a byte at a time: they harm no other."""

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.integration.platforms import ROOT, Platform

SILENT = 200


def connect(platform: Platform, address: str, protocol: str) -> ssl.SSLSocket:
    host, _, port = address.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=platform.ca)
    context.set_alpn_protocols([protocol])
    plain = socket.create_connection((host, int(port)), timeout=30)
    return context.wrap_socket(plain, server_hostname=host)


def request(method: str, path: str, body: bytes = b"", *, close: bool = False) -> bytes:
    lines = [
        f"{method} /v1/{path} HTTP/1.1", "Host: x", f"X-Vault-Token: {ROOT}", f"Content-Length: {len(body)}",
        *(["Connection: close"] if close else []),
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(connection: ssl.SSLSocket, count: int) -> Iterator[tuple[int, bytes]]:
    """Yields status and body of so many answers on one connection."""
    with connection.makefile("rb") as reader:
        for _ in range(count):
            status = int(reader.readline().split()[1])
            size = 0
            while (line := reader.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            yield status, reader.read(size)


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_clients_that_say_nothing_keep_nobody_else_waiting(platform: Platform, wire: str) -> None:
    address = platform.address if wire == "http" else platform.grpc_address
    with contextlib.ExitStack() as silent:
        for number in range(SILENT):
            if number % 2:  # not even a hello of TLS
                host, _, port = address.removeprefix("https://").rpartition(":")
                silent.enter_context(socket.create_connection((host, int(port)), timeout=30))
            else:
                protocol = "http/1.1" if wire == "http" else "h2"
                silent.enter_context(connect(platform, address, protocol))
        for number in range(10):
            written = platform.http("POST", "secret/data/beside", json={"data": {"n": number}})
            assert written.status_code == 200
        assert platform.serves()


def test_requests_that_come_together_are_answered_in_their_order(platform: Platform) -> None:
    count = 30
    with connect(platform, platform.address, "http/1.1") as connection:
        for number in range(count):
            body = json.dumps({"data": {"n": number}}).encode()
            connection.sendall(
                request("POST", f"secret/data/piped-{number}", body)
                + request("GET", f"secret/data/piped-{number}")
            )
        got = list(answers(connection, 2 * count))
    assert [status for status, _ in got] == [200] * 2 * count
    read = [json.loads(body)["data"]["data"]["n"] for _, body in got[1::2]]
    assert read == list(range(count))


def test_a_request_may_come_byte_by_byte(platform: Platform) -> None:
    body = json.dumps({"data": {"slow": "bytes"}}).encode()
    with connect(platform, platform.address, "http/1.1") as connection:
        for byte in request("POST", "secret/data/bytes", body) + request(
            "GET", "secret/data/bytes"
        ):
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        (wrote, _), (read, document) = answers(connection, 2)
    assert (wrote, read) == (200, 200)
    assert json.loads(document)["data"]["data"] == {"slow": "bytes"}


def test_who_closes_half_a_connection_ends_it_and_changes_all_or_nothing(
    platform: Platform,
) -> None:
    """Without TLS's word for it a sending half that is closed is a connection that was cut."""
    document = {"half": "x" * 5000}
    body = json.dumps({"data": document}).encode()
    for number in range(20):
        path = f"secret/data/half-{number}"
        with connect(platform, platform.address, "http/1.1") as connection:
            connection.sendall(request("POST", path, body))
            with socket.socket(fileno=os.dup(connection.fileno())) as same:
                same.shutdown(socket.SHUT_WR)
            said = connection.recv(1 << 16)  # ends, with an answer or without
        read = platform.http("GET", path)
        if said.startswith(b"HTTP/1.1 200") or read.status_code != 404:
            assert read.json()["data"]["data"] == document
