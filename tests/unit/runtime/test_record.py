"""Single records, read anew where anything changed."""

from tests.fakes.store import MemoryStore

from strongroom_runtime.record import Record
from strongroom_runtime.storage import Entry, Path, Plain, Transaction

A: Path = (Plain("a"),)
B: Path = (Plain("b"),)


class SlowStore(MemoryStore):
    """Counts its reads, and lets something happen in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.reads_made = 0
        self.meanwhile: Transaction | None = None

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        self.reads_made += 1
        found = await super().get(path)
        if self.meanwhile is not None:
            transaction, self.meanwhile = self.meanwhile, None
            await self.commit(transaction)
        return found


def text(entry: Entry | None) -> str:
    return entry.value.decode() if entry is not None else "nothing"


async def test_a_record_is_read_once_while_nothing_changes() -> None:
    store = SlowStore()
    record = Record(store, A, text)
    assert [await record.current() for _ in range(3)] == ["nothing"] * 3
    await store.commit(Transaction(puts={A: b"1"}))
    assert [await record.current() for _ in range(3)] == ["1"] * 3
    assert store.reads_made == 2


async def test_what_is_made_of_it_stays_the_same_object_while_others_change() -> None:
    store = SlowStore()
    record = Record(store, A, lambda entry: [text(entry)])
    await store.commit(Transaction(puts={A: b"1"}))
    made = await record.current()
    await store.commit(Transaction(puts={B: b"2"}))
    assert await record.current() is made
    await store.commit(Transaction(deletes=[A]))
    assert await record.current() == ["nothing"]


async def test_a_change_in_the_middle_of_a_read_is_not_missed() -> None:
    store = SlowStore()
    record = Record(store, A, text)
    store.meanwhile = Transaction(puts={A: b"new"})
    assert await record.current() == "nothing"
    assert await record.current() == "new"
