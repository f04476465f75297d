"""Key material that comes in and goes out, through the handler table."""

import asyncio
import base64
import datetime
import hmac
import json
import os
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID
from tests.fakes.store import MemoryStore
from tests.unit.transit.test_service import CONTEXT, Transit, refused

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Path, Plain, Transaction
from strongroom_transit.domain.backups import restored
from strongroom_transit.domain.keys import Key
from strongroom_transit.domain.kinds import TYPES, Family
from strongroom_transit.domain.material import private_der
from strongroom_transit.storage import Change, Keys

PEM = serialization.Encoding.PEM
INFO = serialization.PublicFormat.SubjectPublicKeyInfo
FREELY = {"exportable": True, "allow_plaintext_backup": True}


@pytest.fixture
def transit() -> Transit:
    return Transit()


async def wrapped(
    transit: Transit, material: bytes, algorithm: Any = hashes.SHA256, size: int = 32
) -> bytes:
    """Wraps as clients do, by hand."""
    pem = (await transit("ReadWrappingKey")).public_key
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 4096
    ephemeral = os.urandom(size)
    oaep = padding.OAEP(padding.MGF1(algorithm()), algorithm(), None)
    return public.encrypt(ephemeral, oaep) + keywrap.aes_key_wrap_with_padding(ephemeral, material)


def pem_of(public: Any) -> str:
    return str(public.public_bytes(PEM, INFO).decode())


async def test_all_replicas_have_one_wrapping_key(transit: Transit) -> None:
    twin = Transit(transit.store)
    one, other = await asyncio.gather(transit("ReadWrappingKey"), twin("ReadWrappingKey"))
    assert one.public_key == other.public_key


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA384", "sha512", ""])
async def test_a_symmetric_key_is_imported(transit: Transit, algorithm: str) -> None:
    made = getattr(hashes, (algorithm or "SHA256").upper())
    material = os.urandom(32)
    ciphertext = await wrapped(transit, material, made)
    await transit(
        "ImportKey", name="k", ciphertext=ciphertext, hash_function=algorithm, exportable=True
    )
    answer = await transit("ExportKey", name="k", kind="encryption-key")
    assert base64.b64decode(answer.keys["1"]) == material
    info = (await transit("ReadKey", name="k")).key
    assert (info.imported_key, info.imported_key_allow_rotation) == (True, False)
    await refused(transit("RotateKey", name="k"), "imported")
    await refused(
        transit("ImportKey", name="k", ciphertext=ciphertext, hash_function=algorithm), "existing"
    )
    second = await wrapped(transit, os.urandom(32))
    await transit("ImportVersion", name="k", ciphertext=second)
    assert (await transit("ReadKey", name="k")).key.latest_version == 2


async def test_contexts_of_imported_keys_count_as_in_vault(transit: Transit) -> None:
    """Vault derives imported keys in counter mode, and all others by HKDF."""
    material, rest = os.urandom(16), {"type": "aes128-gcm96", "derived": True}
    ciphertext = await wrapped(transit, material)
    await refused(
        transit("ImportKey", name="k", ciphertext=ciphertext, convergent_encryption=True, **rest),
        "convergent_encryption",
    )
    await transit("ImportKey", name="k", ciphertext=ciphertext, **FREELY, **rest)
    info = (await transit("ReadKey", name="k")).key
    assert info.kdf == info.kdf_mode == "hmac-sha256-counter"
    sealed = base64.b64decode((await transit.encrypt("k", b"text", context=b"ctx"))[9:])
    counted = bytes(4) + b"ctx" + (256).to_bytes(4, "big")
    key = hmac.digest(material, counted, "sha256")[:16]
    assert AESGCM(key).decrypt(sealed[:12], sealed[12:], None) == b"text"
    await refused(transit("Encrypt", name="k", plaintext=b"x"), "context")

    backup = (await transit("BackupKey", name="k")).backup
    await transit("RestoreKey", name="other", backup=f"{backup}\n")
    again = await transit.encrypt("other", b"text", context=b"ctx")
    assert await transit.decrypt("k", again, context=b"ctx") == b"text"


