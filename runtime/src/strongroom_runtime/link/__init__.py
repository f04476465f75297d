"""The link between services: one stream for each replica, and unary methods on the same handler table."""

from strongroom_runtime.link.client import RemoteCaller
from strongroom_runtime.link.server import LinkServer

__all__ = ["LinkServer", "RemoteCaller"]
