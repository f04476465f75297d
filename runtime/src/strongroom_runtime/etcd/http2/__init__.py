"""gRPC calls to etcd on the event loop itself: HTTP/2 (RFC 9113) as far as a client of gRPC needs it.

A call of grpc.aio passes through a thread of its own and costs some 250 µs where calls come one by one; this costs
70. See `docs/decisions/0025-calls-to-etcd.md`.
"""

from strongroom_runtime.etcd.http2.channel import Channel, Stream, UntrustedError

__all__ = ["Channel", "Stream", "UntrustedError"]
