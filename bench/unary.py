"""Transit over gRPC, one item a call, beside the same operation on OpenBao's HTTP API, in turn on one machine.

Needs h2load (Debian package nghttp2-client) for gRPC and wrk (package wrk) for HTTP on PATH. The servers are started
as in compare.py. h2load knows nothing of gRPC, so that each call is made once by gRPC's own client beforehand, to be
sure of what it answers.

Usage: python bench/unary.py [--split] [--workers N] [--seconds S] [--runs N] [--connections 1,16,64]
                             [--only encrypt,decrypt,sign]
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
from google.protobuf.message import Message

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.compare import TEXT, Figures, arguments, make_keys, measure, median, script_of, show
from bench.peers import Strongroom, openbao, strongroom

from strongroom.transit.v1 import cipher_pb2, signature_pb2

_CIPHERS = "/strongroom.transit.v1.CipherService/"
_PLAINTEXT = b"4111 1111 1111 1111 111"


def call_of(title: str, server: Strongroom) -> tuple[str, Message]:
    """Returns the method and the message of an operation."""
    if title == "sign":
        request = signature_pb2.SignRequest(mount="transit", name="sign", input=_PLAINTEXT)
        return "/strongroom.transit.v1.SignatureService/Sign", request
    if title == "encrypt":
        return _CIPHERS + "Encrypt", cipher_pb2.EncryptRequest(
            mount="transit", name="sealer", plaintext=_PLAINTEXT
        )
    made = json.loads(server.call("POST", "/v1/transit/encrypt/sealer", {"plaintext": TEXT}))
    return _CIPHERS + "Decrypt", cipher_pb2.DecryptRequest(
        mount="transit", name="sealer", ciphertext=made["data"]["ciphertext"]
    )


def try_once(server: Strongroom, method: str, request: Message) -> None:
    """Makes the call as a gRPC client does.

    Raises:
        grpc.RpcError: it fails.
    """
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(method, request_serializer=lambda sent: sent.SerializeToString())
        call(request, metadata=(("x-vault-token", server.token),), timeout=10)


def measure_calls(
    server: Strongroom, folder: Path, title: str, connections: int, seconds: int
) -> Figures:
    method, request = call_of(title, server)
    try_once(server, method, request)
    message = request.SerializeToString()
    body, log = folder / "message", folder / "h2load.log"
    # A message as gRPC frames it: not compressed, its length, itself (gRPC over HTTP2, "Length-Prefixed-Message").
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log.unlink(missing_ok=True)
    before = server.cpu()
    output = subprocess.run(
        ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", f"--log-file={log}", "-d", str(body),
         "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", f"x-vault-token: {server.token}",
         f"http://{server.grpc_address}{method}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    after = server.cpu()
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", output)
    requests, failed, errored = map(int, counts.groups()) if counts else (0, 0, 0)
    if not requests or failed or errored:
        raise RuntimeError(f"h2load: {output}")
    took = [int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines()]
    percentiles = statistics.quantiles(took, n=100)
    return Figures(
        requests / seconds,
        percentiles[49],
        percentiles[98],
        {name: (after[name] - before[name]) / requests * 1e6 for name in before},
    )


def main() -> None:
    options = arguments(__doc__ or "", "encrypt,decrypt,sign").parse_args()
    extra = ["--workers", options.workers, *(["--split"] if options.split else [])]
    sys.stdout.write(
        f"{os.cpu_count()} cores; gRPC by h2load -t1, OpenBao by wrk -t1; {' '.join(extra)}; "
        f"median of {options.runs}\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name,
        strongroom(Path(name), extra) as ours,
        openbao(Path(name)) as theirs,
    ):
        folder = Path(name)
        for server in (ours, theirs):
            make_keys(server)
        sys.stdout.write(f"{'':18}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}\n")
        for title in options.only.split(","):
            for connections in (int(c) for c in options.connections.split(",")):
                by_grpc, by_http = [], []
                for _ in range(options.runs):
                    by_grpc.append(measure_calls(ours, folder, title, connections, options.seconds))
                    script = script_of(title, theirs)
                    by_http.append(measure(theirs, folder, script, connections, options.seconds))
                show(title, connections, ours, median(by_grpc), theirs, median(by_http))


if __name__ == "__main__":
    main()
