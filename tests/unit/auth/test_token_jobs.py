"""What revoked tokens leave to be done."""

from tests.fakes.store import MemoryStore

from strongroom_auth.tokens.storage import TokenStore
from strongroom_runtime.storage import Plain, Transaction


async def test_nothing_is_looked_for_again_while_nothing_changes() -> None:
    store = MemoryStore()
    tokens = TokenStore(store)
    assert await tokens.jobs() == []
    looks = store.looks
    assert await tokens.jobs() == []
    assert store.looks == looks
    await store.commit(Transaction(puts={(Plain("cleanup"), Plain("id")): b"parent"}))
    for _ in range(2):
        assert await tokens.jobs() == [("id", "parent")]