async def test_a_restored_key_is_not_rotated_on_time_where_that_is_not_allowed(
    transit: Transit,
) -> None:
    """OpenBao takes a period for imported keys that it may not rotate, and backs it up."""
    await transit(
        "ImportKey", name="k", ciphertext=await wrapped(transit, os.urandom(32)), **FREELY
    )
    text = (await transit("BackupKey", name="k")).backup
    for name, allowed, after in (("no", False, 1), ("yes", True, 2)):
        given = changed(text, auto_rotate_period=3600 * 10**9, AllowImportedKeyRotation=allowed)
        await transit("RestoreKey", name=name, backup=given)
        transit.clock.advance(7200)
        assert await transit.service.rotation.once() == after - 1
        assert (await transit("ReadKey", name=name)).key.latest_version == after


async def test_a_key_that_is_due_although_it_may_not_rotate_stays_as_it_is(
    transit: Transit,
) -> None:
    await transit("ImportKey", name="k", ciphertext=await wrapped(transit, os.urandom(32)))

    async def wrong(key: Key | None) -> Change:
        assert key is not None
        return Change(msgspec.structs.replace(key, rotate_period=3600, rotate_at=1.0))

    keys = Keys(transit.store, 1)
    await keys.change("mount-1", "k", wrong)
    assert len(await keys.due(2.0)) == 1
    assert await transit.service.rotation.once() == 0
    assert await keys.due(2.0) == []
    assert (await transit("ReadKey", name="k")).key.latest_version == 1


@pytest.mark.parametrize("kind", ["rsa-2048", "ecdsa-p384", "ed25519", "ml-dsa-44"])
async def test_the_private_half_may_come_later(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="made", type=kind, **FREELY)
    private = (await transit("ExportKey", name="made", kind="signing-key", format="pem")).keys["1"]
    public = (await transit("ExportKey", name="made", kind="public-key", format="pem")).keys["1"]
    signed = (await transit("Sign", name="made", input=b"x")).signature

    await transit("ImportKey", name="k", type=kind, public_key=public)
    assert (await transit("Verify", name="k", input=b"x", signature=signed)).valid
    await refused(transit("Sign", name="k", input=b"x"), "private part")
    half = private_der(serialization.load_pem_private_key(private.encode(), None))
    await transit("ImportVersion", name="k", ciphertext=await wrapped(transit, half))
    again = (await transit("Sign", name="k", input=b"y")).signature
    assert again.startswith("vault:v1:")
    assert (await transit("Verify", name="made", input=b"y", signature=again)).valid
    await refused(
        transit("ImportVersion", name="k", version=1, ciphertext=await wrapped(transit, half)),
        "version",
    )


async def test_what_does_not_fit_is_not_imported(transit: Transit) -> None:
    rsa_key = private_der(rsa.generate_private_key(65537, 2048))
    p384 = private_der(ec.generate_private_key(ec.SECP384R1()))
    for kind, material in (
        ("aes256-gcm96", os.urandom(16)),
        ("hmac", os.urandom(16)),
        ("ed25519", os.urandom(32)),
        ("ecdsa-p256", p384),
        ("rsa-3072", rsa_key),
    ):
        ciphertext = await wrapped(transit, material)
        await refused(transit("ImportKey", name="k", type=kind, ciphertext=ciphertext), "")
    good = await wrapped(transit, os.urandom(32))
    at = len(good) - 1
    for bad in (good[:at], good[:at] + bytes([good[at] ^ 1]), b"\0" + good[1:], b"x", good * 200):
        await refused(transit("ImportKey", name="k", ciphertext=bad), "ciphertext")
    await refused(transit("ImportKey", name="k", ciphertext=good, hash_function="MD5"), "hash")
    for size in (16, 24):
        weak = await wrapped(transit, os.urandom(32), size=size)
        await refused(transit("ImportKey", name="k", ciphertext=weak), "ciphertext")
    await refused(transit("ImportKey", name="k"), "ciphertext")
    await refused(transit("ImportKey", name="k", public_key="x"), "public_key")
    await refused(transit("ImportKey", name="a b", ciphertext=good), "name")
    period = transit("ImportKey", name="k", ciphertext=good, auto_rotate_period=7200)
    await refused(period, "auto_rotate_period")
    with pytest.raises(ServiceError) as caught:
        await transit("ListKeys")
    assert caught.value.kind is Kind.NOT_FOUND


