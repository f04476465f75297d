"""What Linux tells of the machine, in the shape of Vault (Vault documentation, "/sys/host-info").

What cannot be read is left out: other systems, and containers that hide it.
"""

import contextlib
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strongroom_runtime.timestamps import rfc3339

_TICKS = 100.0  # of /proc/stat in a second (proc(5): USER_HZ, 100 on every common machine)
_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest")
_MEMORY = {
    "MemTotal": "total",
    "MemAvailable": "available",
    "MemFree": "free",
    "Active": "active",
    "Inactive": "inactive",
    "Buffers": "buffers",
    "Cached": "cached",
    "Shmem": "shared",
    "SwapTotal": "swaptotal",
    "SwapFree": "swapfree",
}


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


def _pairs(file: str) -> list[tuple[str, str]]:
    lines = Path(file).read_text().splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line]
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _cpu() -> list[dict[str, Any]]:
    cpus: list[dict[str, Any]] = []
    for name, value in _pairs("/proc/cpuinfo"):
        if name == "processor":
            cpus.append({"cpu": int(value)})
        elif name == "vendor_id":
            cpus[-1]["vendorId"] = value
        elif name == "model name":
            cpus[-1]["modelName"] = value
        elif name == "cpu MHz":
            cpus[-1]["mhz"] = float(value)
        elif name == "flags":
            cpus[-1]["flags"] = value.split()
    return cpus


def _cpu_times() -> list[dict[str, Any]]:
    times = []
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            seconds = (int(tick) / _TICKS for tick in ticks)
            times.append({"cpu": name, **dict(zip(_TIMES, seconds, strict=False))})
    return times


def _disk(folder: str) -> dict[str, Any]:
    usage, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    return {
        "path": folder,
        "total": usage.total,
        "free": usage.free,
        "used": usage.used,
        "usedPercent": 100 * usage.used / usage.total,
        "inodesTotal": inodes.f_files,
        "inodesFree": inodes.f_ffree,
        "inodesUsed": inodes.f_files - inodes.f_ffree,
    }


def _host() -> dict[str, Any]:
    uptime = int(float(Path("/proc/uptime").read_text().split()[0]))
    return {
        "hostname": socket.gethostname(),
        "uptime": uptime,
        "bootTime": int(time.time()) - uptime,
        "procs": sum(1 for each in os.listdir("/proc") if each.isdigit()),
        "os": platform.system().lower(),
        "kernelVersion": platform.release(),
        "kernelArch": platform.machine(),
    }


def _memory() -> dict[str, Any]:
    found = {
        _MEMORY[name]: int(value.split()[0]) * 1024
        for name, value in _pairs("/proc/meminfo")
        if name in _MEMORY
    }
    found["used"] = found["total"] - found["available"]
    return {**found, "usedPercent": 100 * found["used"] / found["total"]}
