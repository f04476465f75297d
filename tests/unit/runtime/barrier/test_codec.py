"""The barrier: what etcd sees, and what does not open."""

import os
from sys import getrefcount, getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime import bounded
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing, keyring
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import LaterTermError, Plain, unreadable

KEY, NAMES = bytes(range(32)), bytes(range(64))


def codec(service: str = "kv", terms: dict[int, bytes] | None = None) -> BarrierCodec:
    return BarrierCodec(service, KeyHolder(KeyRing(terms or {1: KEY}, NAMES)))


segments = st.one_of(
    st.text(min_size=1, max_size=40).filter(lambda s: _encodes(s)),
    st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).map(Plain),
)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(st.lists(segments, min_size=1, max_size=6), st.binary(max_size=200))
def test_paths_and_values_come_back(path: list[str], value: bytes) -> None:
    barrier = codec()
    key = barrier.encode_path(tuple(path))
    decoded = barrier.decode_path(key)
    assert decoded == tuple(path)
    assert [type(s) for s in decoded] == [type(s) for s in path]
    assert barrier.open(key, barrier.seal(key, value)) == value


@given(st.data())
def test_an_altered_value_does_not_open(data: st.DataObject) -> None:
    barrier = codec()
    sealed = bytearray(barrier.seal(b"kv/m/a", b"hunter2"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ServiceError) as caught:
        barrier.open(b"kv/m/a", bytes(sealed))
    assert unreadable(caught.value)
    # What stands where the term does may be one that is to come.
    is_term = 1 <= position <= 4
    later = isinstance(caught.value, LaterTermError)
    assert is_term if later else caught.value.kind is Kind.INTERNAL


def test_long_names_that_anybody_can_give_are_not_remembered() -> None:
    keys = KeyHolder(KeyRing({1: KEY}, NAMES))
    barrier = BarrierCodec("auth", keys)
    for path in ((Plain("u"), "a" * 60_000), (Plain("a" * 60_000), Plain("u"))):
        assert barrier.decode_path(barrier.encode_path(path)) == path
        assert not keys.segments
        assert not keys.paths
        assert not any(len(segment) > 1_000 for segment in keys.names)
    barrier.encode_path((Plain("u"), "a" * 250))
    assert len(keys.segments) == len(keys.paths) == 1


def _bytes(name: tuple[object, ...], key: bytes) -> int:
    path = name[0]
    assert isinstance(path, tuple)
    return sum(map(getsizeof, (name, key, path, *path)))


def test_nothing_holds_a_long_plain_segment() -> None:
    """Lease ids are looked up by what clients say, and are of any length."""
    segment = Plain("a" * 60_000)
    before = getrefcount(segment)
    codec().encode_path((Plain("lease"), segment))
    assert getrefcount(segment) == before


@pytest.mark.parametrize("letter", ["a", "\N{GRINNING FACE}"])
def test_names_that_anybody_can_give_take_no_more_memory_than_is_meant_for_them(
    letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 200_000
    monkeypatch.setattr(keyring, "_SEGMENTS_BYTES", room)
    monkeypatch.setattr(keyring, "_PATHS_BYTES", room)
    monkeypatch.setattr(bounded, "_LARGEST_SHARE", 10)
    keys = KeyHolder(KeyRing({1: KEY}, NAMES))
    barrier = BarrierCodec("auth", keys)
    for length in (5, 50, 500):
        most = 0
        for number in range(2_000):
            path = (Plain("u"), letter * length + str(number))
            barrier.decode_path(barrier.encode_path(path))
            most = max(most, len(keys.paths))
            if number % 100 == 0:
                for held in (keys.segments, keys.names):
                    assert sum(getsizeof(k) + getsizeof(v) for k, v in held.items()) < room
                assert sum(_bytes(*each) for each in keys.paths.items()) < room
        assert most > 10


def test_a_value_moved_to_another_key_does_not_open() -> None:
    barrier = codec()
    with pytest.raises(ServiceError, match="does not open"):
        barrier.open(b"kv/m/b", barrier.seal(b"kv/m/a", b"hunter2"))


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02" + bytes(60), b"\x01" + bytes(15)])
def test_a_value_that_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(ServiceError, match="does not open"):
        codec().open(b"kv/m/a", sealed)


def test_names_are_hidden_and_the_same_each_time() -> None:
    key = codec().encode_path((Plain("m"), "payroll", "database"))
    assert b"payroll" not in key
    assert b"database" not in key
    assert key.startswith(b"kv/m/~")
    assert key == codec().encode_path((Plain("m"), "payroll", "database"))
    assert key.startswith(codec().encode_prefix((Plain("m"), "payroll")))


def test_services_encrypt_the_same_name_differently() -> None:
    kv, auth = codec("kv"), codec("auth")
    assert kv.encode_path(("a",)).split(b"/")[1] != auth.encode_path(("a",)).split(b"/")[1]
    with pytest.raises(ServiceError) as caught:
        auth.decode_path(kv.encode_path(("a",)))
    assert caught.value.kind is Kind.INTERNAL


def test_a_rotation_encrypts_anew_and_opens_the_old() -> None:
    keys = KeyHolder(KeyRing({1: KEY}, NAMES))
    barrier = BarrierCodec("kv", keys)
    old = barrier.seal(b"k", b"old")
    keys.replace(KeyRing({1: KEY, 2: os.urandom(32)}, NAMES))
    new = barrier.seal(b"k", b"new")
    assert (barrier.open(b"k", old), barrier.open(b"k", new)) == (b"old", b"new")
    with pytest.raises(LaterTermError, match="try again") as caught:
        codec().open(b"k", new)
    assert caught.value.kind is Kind.UNAVAILABLE
    keys.replace(KeyRing({2: os.urandom(32)}, NAMES))
    with pytest.raises(ServiceError, match="does not open"):
        barrier.open(b"k", old)


def test_a_term_that_is_not_active_yet_opens_already() -> None:
    """A replica that has not heard of a rotation reads what another one wrote after it."""
    terms = {1: KEY, 2: os.urandom(32)}
    before = BarrierCodec("kv", KeyHolder(KeyRing(terms, NAMES, active=1)))
    after = BarrierCodec("kv", KeyHolder(KeyRing(terms, NAMES, active=2)))
    assert before.open(b"k", after.seal(b"k", b"new")) == b"new"
    assert after.open(b"k", before.seal(b"k", b"old")) == b"old"
    with pytest.raises(ValueError, match="active term"):
        KeyRing(terms, NAMES, active=3)


def test_sealed_means_no_key_is_left() -> None:
    keys = KeyHolder(KeyRing({1: KEY}, NAMES))
    barrier = BarrierCodec("kv", keys)
    key = barrier.encode_path(("a",))
    sealed = barrier.seal(key, b"x")
    keys.replace(None)
    assert keys.sealed
    for call in (
        lambda: barrier.encode_path(("a",)),
        lambda: barrier.decode_path(key),
        lambda: barrier.seal(key, b"x"),
        lambda: barrier.open(key, sealed),
    ):
        with pytest.raises(ServiceError) as caught:
            call()
        assert caught.value.kind is Kind.SEALED


@pytest.mark.parametrize("segment", ["", "a/b", "~a", "a b", "ü"])
def test_a_plain_segment_has_harmless_characters_only(segment: str) -> None:
    with pytest.raises(ValueError, match="plain segment"):
        codec().encode_path((Plain(segment),))


def test_no_key_is_printed() -> None:
    ring = KeyRing({1: KEY}, NAMES)
    assert repr(ring) == "KeyRing(active_term=1)"
    assert KEY.hex() not in repr(KeyHolder(ring))


@pytest.mark.parametrize(("terms", "names"), [({}, NAMES), ({1: KEY[:16]}, NAMES), ({1: KEY}, KEY)])
def test_keys_of_the_wrong_length_are_refused(terms: dict[int, bytes], names: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        KeyRing(terms, names)


def test_a_path_longer_than_etcd_takes_is_refused_before_it_is_asked() -> None:
    barrier = codec()
    assert barrier.encode_path((Plain("m"), "x" * 99_999))
    for path in ((Plain("m"), "x" * 100_000), (Plain("m"), *["x" * 1_000] * 100)):
        with pytest.raises(ServiceError, match="at most 100000 characters") as caught:
            barrier.encode_path(path)
        assert caught.value.kind is Kind.INVALID