async def test_an_unsound_rsa_key_is_not_imported(transit: Transit) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    other = rsa.generate_private_key(65537, 2048).private_numbers()
    unsound = rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        other.d,
        other.d % (numbers.p - 1),
        other.d % (numbers.q - 1),
        numbers.iqmp,
        numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    ciphertext = await wrapped(transit, private_der(unsound))
    await refused(transit("ImportKey", name="k", type="rsa-2048", ciphertext=ciphertext), "sound")


async def test_only_what_is_exportable_is_exported(transit: Transit) -> None:
    await transit("CreateKey", name="k", type="ecdsa-p256")
    await refused(transit("ExportKey", name="k", kind="signing-key"), "not exportable")
    assert (await transit("ExportKey", name="k", kind="public-key")).keys["1"].startswith("-----")
    await refused(transit("BackupKey", name="k"), "disallowed")
    await refused(transit("ExportWrappedKey", destination="k", source="k"), "RSA")
    await transit("CreateKey", name="rsa", type="rsa-2048")
    await refused(transit("ExportWrappedKey", destination="rsa", source="k"), "source")
    await transit("ConfigureKey", name="k", exportable=True)
    await refused(transit("ExportKey", name="k", kind="encryption-key"), "encryption-key")
    await refused(transit("ExportKey", name="k", kind="all"), "export type")
    await refused(transit("ExportKey", name="k", kind="signing-key", format="raw"), "format")
    await refused(transit("ExportKey", name="k", kind="signing-key", format="jwk"), "format")
    for version in ("2", "0", "-1", "x"):
        await refused(
            transit("ExportKey", name="k", kind="signing-key", version=version), "version"
        )


async def test_an_export_has_the_versions_that_decrypt(transit: Transit) -> None:
    await transit("CreateKey", name="k", exportable=True)
    for _ in range(3):
        await transit("RotateKey", name="k")
    await transit("ConfigureKey", name="k", min_decryption_version=2)
    answer = await transit("ExportKey", name="k", kind="encryption-key")
    assert sorted(answer.keys) == ["2", "3", "4"]
    answer = await transit("ExportKey", name="k", kind="hmac-key", version="latest")
    assert sorted(answer.keys) == ["4"]


async def test_a_key_goes_wrapped_from_one_mount_to_another(transit: Transit) -> None:
    pem = (await transit("ReadWrappingKey")).public_key
    twin = Transit()
    await twin("ImportKey", name="to", type="rsa-4096", public_key=pem)
    await twin("CreateKey", name="k", type="ed25519", exportable=True)
    signed = (await twin("Sign", name="k", input=b"x")).signature
    answer = await twin("ExportWrappedKey", destination="to", source="k", hash="SHA512")
    await transit(
        "ImportKey",
        name="k",
        type="ed25519",
        ciphertext=base64.b64decode(answer.keys["1"]),
        hash_function="SHA512",
    )
    assert (await transit("Verify", name="k", input=b"x", signature=signed)).valid


