"""Clients that do things at several gateways at random, and record what they asked for and were told."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.histories.history import History, Operation, Outcome
from tests.integration.client import Answer, AskError, Client

_PAUSE_SECONDS = 0.04  # at most, after each turn of a client
_TIMEOUT_SECONDS = 12.0
_END_SECONDS = 90.0


@dataclass(frozen=True)
class Gateways:
    """Where the gateways are, and who may do everything.

    Args:
        addresses: of the HTTP wire.
        grpc_addresses: of the same for gRPC.
        ca: a file with the certificate that signed theirs.
        root: a token.
    """

    addresses: Sequence[str]
    grpc_addresses: Sequence[str]
    ca: str
    root: str


class Session:
    """One client, with a connection to each gateway.

    Args:
        gateways: these.
        history: where it is recorded.
        seed: of all that it chooses at random.
    """

    def __init__(self, gateways: Gateways, history: History, seed: str) -> None:
        self.gateways = gateways
        self.random = random.Random(seed)
        self._history = history
        self._number = history.client()
        self._clients = [Client(a, gateways.ca, _TIMEOUT_SECONDS) for a in gateways.addresses]

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        at: int | None = None,
    ) -> tuple[Outcome, Answer | None, str]:
        """Sends a request to a gateway, at random if none is named; returns what is known of it, and a note."""
        gateway = self.random.randrange(len(self._clients)) if at is None else at
        try:
            answer = self._clients[gateway].ask(
                method, path, token or self.gateways.root, json=body, headers=headers
            )
        except AskError as error:
            refused = isinstance(error.__cause__, ConnectionRefusedError)
            outcome = Outcome.FAILED if refused else Outcome.UNKNOWN
            return outcome, None, f"gateway {gateway}: {error.__cause__!r}"
        if answer.status_code >= 500:
            return Outcome.UNKNOWN, answer, f"gateway {gateway}: {answer.status_code} {answer.text}"
        if b'"request_id"' in answer.content:
            self._history.request_ids.append(answer.json()["request_id"])
        outcome = Outcome.OK if answer.ok else Outcome.FAILED
        return outcome, answer, f"gateway {gateway}: {answer.status_code}"

    def must(self, method: str, path: str, body: Any = None) -> Answer:
        """Sends a request that succeeds, since all is well."""
        outcome, answer, note = self.ask(method, path, body)
        assert outcome is Outcome.OK and answer is not None, (path, note, answer and answer.text)
        return answer

    def begin(self, name: str, key: str, argument: Any = None) -> Operation:
        """Returns an operation of this client that begins now."""
        return self._history.begin(self._number, name, key, argument)

    def do(
        self,
        operation: Operation,
        *request: Any,
        result: Callable[[Answer], Any] = lambda answer: None,
        no: int = 0,
        **options: Any,
    ) -> Operation:
        """Asks for what an operation is, and notes how it went.

        Args:
            operation: has just begun.
            request: method, path and body.
            result: reads a good answer.
            no: the status of an answer that is not an error, but the result False.
            options: for `ask`.
        """
        outcome, answer, note = self.ask(*request, **options)
        found = None
        if answer is not None and outcome is Outcome.OK:
            found = result(answer)
        elif answer is not None and answer.status_code == no:
            outcome, found = Outcome.OK, False
        operation.complete(outcome, found, note)
        return operation


class Workload:
    """Some clients that work on the same things.

    Args:
        gateways: where they ask.
        history: where it is recorded.
        seed: of all that they choose at random.
    """

    clients = 1

    def __init__(self, gateways: Gateways, history: History, seed: str) -> None:
        self.gateways = gateways
        self.errors: list[BaseException] = []
        self._sessions = [
            Session(gateways, history, f"{seed} {type(self).__name__} {number}")
            for number in range(self.clients)
        ]
        self.prepare(self._sessions[0])

    def prepare(self, session: Session) -> None:
        """Sets up what it needs, while all is well."""

    def turn(self, session: Session, number: int) -> None:
        """Does something once, as the client with some number."""
        raise NotImplementedError

    def run(self, number: int, ending: threading.Event) -> None:
        """Does something again and again, as the client with some number."""
        session = self._sessions[number]
        try:
            while not ending.is_set():
                self.turn(session, number)
                ending.wait(session.random.uniform(0, _PAUSE_SECONDS))
        except BaseException as error:
            self.errors.append(error)
            raise


@contextmanager
def at_work(workloads: Sequence[Workload]) -> Iterator[None]:
    """Keeps all clients of some workloads at work for as long as the block lasts."""
    ending = threading.Event()
    threads = [
        threading.Thread(target=workload.run, args=(number, ending), daemon=True)
        for workload in workloads
        for number in range(workload.clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join(_END_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a client hangs"
    assert not any(workload.errors for workload in workloads), [w.errors for w in workloads]
