"""What etcd refuses for good: the process is not configured as the cluster wants it."""

from typing import Literal

from strongroom_runtime.errors import Kind, ServiceError

Cause = Literal["endpoints", "identity", "login"]


class RefusedError(ServiceError):
    """UNAVAILABLE, and asking again does not mend it.

    Args:
        cause: the field of `EtcdConfig` that is wrong.
        message: what is wrong with it.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(Kind.UNAVAILABLE, message)
        self.cause = cause

    def again(self) -> "RefusedError":
        """Returns the same error for one more to raise."""
        return RefusedError(self.cause, self.message)
