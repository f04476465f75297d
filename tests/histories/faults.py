"""Hurts an estate at random, and heals what it hurt."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

import psutil

from tests.histories.cluster import Estate, Member, Site

_PAUSES = (0.2, 1.0, 3.0, 6.0)  # seconds between two faults
# How long a fault lasts: some are over before anybody notices, some outlast a member's lease (3 s).
_LASTING = (0.3, 1.0, 2.0, 2.9, 3.3, 6.0, 8.0)
_KEEP_SECONDS = 1.0


class Nemesis(threading.Thread):
    """Does one fault after the other. Several may do so at once.

    Args:
        estate: what it hurts.
        seed: of all that it chooses at random.
        faults: the names of those that it does.
        report: where it writes what it does, and when.
    """

    def __init__(self, estate: Estate, seed: str, faults: Sequence[str], report: TextIO) -> None:
        super().__init__(daemon=True)
        self._estate = estate
        self._random = random.Random(seed)
        self._faults = faults
        self._report = report
        self._ending = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ending.wait(self._random.choice(_PAUSES)):
                name = self._random.choice(self._faults)
                self._note(f"begins to {name}")
                # What it is about to hurt may end by itself.
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    FAULTS[name](self)
                self._note(f"ends to {name}")
        except BaseException as error:
            self.error = error
            raise

    def end(self, seconds: float = 180.0) -> None:
        """Returns once what it hurt is healed."""
        self._ending.set()
        self.join(seconds)
        assert not self.is_alive(), f"{self.name} does not come to an end"
        assert self.error is None, f"{self.name}: {self.error!r}"

    def _note(self, text: str) -> None:
        self._report.write(f"{time.monotonic():.3f} {self.name} {text}\n")
        self._report.flush()

    def _last(self, *seconds: float) -> None:
        """Lets a fault last for one of some times, or so; no longer than until the end."""
        chosen = self._random.choice(seconds or _LASTING)
        self._ending.wait(chosen * self._random.uniform(0.8, 1.2))

    @contextlib.contextmanager
    def _some_site(self, linked: bool = False) -> Iterator[Site]:
        """Gives a site that nobody else hurts as a whole meanwhile; one that others reach over links if asked."""
        site = self._random.choice([s for s in self._estate.sites if s.to_it or not linked])
        with site.lock:
            self._note(f"  {site.name}")
            yield site

    @contextlib.contextmanager
    def _some_member(self) -> Iterator[Member]:
        """Gives a member of etcd, every other time the leader, while nobody else hurts one."""
        etcd = self._estate.etcd
        with self._estate.etcd_lock:
            leader = etcd.leader() if self._random.random() < 0.5 else None
            member = leader or self._random.choice(etcd.members)
            self._note(f"  {member.name}{' leads' if leader else ''}")
            yield member

    def _some_servers(self, most: int) -> list[int]:
        """Returns the ids of some server processes."""
        servers = [(site.name, *server) for site in self._estate.sites for server in site.servers()]
        chosen = self._random.sample(servers, min(self._random.randint(1, most), len(servers)))
        self._note(f"  {chosen}")
        return [pid for *_, pid in chosen]

    def kill_servers(self) -> None:
        for pid in self._some_servers(4):
            os.kill(pid, signal.SIGKILL)
            self._last(0.0, 0.3)

    def end_server(self) -> None:
        for pid in self._some_servers(1):
            os.kill(pid, signal.SIGTERM)

    def stop_servers(self) -> None:
        with _stopped(self._some_servers(4)):
            self._last()

    def stop_server_now_and_then(self) -> None:
        pids = self._some_servers(1)
        for _ in range(self._random.randint(2, 8)):
            with _stopped(pids):
                self._last(0.2, 1.0, 2.8, 3.2)
            self._last(0.01, 0.1, 0.5)

    def stop_site(self) -> None:
        with self._some_site() as site, _stopped([each.pid for each in site.processes()]):
            self._last()

    def stop_supervisor(self) -> None:
        with self._some_site() as site, _stopped([site.supervisor.pid]):
            servers = site.servers()
            if servers and self._random.random() < 0.5:
                os.kill(self._random.choice(servers)[1], signal.SIGKILL)
            self._last()

    def restart_site(self) -> None:
        with self._some_site() as site:
            if not site.stop():
                raise TimeoutError(f"{site.name} did not end in time")
            self._last(0.0, 1.0)
            site.start()

    def kill_site(self) -> None:
        with self._some_site() as site:
            site.kill()
            self._last(0.0, 1.0)
            site.start()

    def kill_member(self) -> None:
        with self._some_member() as member:
            member.kill()
            self._last()
            member.start()

    def kill_majority(self) -> None:
        with self._estate.etcd_lock:
            members = self._random.sample(self._estate.etcd.members, 2)
            for member in members:
                member.kill()
            self._last(0.5, 3.0, 6.0)
            for member in members:
                member.start()

    def stop_member(self) -> None:
        with self._some_member() as member, _stopped([member.process.pid]):
            self._last()

    def cut_off_member(self) -> None:
        with self._some_member() as member:
            self._estate.etcd.cut_off(member)
            self._last()
            self._estate.etcd.heal()

    def keep_leader_from_noticing(self) -> None:
        """Cuts a leader off, and lets it run for a moment now and then: clients reach it, and it believes itself."""
        with self._estate.etcd_lock:
            member = self._estate.etcd.leader()
            if member is None:
                return
            self._estate.etcd.cut_off(member)
            for _ in range(self._random.randint(2, 5)):
                with _stopped([member.process.pid]):
                    self._last(1.5, 2.0, 2.5)
                self._last(0.1, 0.3)
            self._estate.etcd.heal()

    def hold_links_to_etcd(self) -> None:
        with self._some_site() as site:
            self._hold(self._some_links(site.to_etcd))

    def cut_links_to_etcd(self) -> None:
        with self._some_site() as site:
            self._cut(self._some_links(site.to_etcd))

    def hold_links_between(self) -> None:
        with self._some_site(linked=True) as site:
            self._hold(site.to_it)

    def cut_links_between(self) -> None:
        with self._some_site(linked=True) as site:
            self._cut(site.to_it)

    def _some_links(self, links: Sequence[int]) -> list[int]:
        return self._random.sample(links, self._random.choice((1, len(links) - 1, len(links))))

    def _hold(self, links: Sequence[int]) -> None:
        there, back = self._random.choice(((True, True), (True, False), (False, True)))
        for link in links:
            self._estate.network.hold(link, there, back)
        self._last()
        for link in links:
            self._estate.network.heal(link)

    def _cut(self, links: Sequence[int]) -> None:
        for link in links:
            self._estate.network.cut(link)
        self._last()
        for link in links:
            self._estate.network.heal(link)

    def rotate_keys(self) -> None:
        """Asks for new keys of the barrier, the seal or the audit log; whether it is done is of no matter."""
        path = self._random.choice(("sys/rotate", "sys/rotate/root", "sys/audit-chains/rotate-key"))
        with contextlib.suppress(OSError):
            self._estate.ask(self._random.choice(self._estate.platforms), "POST", path)


FAULTS: dict[str, Callable[[Nemesis], None]] = {
    fault.__name__: fault
    for fault in (
        Nemesis.kill_servers, Nemesis.end_server, Nemesis.stop_servers,
        Nemesis.stop_server_now_and_then, Nemesis.stop_site, Nemesis.stop_supervisor,
        Nemesis.restart_site, Nemesis.kill_site, Nemesis.kill_member, Nemesis.kill_majority,
        Nemesis.stop_member, Nemesis.cut_off_member, Nemesis.keep_leader_from_noticing,
        Nemesis.hold_links_to_etcd, Nemesis.cut_links_to_etcd, Nemesis.hold_links_between,
        Nemesis.cut_links_between, Nemesis.rotate_keys,
    )
}  # fmt: skip


@contextlib.contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    """Keeps processes from running for as long as the block lasts."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Keeper(threading.Thread):
    """Starts again a site that has ended by itself, as whatever starts it on a real machine would.

    Args:
        estate: whose sites.
    """

    def __init__(self, estate: Estate) -> None:
        super().__init__(daemon=True)
        self._estate = estate
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(_KEEP_SECONDS):
            for site in self._estate.sites:
                if site.lock.acquire(blocking=False):
                    try:
                        if site.supervisor.poll() is not None:
                            site.start()
                    finally:
                        site.lock.release()

    def end(self) -> None:
        self._ending.set()
        self.join()
