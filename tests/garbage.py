"""Finds what requests leave in memory until the garbage collector comes round, which is rare in a server."""

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def no_frames_left() -> Iterator[None]:
    """Fails where functions that have returned are kept by cycles, with all that was in their variables.

    An error does that which is still in a variable of a function that it went through: its traceback has the frames.
    """
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        frames = [each.f_code for each in gc.garbage if isinstance(each, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = (code.co_qualname for code in frames if "strongroom_" in code.co_filename)
    assert Counter(ours) == {}
