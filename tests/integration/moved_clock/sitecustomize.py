"""Python loads this where it lies on PYTHONPATH: moves the wall clock of the process by MOVED_CLOCK_SECONDS.

The monotonic clock goes on as it is: so does a machine's, when somebody sets its time.
"""

import os
import time

_real, _by = time.time, float(os.environ["MOVED_CLOCK_SECONDS"])


def _moved() -> float:
    return _real() + _by


time.time = _moved
