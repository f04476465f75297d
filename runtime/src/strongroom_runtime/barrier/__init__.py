"""The barrier: values and names are encrypted before they leave the process."""

from strongroom_runtime.barrier.codec import BarrierCodec
from strongroom_runtime.barrier.keyring import KeyHolder, KeyRing

__all__ = ["BarrierCodec", "KeyHolder", "KeyRing"]
