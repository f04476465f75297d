"""What holds for keys of every type, whatever the version, context, associated data and text."""

from base64 import b64decode, b64encode
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.garbage import no_frames_left

from strongroom.transit.v1 import cipher_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_transit.domain import ciphers, cmacs, signatures
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.keyset import Keyset, split
from strongroom_transit.domain.kinds import TYPES, Family
from strongroom_transit.domain.material import Loaded, Version, new_version
from strongroom_transit.domain.signatures import Scheme

VERSIONS = 3
AEADS = sorted(name for name, kind in TYPES.items() if kind.family is Family.AEAD)
RSA = sorted(name for name, kind in TYPES.items() if kind.family is Family.RSA)
SIGNERS = sorted(name for name, kind in TYPES.items() if kind.signs)
CMACS = sorted(name for name, kind in TYPES.items() if kind.family is Family.CMAC)

numbers = st.integers(1, VERSIONS)
texts = st.binary(max_size=200)
contexts = st.binary(min_size=1, max_size=40)
few = settings(deadline=None, max_examples=5)  # of what takes milliseconds
some = settings(deadline=None, max_examples=30)


@cache
def material(kind: str) -> tuple[Version, ...]:
    return tuple(new_version(TYPES[kind], 0.0) for _ in range(VERSIONS))


def keyset(kind: str, *, derived: bool = False, convergent: bool = False) -> Keyset:
    key = Key("uuid", kind, latest=VERSIONS, derived=derived, convergent=convergent)
    loaded = {
        number: Loaded(key.kind, version, derived=derived, convergent=convergent)
        for number, version in enumerate(material(kind), 1)
    }
    return Keyset(key, loaded)


def decrypted(keys: Keyset, ciphertext: str, context: bytes = b"", data: bytes = b"") -> bytes:
    return ciphers.decrypt(
        keys, cipher_pb2.DecryptItem(ciphertext=ciphertext, context=context, associated_data=data)
    )


def changed(text: str, at: int, mask: int) -> str:
    """Returns a ciphertext, signature or MAC with one byte of its body changed."""
    number, body = split(text, "text")
    raw = bytearray(b64decode(body))
    raw[at % len(raw)] ^= mask
    return f"vault:v{number}:{b64encode(raw).decode()}"


def moved(text: str, number: int) -> str:
    """Returns the same as of another version."""
    return f"vault:v{number}:{text.split(':')[2]}"


def another(number: int) -> int:
    return number % VERSIONS + 1


def refused(check: Any, *arguments: Any) -> bool:
    """Returns whether something does not pass: it is found to be false, or malformed."""
    try:
        return not check(*arguments)
    except ServiceError:
        return True


@pytest.mark.parametrize("kind", AEADS)
@pytest.mark.parametrize("mode", ["plain", "derived", "convergent"])
@some
@given(number=numbers, text=texts, context=contexts, data=texts)
def test_what_is_encrypted_is_decrypted_and_rewrapped(
    kind: str, mode: str, number: int, text: bytes, context: bytes, data: bytes
) -> None:
    keys = keyset(kind, derived=mode != "plain", convergent=mode == "convergent")
    made = ciphers.seal(keys, text, context, data, number)
    assert made.version == number
    assert made.ciphertext.startswith(f"vault:v{number}:")
    assert decrypted(keys, made.ciphertext, context, data) == text
    item = cipher_pb2.RewrapItem(ciphertext=made.ciphertext, context=context, associated_data=data)
    anew = ciphers.rewrap(ciphers.Opener(keys), ciphers.Sealer(keys), item)
    assert anew.version == VERSIONS
    assert decrypted(keys, anew.ciphertext, context, data) == text


@pytest.mark.parametrize("kind", AEADS)
@pytest.mark.parametrize("convergent", [False, True])
@few
@given(number=numbers, text=texts, context=contexts, data=texts, mask=st.integers(1, 255))
def test_no_byte_of_a_ciphertext_can_be_changed_cut_off_or_moved(
    kind: str, convergent: bool, number: int, text: bytes, context: bytes, data: bytes, mask: int
) -> None:
    keys = keyset(kind, derived=True, convergent=convergent)
    made = ciphers.seal(keys, text, context, data, number).ciphertext
    body = b64decode(made.split(":")[2])
    prefix = f"vault:v{number}:"
    forged = {changed(made, at, mask) for at in range(len(body))}
    forged |= {prefix + b64encode(body[:size]).decode() for size in range(len(body))}
    others = set(range(1, VERSIONS + 2)) - {number}  # 0 is another name of 1
    forged |= {moved(made, other) for other in others}
    for each in forged:
        with pytest.raises(ServiceError):
            decrypted(keys, each, context, data)
    for other in ((context + b"\0", data), (context, data + b"\0")):
        with pytest.raises(ServiceError):
            decrypted(keys, made, *other)


