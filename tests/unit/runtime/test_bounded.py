"""A memory of bounded size."""

from strongroom_runtime.bounded import Bounded


def test_it_never_holds_more_than_it_may_and_goes_on() -> None:
    kept: Bounded[int, str] = Bounded(3)
    for number in range(3):
        kept.keep(number, str(number))
    assert kept == {0: "0", 1: "1", 2: "2"}
    kept.keep(3, "3")
    assert kept == {3: "3"}
    kept.keep(4, "4")
    assert kept.get(4) == "4"
    assert len(kept) == 2


def test_sizes_count_and_what_is_large_is_not_kept() -> None:
    kept: Bounded[str, str] = Bounded(5_000)
    kept.keep("large", "6", 6)
    assert not kept
    for number in range(1_000):
        kept.keep(str(number), "5", 5)
    assert len(kept) == 1_000
    kept.keep("more", "1", 1)
    assert list(kept) == ["more"]


def test_once_emptied_there_is_room_for_as_much_as_before() -> None:
    kept: Bounded[int, str] = Bounded(3)
    for number in range(3):
        kept.keep(number, str(number))
    kept.clear()
    for number in range(3):
        kept.keep(number, str(number))
    assert len(kept) == 3
