"""The version of this software: that of the runtime's distribution, which all others are released with."""

import importlib.metadata

VERSION = importlib.metadata.version("strongroom-runtime")