@pytest.mark.parametrize("kind", sorted(TYPES))
async def test_a_backup_restores_everything(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="k", type=kind, auto_rotate_period=7200, **FREELY)
    await transit("RotateKey", name="k")
    data = {"input": b"x"}
    mac = "Cmac" if TYPES[kind].family is Family.CMAC else "Hmac"
    before = await transit(mac, name="k", **data)
    text = (await transit("BackupKey", name="k")).backup
    other = Transit()
    await other("RestoreKey", backup=text)
    assert await other(mac, name="k", **data) == before
    one, two = (await transit("ReadKey", name="k")).key, (await other("ReadKey", name="k")).key
    assert one == two
    await other("RotateKey", name="k")


async def test_a_restored_key_replaces_another_only_by_force(transit: Transit) -> None:
    await transit("CreateKey", name="k", **FREELY)
    text = (await transit("BackupKey", name="k")).backup
    old = await transit.encrypt("k", b"old")
    await transit("RotateKey", name="k")
    newer = await transit.encrypt("k", b"newer")
    await refused(transit("RestoreKey", backup=text), "name")
    await transit("RestoreKey", backup=text, force=True)
    assert await transit.decrypt("k", old) == b"old"
    await refused(transit.decrypt("k", newer), "too new")
    assert await kept(transit) == 1


