"""Ports for what tests start: of other ranges than the platform's own choice, and another for each worker."""

import os

from strongroom_runtime.ports import Ports

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_FIRST = 10_000 + 1_200 * _WORKER

free_port = Ports(_FIRST, _FIRST + 1_200).free