@pytest.mark.parametrize("kind", RSA)
@few
@given(
    number=numbers,
    text=texts.map(lambda text: text[:190]),
    at=st.integers(0),
    mask=st.integers(1, 255),
)
def test_encryption_to_rsa_keys(kind: str, number: int, text: bytes, at: int, mask: int) -> None:
    keys = keyset(kind)
    made = ciphers.seal(keys, text, b"", b"", number).ciphertext
    assert decrypted(keys, made) == text
    for forged in (
        changed(made, at, mask),
        moved(made, another(number)),
    ):
        with pytest.raises(ServiceError):
            decrypted(keys, forged)


Parts = tuple[int, bytes, bytes, bytes]
# Few values, so that two draws often have some of them in common.
alike: st.SearchStrategy[Parts] = st.tuples(
    st.integers(1, 2),
    st.sampled_from([b"ctx", b"ctx2"]),
    st.sampled_from([b"", b"text", b"text2"]),
    st.sampled_from([b"", b"data", b"text"]),
)


@pytest.mark.parametrize("kind", AEADS)
@settings(deadline=None, max_examples=150)
@given(one=alike, other=alike)
def test_convergent_ciphertexts_and_nonces_are_equal_only_where_everything_is(
    kind: str, one: Parts, other: Parts
) -> None:
    """A nonce that another text or other associated data had would give up the key that authenticates."""
    keys = keyset(kind, derived=True, convergent=True)

    def sealed(parts: Parts) -> str:
        number, context, text, data = parts
        return ciphers.seal(keys, text, context, data, number).ciphertext

    def nonce(text: str) -> bytes:
        return b64decode(text.split(":")[2])[: TYPES[kind].nonce_bytes]

    assert (sealed(one) == sealed(other)) is (one == other)
    assert (nonce(sealed(one)) == nonce(sealed(other))) is (one == other)


@pytest.mark.parametrize("kind", AEADS)
@pytest.mark.parametrize("derived", [False, True])
@some
@given(number=numbers, text=texts, data=texts)
def test_other_ciphertexts_are_never_equal(
    kind: str, derived: bool, number: int, text: bytes, data: bytes
) -> None:
    keys = keyset(kind, derived=derived)
    sealer = ciphers.Sealer(keys, 10)
    made = [sealer.seal(text, b"ctx", data, number).ciphertext for _ in range(10)]
    assert len(set(made)) == 10


@pytest.mark.parametrize("kind", [*AEADS, *RSA])
@pytest.mark.parametrize("derived", [False, True])
@few
@given(
    wanted=st.integers(0, VERSIONS), some_texts=st.lists(texts.map(lambda t: t[:190]), max_size=5)
)
def test_what_is_encrypted_together_opens_by_itself(
    kind: str, derived: bool, wanted: int, some_texts: list[bytes]
) -> None:
    derived = derived and kind in AEADS
    keys, context = keyset(kind, derived=derived), b"ctx" if derived else b""
    data = b"" if kind in RSA else b"data"
    items = [
        cipher_pb2.EncryptItem(plaintext=text, context=context, associated_data=data)
        for text in some_texts
    ]
    sealer = ciphers.Sealer(keys)
    made = [str(each) for each in sealer.seal_all(items, wanted)]
    assert sealer.version == (wanted or VERSIONS)
    assert all(text.startswith(f"vault:v{sealer.version}:") for text in made)
    assert [decrypted(keys, text, context, data) for text in made] == some_texts
    assert len(set(made)) == len(made)  # each has a nonce of its own


