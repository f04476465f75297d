"""What the platform knows of its log, as `sys/audit-chains` answers it."""

from collections.abc import Collection, Iterable
from itertools import pairwise

import msgspec

from strongroom_audit.domain.keys import Certificate, Trust, is_public


class KnownKey(msgspec.Struct, frozen=True):
    """A public key, and what the one before it says of it."""

    public_key: str
    number: int = 0
    since: str = ""
    issuer: str = ""
    signature: str = ""


class KnownChain(msgspec.Struct, frozen=True):
    """How far a chain was when it was recorded; the contract has the fields' meanings."""

    writer: str
    entries: int
    hash: str
    number: int = 0
    device: str = ""
    host: str = ""
    file: str = ""
    began: str = ""
    recorded: str = ""
    ended: bool = False

    @property
    def where(self) -> str:
        """For people: device, host and file."""
        return f"device {self.device} on {self.host}, {self.file}"


class Evidence(msgspec.Struct, frozen=True):
    """One answer."""

    keys: list[KnownKey] = []
    chains: list[KnownChain] = []
    numbered: int = 0
    time: str = ""


class _Envelope(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"")


def parse(document: bytes) -> Evidence:
    """Returns an answer from its JSON, with or without the envelope.

    Raises:
        ValueError: it is something else; the text says so.
    """
    try:
        data = msgspec.json.decode(document, type=_Envelope).data or document
        evidence = msgspec.json.decode(data, type=Evidence)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not an answer of sys/audit-chains: {error}") from None
    if not evidence.keys or not all(is_public(key.public_key) for key in evidence.keys):
        raise ValueError("is not an answer of sys/audit-chains: it names no keys")
    return evidence


class Register:
    """Several answers as one: of each chain the farthest, and the hashes that all of them name."""

    def __init__(self, answers: Collection[Evidence]) -> None:
        self.chains: dict[str, KnownChain] = {}
        self.hashes: dict[str, dict[int, str]] = {}  # by chain and entry
        self.keys: list[KnownKey] = []
        self.gone: list[
            tuple[int, int]
        ] = []  # first and last numbers of chains that were taken out
        self.time = max((answer.time for answer in answers), default="")  # of the newest answer
        numbers: set[int] = set()
        last = 0
        for answer in answers:
            self.keys += answer.keys
            last = max(last, answer.numbered)
            for chain in answer.chains:
                numbers.add(chain.number)
                known = self.chains.get(chain.writer)
                if known is None or chain.entries >= known.entries:
                    self.chains[chain.writer] = chain
                self.hashes.setdefault(chain.writer, {})[chain.entries - 1] = chain.hash
        ordered = [0, *sorted(numbers), last + 1]
        self.gone = [(a + 1, b - 1) for a, b in pairwise(ordered) if b - a > 1]

    def trust(self, anchors: Iterable[str]) -> Trust:
        """Returns which keys are believed: from the anchors on; without any, all that the platform names."""
        trust = Trust(list(anchors) or [key.public_key for key in self.keys])
        for key in self.keys:
            certificate = Certificate(key.number, key.since, key.issuer, key.signature)
            trust.learn(key.public_key, certificate)
        return trust
