"""Transactions as etcd gets them."""

import os

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.etcd.change import Change

LONG = os.urandom(70_000)
CHANGE = Change(
    expect={b"kv/a": 2**62, b"kv/new": 0},
    puts={b"kv/a": b"sealed", b"kv/new": LONG},
    deletes=[b"kv/old"],
    ranges=[(b"kv/m/", b"kv/m0")],
)


def test_it_says_what_is_to_hold_and_what_is_done_then() -> None:
    request = etcd_pb2.TxnRequest()
    CHANGE.write(request)
    compared = [(c.key, c.target, c.result, c.mod_revision) for c in request.compare]
    mod, equal = etcd_pb2.Compare.MOD, etcd_pb2.Compare.EQUAL
    assert compared == [(b"kv/a", mod, equal, 2**62), (b"kv/new", mod, equal, 0)]
    # An absent key is compared with revision 0, which is said and not left out.
    assert request.compare[1].WhichOneof("target_union") == "mod_revision"
    assert [operation.WhichOneof("request") for operation in request.success] == [
        "request_delete_range",
        "request_delete_range",
        "request_put",
        "request_put",
    ]
    old, below, *puts = request.success
    assert (old.request_delete_range.key, old.request_delete_range.range_end) == (b"kv/old", b"")
    assert below.request_delete_range.key == b"kv/m/"
    assert below.request_delete_range.range_end == b"kv/m0"
    assert {p.request_put.key: p.request_put.value for p in puts} == CHANGE.puts
    assert CHANGE.operations == len(request.success)


def test_it_takes_no_more_than_it_says_even_inside_of_another() -> None:
    for change in (CHANGE, Change(puts={b"k": b""}), Change(expect={b"k": 2**62}), Change()):
        request = etcd_pb2.TxnRequest()
        change.write(request.success.add().request_txn)
        assert request.success[0].HasField("request_txn")
        assert request.ByteSize() <= change.size + 16  # for what stands around it
