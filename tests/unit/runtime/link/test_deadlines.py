import asyncio

from strongroom_runtime.link.deadlines import Deadlines


async def test_what_is_not_over_in_time_is_given_up_once_and_in_order() -> None:
    given_up: list[str] = []
    deadlines: Deadlines[str] = Deadlines(given_up.append)
    now = asyncio.get_running_loop().time()
    deadlines.add("much later", now + 3600)
    deadlines.add("second", now + 0.08)
    deadlines.add("first", now + 0.04)
    deadlines.add("over", now + 0.04)
    deadlines.discard("over")
    assert given_up == []
    while "second" in deadlines:
        await asyncio.sleep(0.01)
    assert given_up == ["first", "second"]
    assert "much later" in deadlines


async def test_an_item_that_is_long_over_does_not_keep_a_later_one() -> None:
    given_up: list[str] = []
    deadlines: Deadlines[str] = Deadlines(given_up.append)
    now = asyncio.get_running_loop().time()
    deadlines.add("over", now + 0.02)
    deadlines.add("later", now + 0.06)
    deadlines.discard("over")
    while "later" in deadlines:
        await asyncio.sleep(0.01)
    assert given_up == ["later"]


async def test_nothing_is_given_up_after_the_end() -> None:
    given_up: list[str] = []
    deadlines: Deadlines[str] = Deadlines(given_up.append)
    deadlines.add("first", asyncio.get_running_loop().time() + 0.02)
    deadlines.close()
    await asyncio.sleep(0.06)
    assert given_up == []