async def test_a_key_that_is_replaced_while_it_is_read_is_used_as_it_is_then(
    transit: Transit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await transit("CreateKey", name="k", **FREELY)
    text = (await transit("BackupKey", name="k")).backup
    old = await transit.encrypt("k", b"old")
    await transit("RotateKey", name="k")  # what was ready before is made anew
    get, left = transit.store.get, [text]

    async def late(path: Path, *, linearizable: bool = False) -> Any:
        if left and path[0] == "v":
            await transit("RestoreKey", backup=left.pop(), force=True)
        return await get(path, linearizable=linearizable)

    monkeypatch.setattr(transit.store, "get", late)
    assert await transit.decrypt("k", old) == b"old"
    left.append(text)
    assert (await transit.encrypt("k", b"x")).startswith("vault:v1:")


async def test_a_key_with_more_versions_than_a_transaction_holds_is_restored(
    transit: Transit,
) -> None:
    await transit("CreateKey", name="k", **FREELY)
    for _ in range(249):
        await transit("RotateKey", name="k")
    text = (await transit("BackupKey", name="k")).backup
    first = await transit.encrypt("k", b"x", key_version=1)
    await transit("RestoreKey", name="again", backup=text)
    assert await transit.decrypt("again", first) == b"x"
    assert await kept(transit) == 500
    await refused(transit("RestoreKey", name="again", backup=text), "name")
    assert await kept(transit) == 500


class Mortal(MemoryStore):
    """Lets whoever commits for the n-th time die before or after it, or wait."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.after = -1, False
        self.waits = self.waiting = asyncio.Event()

    async def commit(self, transaction: Transaction) -> int:
        self.left -= 1
        if self.left == 0 and self.waits is not self.waiting:
            self.waiting.set()
            await self.waits.wait()
        elif self.left == 0 and not self.after:
            raise asyncio.CancelledError
        revision = await super().commit(transaction)
        if self.left == 0 and self.after:
            raise asyncio.CancelledError
        return revision


async def backup_of(transit: Transit, versions: int) -> str:
    await transit("CreateKey", name="k", **FREELY)
    for _ in range(versions - 1):
        await transit("RotateKey", name="k")
    return str((await transit("BackupKey", name="k")).backup)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commit", [1, 2, 3, 4, 5])
async def test_what_a_crash_leaves_of_a_restore_is_removed(commit: int, after: bool) -> None:
    store = Mortal()
    transit, other = Transit(store), Transit(store)
    text = await backup_of(transit, 250)
    first = await transit.encrypt("k", b"x", key_version=1)
    # The record, three times versions, the settings.
    store.left, store.after = commit, after
    with pytest.raises(asyncio.CancelledError):
        await transit("RestoreKey", name="again", backup=text)
    assert store.left == 0
    leftovers = other.service.leftovers
    assert await leftovers.once() == 0
    other.clock.advance(899)
    assert await leftovers.once() == 0
    other.clock.advance(1)
    whole, begun = (commit, after) == (5, True), (commit, after) != (1, False)
    assert await leftovers.once() == int(begun and not whole)
    assert await kept(transit) == (500 if whole else 250)
    assert await store.count((Plain("begun"),)) == 0
    if whole:
        assert await other.decrypt("again", first) == b"x"
    else:
        await transit("RestoreKey", name="again", backup=text)
    assert await kept(transit) == 500


@pytest.mark.parametrize("commit", [2, 3, 5])
async def test_a_restore_that_was_taken_for_dead_gives_up(commit: int) -> None:
    store = Mortal()
    transit, other = Transit(store), Transit(store)
    text = await backup_of(transit, 250)
    store.left, store.waits = commit, asyncio.Event()
    slow = asyncio.create_task(transit("RestoreKey", name="again", backup=text))
    await store.waiting.wait()
    assert await other.service.leftovers.once() == 0
    other.clock.advance(900)
    assert await other.service.leftovers.once() == 1
    store.waits.set()
    with pytest.raises(ServiceError) as caught:
        await slow
    assert (caught.value.kind, "took too long" in caught.value.message) == (Kind.CONFLICT, True)
    assert await kept(transit) == 250


async def test_a_refused_restore_and_a_mount_that_goes_leave_nothing() -> None:
    store = Mortal()
    transit = Transit(store)
    text = await backup_of(transit, 250)
    await refused(transit("RestoreKey", name="k", backup=text), "name")
    assert (await kept(transit), await store.count((Plain("begun"),))) == (250, 0)
    store.left = 3
    with pytest.raises(asyncio.CancelledError):
        await transit("RestoreKey", name="again", backup=text)
    await transit("DropMount", mount_uuid="mount-1")
    assert (await kept(transit), await store.count((Plain("begun"),))) == (0, 0)


async def test_of_a_mount_that_was_disabled_nothing_stays_for_ever() -> None:
    store = Mortal()
    transit = Transit(store)
    await backup_of(transit, 2)
    await transit("DropMount", mount_uuid="mount-1")
    for seconds, marks in ((0, 1), (86_399, 1), (1, 0)):
        transit.clock.advance(seconds)
        await transit.service.marks.once()
        assert await store.count((Plain("gone"),)) == marks


async def kept(transit: Transit) -> int:
    """Returns how many versions are stored."""
    return await transit.store.count((Plain("v"),))


def changed(text: str, **policy: Any) -> str:
    document = json.loads(base64.b64decode(text))
    document["archived_keys"] = None
    document["policy"].update(policy)
    return base64.b64encode(json.dumps(document).encode()).decode()


async def test_what_is_no_backup_is_refused(transit: Transit) -> None:
    await transit("CreateKey", name="k", **FREELY)
    text = (await transit("BackupKey", name="k")).backup
    for bad in (
        "",
        "####",
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b"[" * 100_000).decode(),
        base64.b64encode(b'{"policy": null}').decode(),
        changed(text, type=99),
        changed(text, keys={}),
        changed(text, latest_version=10**9),
        changed(text, latest_version=-1),
        changed(text, min_decryption_version=5),
        changed(text, convergent_encryption=True, convergent_version=1),
        changed(text, derived=True, kdf=2),
        changed(text, derived=True, kdf=0, convergent_encryption=True, convergent_version=-1),
        changed(text, version_template="x{{version}}"),
        changed(text, keys={"1": {"key": "AAAA"}}),
        changed(text, keys={"1": {"key": 7}}),
        changed(text, type=3),
        changed(text, type=1),
        changed(text, auto_rotate_period=60 * 10**9),
    ):
        await refused(transit("RestoreKey", name="other", backup=bad), "")
    assert (await transit("ListKeys")).keys == ["k"]


async def test_nothing_of_a_key_is_in_its_representation(transit: Transit) -> None:
    await transit("CreateKey", name="k", **FREELY)
    text = (await transit("BackupKey", name="k")).backup
    secret = (await transit("ExportKey", name="k", kind="encryption-key")).keys["1"]
    found = restored(text, 0.0)
    assert str(base64.b64decode(secret))[2:-1] not in repr(found)
    keyset = await Keys(transit.store, 5).keyset("mount-1", "k", {1})
    assert str(base64.b64decode(secret))[2:-1] not in repr(keyset)


@pytest.mark.parametrize("kind", ["rsa-2048", "ecdsa-p256", "ecdsa-p521", "ed25519"])
async def test_a_certificate_is_asked_for_and_kept(transit: Transit, kind: str) -> None:
    await transit("CreateKey", name="k", type=kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    template = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("app.test")]), False)
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    asked = (await transit("CreateCertificateRequest", name="k", csr=pem_text(template))).csr
    request = x509.load_pem_x509_csr(asked.encode())
    assert request.is_signature_valid
    assert request.subject == name
    assert len(request.extensions) == 1
    assert pem_of(request.public_key()) == pem_of_info(await transit("ReadKey", name="k"), kind)

    authority = ec.generate_private_key(ec.SECP256R1())
    root = certificate(authority, authority.public_key(), "root")
    leaf = certificate(authority, request.public_key(), "app")
    chain = pem_text(leaf) + pem_text(root)
    info = (await transit("SetCertificate", name="k", certificate_chain=chain)).key
    assert json.loads(info.keys)["1"]["certificate_chain"] == chain
    export = {"name": "k", "kind": "certificate-chain"}
    assert (await transit("ExportKey", **export)).keys == {"1": chain}
    await transit("RotateKey", name="k")
    assert (await transit("ExportKey", **export)).keys == {"1": chain}
    await refused(transit("ExportKey", version="2", **export), "certificate chain")
    stranger = certificate(ec.generate_private_key(ec.SECP256R1()), authority.public_key(), "x")
    for bad in ("", "x", pem_text(root), pem_text(leaf) + pem_text(stranger), chain * 20):
        await refused(
            transit("SetCertificate", name="k", version=1, certificate_chain=bad),
            "certificate_chain",
        )
    await refused(
        transit("SetCertificate", name="k", version=3, certificate_chain=chain), "version"
    )
    await refused(transit("CreateCertificateRequest", name="k", csr="x"), "csr")
    await refused(transit("CreateCertificateRequest", name="k", version=7), "version")


def pem_text(made: Any) -> str:
    return str(made.public_bytes(PEM).decode())


def pem_of_info(answer: Any, kind: str) -> str:
    text = json.loads(answer.key.keys)["1"]["public_key"]
    if kind == "ed25519":
        return pem_of(ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text)))
    return str(text)


def certificate(issuer: ec.EllipticCurvePrivateKey, public: Any, subject: str) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(issuer, hashes.SHA256())
    )


async def test_two_sides_agree_on_a_key(transit: Transit) -> None:
    await transit("CreateKey", name="base", type="ecdsa-p256")
    ours = json.loads((await transit("ReadKey", name="base")).key.keys)["1"]["public_key"]
    peer = ec.generate_private_key(ec.SECP256R1())
    fields = {"base_key_name": "base", "peer_public_key": pem_of(peer.public_key())}
    await transit("DeriveKey", name="k", **fields)
    public = serialization.load_pem_public_key(ours.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    shared = HKDF(hashes.SHA256(), 32, None, None).derive(peer.exchange(ec.ECDH(), public))
    keyset = await Keys(transit.store, 5).keyset("mount-1", "k", {1})
    assert keyset is not None
    assert keyset.version(1).version.secret == shared
    await transit("DeriveKey", name="k", **fields)
    assert (await transit("ReadKey", name="k")).key.latest_version == 2
    await transit("CreateKey", name="own")
    await refused(transit("DeriveKey", name="own", **fields), "imported")
    other = pem_of(ec.generate_private_key(ec.SECP384R1()).public_key())
    wrong: list[dict[str, Any]] = [
        {"peer_public_key": other},
        {"peer_public_key": "x"},
        {"peer_public_key": ""},
        {"base_key_name": "own"},
        {"base_key_name": ""},
        {"derived_key_type": "rsa-2048"},
        {"derived_key_type": "chacha20-poly1305"},
        {"key_derivation_algorithm": "x"},
        {"base_key_version": 9},
    ]
    for each in wrong:
        await refused(transit("DeriveKey", name="k", **{**fields, **each}), "")


MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC_4493 = [
    (0, "bb1d6929e95937287fa37d129b756746"),
    (16, "070a16b46b4d4144f79bdd9dd04a287c"),
    (40, "dfa66747de9ae63030ca32611497c827"),
    (64, "51f0bebf7e3b9d92fc49741779363cfe"),
]


@pytest.mark.parametrize(("size", "expected"), RFC_4493)
async def test_cmacs_are_those_of_rfc_4493(transit: Transit, size: int, expected: str) -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    ciphertext = await wrapped(transit, key)
    await transit("ImportKey", name="k", type="aes128-cmac", ciphertext=ciphertext)
    made = (await transit("Cmac", name="k", input=MESSAGE[:size])).cmac
    assert base64.b64decode(made.removeprefix("vault:v1:")).hex() == expected
    short = (await transit("Cmac", name="k", input=MESSAGE[:size], url_mac_length="8")).cmac
    assert base64.b64decode(short.removeprefix("vault:v1:")).hex() == expected[:16]

    async def valid(data: bytes, cmac: str, **fields: Any) -> bool:
        return bool((await transit("Verify", name="k", input=data, cmac=cmac, **fields)).valid)

    assert await valid(MESSAGE[:size], made)
    assert await valid(MESSAGE[:size], short, mac_length=8)
    assert not await valid(MESSAGE[:size], short)
    assert not await valid(MESSAGE[:size] + b"x", made)


async def test_cmacs_of_other_keys_and_lengths_are_refused(transit: Transit) -> None:
    await transit("CreateKey", name="aes")
    await refused(transit("Cmac", name="aes", input=b"x"), "CMAC")
    await transit("CreateKey", name="k", type="aes256-cmac")
    for length in ({"mac_length": 4}, {"mac_length": 17}, {"url_mac_length": "x"}):
        await refused(transit("Cmac", name="k", input=b"x", **length), "mac_length")
    await refused(transit("Verify", name="k", input=b"x", cmac="x", hmac="y"), "exactly one")


async def test_keys_that_are_not_there_are_not_found(transit: Transit) -> None:
    for method in ("BackupKey", "ExportKey", "ReadKey", "ImportVersion"):
        fields = {"public_key": "x"} if method == "ImportVersion" else {}
        with pytest.raises(ServiceError) as caught:
            await transit(method, CONTEXT, name="none", **fields)
        assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("RotateKey", {}),
        ("ConfigureKey", {"min_decryption_version": 1}),
        ("TrimKey", {"min_available_version": 1}),
        ("SoftDeleteKey", {}),
        ("RestoreSoftDeletedKey", {}),
        ("DeleteKey", {}),
        ("CreateCertificateRequest", {}),
        ("SetCertificate", {"certificate_chain": "x"}),
        ("Sign", {"input": b"x"}),
        ("Verify", {"input": b"x", "signature": "vault:v1:AAAA"}),
        ("Hmac", {"input": b"x"}),
    ],
)
async def test_nothing_is_done_with_keys_that_are_not_there(
    transit: Transit, method: str, fields: dict[str, Any]
) -> None:
    """As in Vault that is 400, with a text that says so; 404 is for what is read."""
    with pytest.raises(ServiceError) as caught:
        await transit(method, name="none", **fields)
    assert caught.value.kind is Kind.INVALID
    assert any(text in caught.value.message for text in ("there is no key", "not found"))
