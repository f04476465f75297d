"""A transaction as etcd is to have it: keys encoded, values sealed."""

from itertools import chain

import msgspec

from strongroom.etcd.v3 import etcd_pb2

_MOD = etcd_pb2.Compare.MOD
_FRAME_BYTES = 40  # the most that a comparison or an operation takes beside its key and value


class Change(msgspec.Struct):
    """What is to hold, and what is then done.

    Args:
        expect: revisions by key, 0 for absent.
        puts: values by key.
        deletes: keys.
        ranges: what is removed from a key to before another.

    Attributes:
        operations: how many are done.
        size: how many bytes it takes at the most.
    """

    expect: dict[bytes, int] = {}
    puts: dict[bytes, bytes] = {}
    deletes: list[bytes] = []
    ranges: list[tuple[bytes, bytes]] = []
    operations: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self.operations = len(self.puts) + len(self.deletes) + len(self.ranges)
        values = self.puts.values()
        texts = chain(self.expect, self.puts, values, self.deletes, *self.ranges)
        self.size = _FRAME_BYTES * (len(self.expect) + self.operations) + sum(map(len, texts))

    def write(self, request: etcd_pb2.TxnRequest) -> None:
        """Puts it into an empty request."""
        request.SetInParent()  # it may be a part of another, and have nothing in it
        for key, revision in self.expect.items():
            request.compare.add(key=key, target=_MOD, mod_revision=revision)
        add = request.success.add
        for key in self.deletes:
            add().request_delete_range.key = key
        for start, end in self.ranges:
            removed = add().request_delete_range
            removed.key, removed.range_end = start, end
        for key, value in self.puts.items():
            put = add().request_put
            put.key, put.value = key, value

    def changed(self, response: etcd_pb2.TxnResponse) -> bool:
        """Returns whether it changed anything: without a change there is no event to wait for."""
        return response.succeeded and (
            bool(self.puts)
            or any(each.response_delete_range.deleted for each in response.responses)
        )
