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
