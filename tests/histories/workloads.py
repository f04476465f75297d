"""What the clients do. Each workload is for some of the promises, and nobody else touches what it works on.

Who alone changes something begins with a new one when it is not told what became of a change, so that what is known
of the others stays sharp.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg

from strongroom.kv.v1 import kv2_pb2, kv2_pb2_grpc
from tests.histories.clients import Session, Workload
from tests.histories.history import Outcome
from tests.integration.client import Answer
from tests.integration.databases import ADMIN, PASSWORD, Postgres
from tests.integration.test_grpc import stub

SECRETS = "hist"  # the mount of secrets, of which nothing is removed
LAST = "last"  # the secret that is written when all is over
_LINEARIZABLE = {"X-Strongroom-Consistency": "linearizable"}
_PLAINTEXT = "eA=="


class Secrets(Workload):
    """Several clients read and write a few secrets, each of which is left for a new one after a while."""

    clients = 4
    _WRITES = 150

    def prepare(self, session: Session) -> None:
        session.must("POST", f"sys/mounts/{SECRETS}", {"type": "kv", "options": {"version": "2"}})
        session.must("POST", f"{SECRETS}/config", {"max_versions": 10 * self._WRITES})
        self._lock = threading.Lock()
        self._writes = 0
        self._seen: dict[tuple[int, str], int] = {}  # by each client

    def turn(self, session: Session, number: int) -> None:
        key = f"{session.random.choice('abc')}/{self._writes // self._WRITES}"
        kind = session.random.choice(
            ("cas", "cas", "cas", "write", "read", "read", "glance", "glance")
        )
        if kind in ("cas", "write"):
            cas = self._seen.get((number, key), 0) if kind == "cas" else None
            version = self._write(session, key, cas)
        else:
            version = self._read(session, key, kind)
        if version is not None:
            self._seen[number, key] = version

    def _write(self, session: Session, key: str, cas: int | None) -> int | None:
        with self._lock:
            self._writes += 1
            value = self._writes
        body = {"data": {"v": value}, "options": {} if cas is None else {"cas": cas}}
        operation = session.begin("write", key, (value, cas))
        session.do(
            operation, "POST", f"{SECRETS}/data/{key}", body,
            result=lambda answer: answer.json()["data"]["version"], no=400,
        )  # fmt: skip
        if operation.result is False:
            operation.name, operation.result = "mismatch", None
        version: int | None = operation.result
        return version

    def _read(self, session: Session, key: str, kind: str) -> int | None:
        headers = _LINEARIZABLE if kind == "read" else None
        read = session.begin(kind, key)
        session.do(
            read, "GET", f"{SECRETS}/data/{key}", headers=headers, result=_version_and_value, no=404
        )
        if read.result is False:
            read.result = (0, None)
        return read.result[0] if read.ok else None


def _version_and_value(answer: Answer) -> tuple[int, int]:
    data = answer.json()["data"]
    return data["metadata"]["version"], data["data"]["v"]


class Watches(Workload):
    """Each client follows all secrets, and goes on at another gateway after each break."""

    clients = 2

    def prepare(self, session: Session) -> None:
        credentials = grpc.ssl_channel_credentials(Path(self.gateways.ca).read_bytes())
        options = [("grpc.keepalive_time_ms", 3_000), ("grpc.keepalive_timeout_ms", 3_000)]
        self._stubs: list[Any] = [
            stub(kv2_pb2_grpc.KvV2ServiceStub, grpc.secure_channel(address, credentials, options))
            for address in self.gateways.grpc_addresses
        ]
        self._next = [next(iter(self._watch(session, 0))).revision + 1] * self.clients
        self.last = [0] * self.clients  # the version of the last secret that each was told of

    def _watch(self, session: Session, from_revision: int) -> Iterator[Any]:
        request = kv2_pb2.WatchSecretsRequest(mount=f"{SECRETS}/", from_revision=from_revision)
        call: Iterator[Any] = session.random.choice(self._stubs).WatchSecrets(
            request,
            metadata=(("x-vault-token", self.gateways.root),),
            timeout=session.random.choice((1, 3, 10)),
        )
        return call

    def turn(self, session: Session, number: int) -> None:
        with contextlib.suppress(grpc.RpcError):
            for message in self._watch(session, self._next[number]):
                for change in message.changes:
                    told = session.begin("told", change.path, number)
                    told.complete(Outcome.OK, change.current_version)
                    if change.path == LAST:
                        self.last[number] = change.current_version
                self._next[number] = message.revision + 1


class Tokens(Workload):
    """Tokens and their children are made, used at every gateway, and revoked; another client uses them meanwhile."""

    clients = 3

    def prepare(self, session: Session) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}

    def turn(self, session: Session, number: int) -> None:
        if number == 0:
            names = list(self._texts)[-8:]
            if names:
                self._use(session, session.random.choice(names))
            return
        parent = self._make(session, "")
        if parent is None:
            return
        child = self._make(session, parent)
        family = [parent] if child is None else [parent, child]
        self._use_everywhere(session, family)
        revoke = session.begin("revoke", parent)
        session.do(revoke, "POST", "auth/token/revoke", {"token": self._texts[parent]})
        self._use_everywhere(session, family)

    def _make(self, session: Session, parent: str) -> str | None:
        made = session.begin("create", parent)
        body = {"policies": ["root"], "ttl": "1h", "renewable": False}
        outcome, answer, note = session.ask(
            "POST", "auth/token/create", body, token=self._texts.get(parent, "")
        )
        name = None
        if answer is not None and outcome is Outcome.OK:
            with self._lock:
                name = f"token-{len(self._texts)}"
                self._texts[name] = answer.json()["auth"]["client_token"]
        made.complete(outcome, name, note)
        return name

    def _use_everywhere(self, session: Session, names: list[str]) -> None:
        for name in names:
            for at in range(len(self.gateways.addresses)):
                self._use(session, name, at)

    def _use(self, session: Session, name: str, at: int | None = None) -> None:
        session.do(
            session.begin("use", name), "GET", "auth/token/lookup-self",
            token=self._texts[name], at=at, result=lambda _: True, no=403,
        )  # fmt: skip


@dataclass(frozen=True)
class _Counted:
    """A token that can be spent, with the request that spends it."""

    name: str
    token: str
    uses: int
    request: tuple[str, str]


class CountedUses(Workload):
    """Tokens with counted uses, and wrapped answers, are used by several clients at once until they are used up."""

    clients = 3

    def prepare(self, session: Session) -> None:
        session.must("POST", "secret/data/counted", {"data": {"v": 1}})
        rule = 'path "secret/data/counted" { capabilities = ["read"] }'
        session.must("PUT", "sys/policies/acl/counted", {"policy": rule})
        self._some: list[_Counted] = []
        self._made = 0

    def turn(self, session: Session, number: int) -> None:
        if number == 0 and len(self._some) < 3:
            self._make(session)
        some = list(self._some)
        if not some:
            return
        counted = session.random.choice(some)
        spent = session.do(
            session.begin("spend", counted.name, counted.uses), *counted.request,
            token=counted.token, result=lambda _: True,
            no=400 if counted.request[0] == "POST" else 403,
        )  # fmt: skip
        if spent.result is False:
            with contextlib.suppress(ValueError):
                self._some.remove(counted)

    def _make(self, session: Session) -> None:
        self._made += 1
        if session.random.random() < 0.5:
            headers = {"X-Vault-Wrap-TTL": "3600"}
            outcome, answer, _ = session.ask("GET", "sys/mounts", headers=headers)
            member, field, uses = "wrap_info", "token", 1
            request = ("POST", "sys/wrapping/unwrap")
        else:
            member, field, uses = "auth", "client_token", session.random.randint(1, 6)
            body = {"policies": ["counted"], "num_uses": uses, "ttl": "1h"}
            outcome, answer, _ = session.ask("POST", "auth/token/create", body)
            request = ("GET", "secret/data/counted")
        if answer is not None and outcome is Outcome.OK:
            token = answer.json()[member][field]
            self._some.append(_Counted(f"{member}-{self._made}", token, uses, request))


class Policies(Workload):
    """One client changes what a policy allows; others try what it allows, and what it does not."""

    clients = 3
    _SLOTS = 3

    def prepare(self, session: Session) -> None:
        for slot in range(self._SLOTS):
            session.must("POST", f"secret/data/slot/{slot}", {"data": {"v": slot}})
        self._current: tuple[str, str] | None = None  # a policy, and a token that has it
        self._made = 0

    def turn(self, session: Session, number: int) -> None:
        current = self._current
        if number == 0 and (current is None or not self._change(session, current[0])):
            self._begin_anew(session)
        elif current is not None:
            name, token = current
            slot = session.random.randrange(self._SLOTS)
            session.do(
                session.begin("try", name, slot), "GET", f"secret/data/slot/{slot}",
                token=token, result=lambda _: True, no=403,
            )  # fmt: skip

    def _begin_anew(self, session: Session) -> None:
        self._current = None
        self._made += 1
        name = f"policy-{self._made}"
        body = {"policies": [name], "ttl": "1h"}
        outcome, answer, _ = session.ask("POST", "auth/token/create", body)
        if answer is not None and outcome is Outcome.OK:
            self._current = (name, answer.json()["auth"]["client_token"])

    def _change(self, session: Session, name: str) -> bool:
        """Lets a policy allow one slot, or none; returns whether it certainly does."""
        slot = session.random.randint(-1, self._SLOTS - 1)
        allow = session.begin("allow", name, slot)
        if slot < 0:
            session.do(allow, "DELETE", f"sys/policies/acl/{name}")
        else:
            rule = f'path "secret/data/slot/{slot}" {{ capabilities = ["read"] }}'
            session.do(allow, "PUT", f"sys/policies/acl/{name}", {"policy": rule})
        return allow.ok


class Mounts(Workload):
    """One client makes a mount, fills it and takes it away; another looks what is there."""

    clients = 2

    def prepare(self, session: Session) -> None:
        self._made = 0
        self._name: str | None = None

    def turn(self, session: Session, number: int) -> None:
        if number == 1:
            if self._name is not None:
                self._look(session, self._name)
            return
        if self._name is None:
            self._made += 1
            self._name = f"mount-{self._made}"
        if not self._come_and_go(session, self._name):
            self._name = None

    def _come_and_go(self, session: Session, name: str) -> bool:
        """Returns whether the mount is certainly gone in the end."""
        enable = session.begin("enable", name)
        if not session.do(enable, "POST", f"sys/mounts/{name}", {"type": "kv"}).ok:
            return False
        self._look_everywhere(session, name)
        put = session.do(session.begin("put", name, True), "POST", f"{name}/x", {"v": 1})
        self._look_everywhere(session, name)
        disable = session.begin("disable", name, False)
        session.do(disable, "DELETE", f"sys/mounts/{name}")
        self._look_everywhere(session, name)
        return put.ok and disable.ok

    def _look_everywhere(self, session: Session, name: str) -> None:
        for at in range(len(self.gateways.addresses)):
            self._look(session, name, at)

    def _look(self, session: Session, name: str, at: int | None = None) -> None:
        look = session.begin("look", name)
        session.do(look, "GET", f"{name}/x", at=at, result=lambda _: True, no=404)


@dataclass
class _Keys:
    """A key that encrypts and one that signs, and what they made."""

    name: str
    latest: int = 1
    sealed: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)


class Transit(Workload):
    """One client rotates keys and closes old versions; all encrypt and decrypt, sign and verify."""

    clients = 3
    _ROTATIONS = 40

    def prepare(self, session: Session) -> None:
        session.must("POST", "sys/mounts/transit", {"type": "transit"})
        self._made = 0
        self._keys: _Keys | None = None

    def turn(self, session: Session, number: int) -> None:
        if number == 0:
            self._tend(session)
        keys = self._keys
        if keys is None:
            return
        kind = session.random.choice(("encrypt", "encrypt", "sign", "decrypt", "decrypt", "verify"))
        if kind in ("encrypt", "sign"):
            self._make(session, keys, kind)
        elif kind == "decrypt" and keys.sealed:
            text = session.random.choice(keys.sealed)
            session.do(
                session.begin(kind, f"{keys.name}-seals", text),
                "POST", f"transit/decrypt/{keys.name}-seals", {"ciphertext": text},
                result=lambda answer: answer.json()["data"]["plaintext"] == _PLAINTEXT, no=400,
            )  # fmt: skip
        elif keys.signed:
            text = session.random.choice(keys.signed)
            body = {"input": _PLAINTEXT, "signature": text}
            session.do(
                session.begin("verify", f"{keys.name}-signs", text),
                "POST", f"transit/verify/{keys.name}-signs", body,
                result=lambda answer: answer.json()["data"]["valid"], no=400,
            )  # fmt: skip

    def _make(self, session: Session, keys: _Keys, kind: str) -> None:
        key, body, member, made = (
            (f"{keys.name}-seals", {"plaintext": _PLAINTEXT}, "ciphertext", keys.sealed)
            if kind == "encrypt"
            else (f"{keys.name}-signs", {"input": _PLAINTEXT}, "signature", keys.signed)
        )
        operation = session.do(
            session.begin(kind, key), "POST", f"transit/{kind}/{key}", body,
            result=lambda answer: answer.json()["data"][member],
        )  # fmt: skip
        if operation.ok:
            made.append(operation.result)

    def _tend(self, session: Session) -> None:
        keys = self._keys
        if keys is None or keys.latest > self._ROTATIONS:
            self._begin_anew(session)
        elif session.random.random() < 0.3 and not self._change(session, keys):
            self._keys = None

    def _begin_anew(self, session: Session) -> None:
        self._made += 1
        name = f"key-{self._made}"
        kinds = (("aes256-gcm96", "seals"), ("ed25519", "signs"))
        asked = [
            session.ask("POST", f"transit/keys/{name}-{use}", {"type": kind}) for kind, use in kinds
        ]
        made = all(outcome is Outcome.OK for outcome, _, _ in asked)
        self._keys = _Keys(name) if made else None

    def _change(self, session: Session, keys: _Keys) -> bool:
        """Rotates a key, or closes its oldest versions or opens them; returns whether that is certain."""
        key = f"{keys.name}-{session.random.choice(('seals', 'signs'))}"
        if session.random.random() < 0.3:
            least = session.random.randint(1, keys.latest)
            body = {"min_decryption_version": least}
            close = session.begin("close", key, least)
            # Each key has a newest version of its own: the least may be above that of this one.
            session.do(close, "POST", f"transit/keys/{key}/config", body)
            return close.outcome is not Outcome.UNKNOWN
        rotate = session.do(
            session.begin("rotate", key), "POST", f"transit/keys/{key}/rotate",
            result=lambda answer: answer.json()["data"]["latest_version"],
        )  # fmt: skip
        if rotate.ok:
            keys.latest = max(keys.latest, rotate.result)
        return rotate.ok


class Leases(Workload):
    """Database users are made, log in, and end by revocation, with the token that made them, or by time."""

    clients = 2
    database: Postgres  # set before one is made
    _STATEMENTS = (
        "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
    )
    # Whether a user logs in is known to be seen before its time is over.
    _TTL_SECONDS = 60

    def prepare(self, session: Session) -> None:
        session.must("POST", "sys/mounts/db", {"type": "database"})
        connection = {
            "plugin_name": "postgresql-database-plugin", "connection_url": self.database.url,
            "username": ADMIN, "password": PASSWORD, "allowed_roles": "app",
        }  # fmt: skip
        session.must("POST", "db/config/pg", connection)
        role = {
            "db_name": "pg", "creation_statements": self._STATEMENTS,
            "default_ttl": f"{self._TTL_SECONDS}s",
        }  # fmt: skip
        session.must("POST", "db/roles/app", role)
        rule = 'path "db/creds/app" { capabilities = ["read"] }'
        session.must("PUT", "sys/policies/acl/creds", {"policy": rule})

    def turn(self, session: Session, number: int) -> None:
        outcome, answer, _ = session.ask("POST", "auth/token/create", {"policies": ["creds"]})
        if answer is None or outcome is not Outcome.OK:
            return
        token = answer.json()["auth"]["client_token"]
        creds = session.do(
            session.begin("creds", ""), "GET", "db/creds/app",
            token=token, result=lambda answer: answer.json(),
        )  # fmt: skip
        if not creds.ok:
            return
        lease, user = creds.result["lease_id"], creds.result["data"]
        self._log_in(session, user, creds.began)
        if session.random.random() < 0.4:
            end = session.begin("end", user["username"])
            session.do(end, "PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
            self._log_in(session, user, creds.began)
        elif session.random.random() < 0.5:
            session.ask("POST", "auth/token/revoke", {"token": token})

    def _log_in(self, session: Session, user: dict[str, str], made: float) -> None:
        login = session.begin("login", user["username"])
        if login.began > made + self._TTL_SECONDS / 2:
            login.complete(Outcome.FAILED)
            return
        try:
            psycopg.connect(self.database.dsn(user["username"], user["password"])).close()
            login.complete(Outcome.OK, True)
        except psycopg.OperationalError as error:
            login.complete(Outcome.OK, False, str(error))


WORKLOADS: tuple[type[Workload], ...] = (
    Secrets, Watches, Tokens, CountedUses, Policies, Mounts, Transit, Leases,
)  # fmt: skip
