"""Running one server process until a signal ends it."""

import asyncio
import gc
import logging
import signal
import sys

import grpc.aio
import uvloop

from strongroom_cli.outside_etcd import etcd_config, refusal
from strongroom_cli.places import check_places, explained
from strongroom_cli.process import Process
from strongroom_cli.settings import ServerConfig
from strongroom_runtime import logs
from strongroom_runtime.children import HURRY, LEAVE
from strongroom_runtime.config import ConfigError
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.refusal import RefusedError
from strongroom_runtime.tasks import EndedError
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.leaving import Patience

log = logging.getLogger(__name__)

_under_way: set[asyncio.Future[None]] = set()  # an event loop itself keeps no task alive


def run(config: ServerConfig) -> int:
    """Serves until SIGTERM or SIGINT, of which a second waits for no stream; SIGHUP opens audit files anew and takes
    certificates that were renewed.

    It ends by itself where etcd was restored or replaced: what starts it again has nothing of before in memory.

    Returns the exit status.
    """
    logs.configure(config.target, config.log_level)
    # Else it ends with the last of its objects, whenever that is collected, and now and then waits for ever for what
    # one of them had under way.
    grpc.aio.init_grpc_aio()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    stop, signalled = asyncio.Event(), asyncio.Event()
    patience = Patience(config.stream_drain_seconds)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, patience, stop, signalled)
    loop.add_signal_handler(LEAVE, stop.set)
    loop.add_signal_handler(HURRY, _hurry, patience, stop)
    try:
        check_places(config)
        pki.check(config.certificates, config.trust_domain, config.targets)
        process = Process(config, etcd_config(config), patience)
        lost = asyncio.Event()
        for use in (lost.set, patience.lose, stop.set):
            process.lineage.on_break(use)
        loop.add_signal_handler(signal.SIGHUP, _anew, process)
        await process.start(stop)
    except EndedError:
        pass
    except (OSError, ServiceError, ConfigError, pki.CertificateError) as error:
        reason = _reason(error, config)
        log.error("cannot start", extra={"reason": reason})
        sys.stderr.write(f"strongroom: {reason}\n")
        return 1
    else:
        _make_collections_rare()
    await stop.wait()
    log.info("stopping")
    await process.stop()
    return 1 if lost.is_set() else 0


def _reason(error: Exception, config: ServerConfig) -> str:
    """Returns why a process cannot start, with the setting that is to be changed where one is to blame."""
    if isinstance(error, RefusedError):
        return refusal(error)
    return explained(error, config) if isinstance(error, OSError) else str(error)


def _anew(process: Process) -> None:
    """Opens audit files anew, and looks for renewed certificates at once."""
    for work in (process.reopen_logs(), process.renew_certificates()):
        task = asyncio.ensure_future(work)
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)


def _end(patience: Patience, stop: asyncio.Event, signalled: asyncio.Event) -> None:
    """Takes a word of the operator's; the second is that of somebody in a hurry."""
    if signalled.is_set():
        patience.lose()
    signalled.set()
    stop.set()


def _hurry(patience: Patience, stop: asyncio.Event) -> None:
    patience.lose()
    stop.set()


def _make_collections_rare() -> None:
    """Lets the garbage collector pass over what was made at the start, and look less often at the rest.

    Requests leave no cycles behind, whether they fail or not (`tests/garbage.py`), yet by default every few of them
    set off a walk over all contracts and caches. See `docs/decisions/0007-hot-path.md` and `0040-memory.md`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