@pytest.mark.parametrize("kind", [*AEADS, *RSA])
@pytest.mark.parametrize("derived", [False, True])
@few
@given(data=st.data())
def test_what_is_decrypted_together_gives_what_each_gives_by_itself(
    kind: str, derived: bool, data: st.DataObject
) -> None:
    keys = keyset(kind, derived=derived and kind in AEADS)
    good = [ciphers.seal(keys, b"text", b"ctx", b"", n).ciphertext for n in (1, 2, 3)]
    odd = ["", "vault:v1:", "vault:v1:%", "vault:v9:aGk=", "vault:vx:a", "v", "vault:v1:aGk="]
    odd += [good[0] + "\n", changed(good[0], 3, 1), moved(good[1], 1), good[1][:-4]]
    drawn = data.draw(st.lists(st.sampled_from([*good, *odd]), max_size=8))
    items = [cipher_pb2.DecryptItem(ciphertext=text, context=b"ctx") for text in drawn]

    def by_itself(item: cipher_pb2.DecryptItem) -> bytes | str:
        try:
            return ciphers.decrypt(keys, item)
        except ServiceError as error:
            return error.message

    together = ciphers.Opener(keys).decrypt_all(items)
    assert [r.message if isinstance(r, ServiceError) else r for r in together] == [
        by_itself(item) for item in items
    ]


def test_what_cannot_be_decrypted_leaves_nothing_in_memory() -> None:
    opener = ciphers.Opener(keyset(AEADS[0]))
    with no_frames_left():
        assert (
            len(opener.decrypt_all([cipher_pb2.DecryptItem(ciphertext="vault:v1:aGk=")] * 3)) == 3
        )


@pytest.mark.parametrize("kind", [*AEADS, *RSA])
@pytest.mark.parametrize("derived", [False, True])
@few
@given(broken=st.lists(st.booleans(), max_size=6), wanted=st.integers(0, VERSIONS + 1))
def test_what_is_rewrapped_together_is_each_what_it_was(
    kind: str, derived: bool, broken: list[bool], wanted: int
) -> None:
    keys = keyset(kind, derived=derived and kind in AEADS)
    made = [ciphers.seal(keys, b"%d" % at, b"ctx", b"", 1).ciphertext for at in range(len(broken))]
    texts = ["v" if bad else text for text, bad in zip(made, broken, strict=True)]
    items = [cipher_pb2.RewrapItem(ciphertext=text, context=b"ctx") for text in texts]
    results = ciphers.rewrap_all(ciphers.Opener(keys), ciphers.Sealer(keys), items, wanted)
    assert len(results) == len(items)
    for at, (result, bad) in enumerate(zip(results, broken, strict=True)):
        if bad:
            assert str(result) == "invalid ciphertext: no prefix"
        elif wanted > VERSIONS:
            assert str(result) == "key_version: is higher than the latest key version"
        else:
            assert split(str(result), "ciphertext")[0] == (wanted or VERSIONS)
            assert decrypted(keys, str(result), b"ctx") == b"%d" % at


@pytest.mark.parametrize("derived", [False, True])
def test_a_version_that_may_not_be_used_is_an_error_of_each_item(derived: bool) -> None:
    keys = keyset("aes256-gcm96", derived=derived)
    items = [cipher_pb2.EncryptItem(plaintext=b"x", context=b"c") for _ in range(2)]
    results = ciphers.Sealer(keys).seal_all(items, VERSIONS + 1)
    assert [type(each) for each in results] == [ServiceError] * 2


@pytest.mark.parametrize("kind", SIGNERS)
@few
@given(number=numbers, text=texts, at=st.integers(0), mask=st.integers(1, 255))
def test_signatures_are_good_for_their_text_and_version_alone(
    kind: str, number: int, text: bytes, at: int, mask: int
) -> None:
    keys = keyset(kind)
    made = signatures.sign(keys, text, b"", number, Scheme()).signature

    def good(text: bytes, signature: str) -> bool:
        return signatures.verify(keys, text, signature, b"", Scheme())

    assert good(text, made)
    assert refused(good, text + b"\0", made)
    assert refused(good, text, changed(made, at, mask))
    assert refused(good, text, moved(made, another(number)))


@pytest.mark.parametrize("kind", ["hmac", "aes256-gcm96", *CMACS])
@some
@given(number=numbers, text=texts, at=st.integers(0), mask=st.integers(1, 255))
def test_macs_are_good_for_their_text_and_version_alone(
    kind: str, number: int, text: bytes, at: int, mask: int
) -> None:
    keys = keyset(kind)

    def make() -> str:
        if kind in CMACS:
            return cmacs.make(keys, text, number, 16)
        return signatures.make_hmac(keys, text, number, "")

    def good(text: bytes, mac: str) -> bool:
        if kind in CMACS:
            return cmacs.verify(keys, text, mac, 16)
        return signatures.verify_hmac(keys, text, mac, "")

    made = make()
    assert good(text, made)
    assert refused(good, text + b"\0", made)
    assert refused(good, text, changed(made, at, mask))
    assert refused(good, text, moved(made, another(number)))
