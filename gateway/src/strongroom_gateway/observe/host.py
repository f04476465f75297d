"""What the system tells of the machine, in the shape of Vault (Vault documentation, "/sys/host-info").

What cannot be read is left out, as in containers that hide it.
"""

import contextlib
import os
import platform
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from strongroom_runtime.timestamps import rfc3339

# By psutil's names; it leaves out what the system does not tell.
_TIMES = {"guest_nice": "guestNice"}
_CPU = {
    "vendor_id": "vendorId",
    "model name": "modelName",
    "cpu family": "family",
    "model": "model",
}
_MEMORY = (
    "total", "available", "used", "free", "active", "inactive", "buffers", "cached", "shared",
)  # fmt: skip


def host_info(data_folder: str = "/") -> dict[str, Any]:
    """Returns the machine by parts: cpu, cpu_times, disk, host, memory, timestamp."""
    parts: dict[str, Callable[[], Any]] = {
        "cpu": _cpu,
        "cpu_times": _cpu_times,
        "disk": lambda: [_disk(data_folder)],
        "host": _host,
        "memory": _memory,
    }
    info: dict[str, Any] = {}
    for name, read in parts.items():
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            info[name] = read()
    info["timestamp"] = rfc3339(time.time())
    return info


def _cpu() -> list[dict[str, Any]]:
    """Returns the processors, with what the kernel says of them and psutil does not."""
    cpus: list[dict[str, Any]] = []
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "processor":
            cpus.append({"cpu": int(value)})
        elif name in _CPU:
            cpus[-1][_CPU[name]] = value
        elif name == "cpu MHz":
            cpus[-1]["mhz"] = float(value)
        elif name == "flags":
            cpus[-1]["flags"] = value.split()
    return cpus


def _cpu_times() -> list[dict[str, Any]]:
    return [
        {"cpu": f"cpu{number}", **{_TIMES.get(k, k): v for k, v in times._asdict().items()}}
        for number, times in enumerate(psutil.cpu_times(percpu=True))
    ]


def _disk(folder: str) -> dict[str, Any]:
    usage, inodes = psutil.disk_usage(folder), os.statvfs(folder)
    return {
        "path": folder,
        "total": usage.total,
        "free": usage.free,
        "used": usage.used,
        "usedPercent": usage.percent,
        "inodesTotal": inodes.f_files,
        "inodesFree": inodes.f_ffree,
        "inodesUsed": inodes.f_files - inodes.f_ffree,
    }


def _host() -> dict[str, Any]:
    booted = int(psutil.boot_time())
    return {
        "hostname": socket.gethostname(),
        "uptime": int(time.time()) - booted,
        "bootTime": booted,
        "procs": len(psutil.pids()),
        "os": platform.system().lower(),
        "kernelVersion": platform.release(),
        "kernelArch": platform.machine(),
    }


def _memory() -> dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    found = {name: getattr(memory, name) for name in _MEMORY if hasattr(memory, name)}
    return {
        **found,
        "usedPercent": memory.percent,
        "swaptotal": swap.total,
        "swapfree": swap.free,
    }
