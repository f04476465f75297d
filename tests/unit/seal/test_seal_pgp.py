"""What is made for people who have PGP keys."""

import base64
import json
from typing import Any

import pysequoia
import pytest
from tests.unit.seal.harness import Auth

from strongroom_runtime.errors import ServiceError

TWO_OF_TWO = {"secret_shares": 2, "secret_threshold": 2}


class Holder:
    """Someone with a PGP key."""

    def __init__(self) -> None:
        self._key = pysequoia.Tsk.generate("Holder <holder@example.com>")
        self.certificate = self._key.extract_certificate()
        self.public = base64.b64encode(bytes(self.certificate)).decode()
        self.private = base64.b64encode(bytes(self._key)).decode()

    def open(self, message: bytes) -> str:
        opened = pysequoia.decrypt(message, decryptor=self._key.decryptor())
        assert opened.bytes is not None
        return opened.bytes.decode()


@pytest.fixture
def holders() -> list[Holder]:
    return [Holder(), Holder()]


def opened(holders: list[Holder], keys: Any) -> list[str]:
    return [holder.open(bytes.fromhex(key)) for holder, key in zip(holders, keys, strict=True)]


async def test_an_initialisation_encrypts_shares_and_root_token(
    process: Any, auth: Auth, holders: list[Holder]
) -> None:
    one = await process()
    public = [holder.public for holder in holders]
    made = await one(
        "Initialize", **TWO_OF_TWO, pgp_keys=public, root_token_pgp_key=holders[1].public
    )
    for key in opened(holders, made.keys):
        await one("Unseal", key=key)
    assert not one.sealed
    assert [base64.b64decode(key).hex() for key in made.keys_base64] == list(made.keys)
    assert holders[1].open(base64.b64decode(made.root_token)) == auth.tokens[0]


async def test_an_initialisation_beside_a_key_file_encrypts_shares_of_the_recovery_key(
    process: Any, holders: list[Holder]
) -> None:
    one = await process(True)
    public = [holder.public for holder in holders]
    both = {"recovery_pgp_keys": public, "pgp_keys": public}
    numbers = {"recovery_shares": 2, "recovery_threshold": 2}
    with pytest.raises(ServiceError, match="only the recovery key has shares"):
        await one("Initialize", **numbers, **both)
    made = await one("Initialize", **numbers, recovery_pgp_keys=public)
    nonce = (await one("StartRekey", secret_shares=1, secret_threshold=1)).status.nonce
    for key in opened(holders, made.recovery_keys):
        done = await one("UpdateRekey", key=key, nonce=nonce)
    assert done.complete


@pytest.mark.parametrize("bad", ["pgp_keys", "root_token_pgp_key"])
async def test_nothing_is_made_for_a_key_that_does_not_encrypt(
    process: Any, holders: list[Holder], bad: str
) -> None:
    one = await process()
    keys: dict[str, Any] = {
        "pgp_keys": [holder.public for holder in holders],
        "root_token_pgp_key": holders[0].public,
    }
    keys[bad] = [holders[0].public, "AAAA"] if bad == "pgp_keys" else "AAAA"
    with pytest.raises(ServiceError, match=f"^{bad}: a key cannot be used: [^\n]*$"):
        await one("Initialize", **TWO_OF_TWO, **keys)
    assert not (await one("ReadInit")).initialized


async def test_a_private_key_is_refused(process: Any, holders: list[Holder]) -> None:
    one = await process()
    with pytest.raises(ServiceError, match="private"):
        await one("Initialize", **TWO_OF_TWO, pgp_keys=[holder.private for holder in holders])


async def test_new_shares_are_encrypted_and_kept_if_asked_for(
    process: Any, holders: list[Holder]
) -> None:
    one = await process()
    made = await one("Initialize", secret_shares=1, secret_threshold=1)
    await one("Unseal", key=made.keys[0])
    public = [holder.public for holder in holders]
    started = (await one("StartRekey", **TWO_OF_TWO, pgp_keys=public, backup=True)).status
    prints = [holder.certificate.fingerprint for holder in holders]
    assert (list(started.pgp_fingerprints), started.backup) == (prints, True)
    with pytest.raises(ServiceError, match="no backed-up keys"):
        await one("ReadRekeyBackup")
    done = await one("UpdateRekey", key=made.keys[0], nonce=started.nonce)
    assert (list(done.pgp_fingerprints), done.backup) == (prints, True)
    kept = await one("ReadRekeyBackup")
    assert kept.nonce == started.nonce
    by_print = dict(zip(prints, ([key] for key in done.keys), strict=True))
    assert json.loads(kept.keys) == by_print
    assert json.loads(kept.keys_base64)[prints[0]] == [done.keys_base64[0]]
    await one("RotateRootKey")
    assert json.loads((await one("ReadRekeyBackup")).keys) == by_print
    other = await process()
    for key in opened(holders, done.keys):
        await other("Unseal", key=key)
    assert not other.sealed
    await other("DeleteRekeyBackup")
    with pytest.raises(ServiceError, match="no backed-up keys"):
        await one("ReadRekeyBackup")


async def test_a_backup_shows_only_shares_that_took_effect(
    process: Any, holders: list[Holder]
) -> None:
    one = await process()
    made = await one("Initialize", secret_shares=1, secret_threshold=1)
    await one("Unseal", key=made.keys[0])
    public = [holder.public for holder in holders]
    change = {**TWO_OF_TWO, "pgp_keys": public, "backup": True, "require_verification": True}
    nonce = (await one("StartRekey", **change)).status.nonce
    done = await one("UpdateRekey", key=made.keys[0], nonce=nonce)
    with pytest.raises(ServiceError, match="no backed-up keys"):
        await one("ReadRekeyBackup")
    for key in opened(holders, done.keys):
        verified = await one("VerifyRekey", key=key, nonce=done.verification_nonce)
    assert verified.complete
    assert (await one("ReadRekeyBackup")).nonce == nonce


async def test_a_root_token_is_made_for_the_holder_of_a_key(
    process: Any, auth: Auth, holders: list[Holder]
) -> None:
    one = await process(True)
    made = await one("Initialize", recovery_shares=1, recovery_threshold=1)
    with pytest.raises(ServiceError, match="give one of them"):
        await one("StartGenerateRoot", otp="x" * 30, pgp_key=holders[0].public)
    started = (await one("StartGenerateRoot", pgp_key=holders[0].public)).status
    assert (started.pgp_fingerprint, started.otp) == (holders[0].certificate.fingerprint, "")
    done = await one("UpdateGenerateRoot", key=made.recovery_keys[0], nonce=started.nonce)
    assert holders[0].open(base64.b64decode(done.status.encoded_token)) == auth.tokens[-1]
