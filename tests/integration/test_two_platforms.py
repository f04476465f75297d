"""Two platforms on one etcd: what was taken away through one is refused by the other, at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Answer, AskError
from tests.integration.platforms import (
    ROOT,
    TOPOLOGIES,
    Platform,
    start,
    start_beside,
    until,
    while_it_lasts,
)

# In each topology. What goes wrong once in a hundred rounds is missed by both in one run of four hundred.
ROUNDS = 300


@pytest.fixture(scope="module", params=TOPOLOGIES)
def pair(
    request: pytest.FixtureRequest, shared_folder: Path
) -> Iterator[tuple[Platform, Platform]]:
    folder = shared_folder / request.param
    with (
        start(folder / "first", request.param) as first,
        start_beside(first, folder / "second", request.param) as second,
    ):
        yield first, second


class Session:
    """Quick requests to one platform."""

    def __init__(self, platform: Platform) -> None:
        self._client = platform.client()

    def __call__(self, method: str, path: str, token: str = ROOT, body: Any = None) -> Answer:
        return self._client.ask(method, path, token, json=body)


def test_a_revoked_token_is_refused_everywhere(pair: tuple[Platform, Platform]) -> None:
    first, second = Session(pair[0]), Session(pair[1])
    stale = 0
    for _ in range(ROUNDS):
        made = first("POST", "auth/token/create", body={"policies": ["default"], "ttl": "1h"})
        token = made.json()["auth"]["client_token"]
        assert second("GET", "auth/token/lookup-self", token).status_code == 200
        assert first("POST", "auth/token/revoke", body={"token": token}).status_code == 204
        stale += second("GET", "auth/token/lookup-self", token).status_code != 403
    assert stale == 0


def test_a_narrowed_policy_binds_everywhere(pair: tuple[Platform, Platform]) -> None:
    first, second = Session(pair[0]), Session(pair[1])
    paths = ("secret/data/one", "secret/data/other")
    for path in paths:
        first("POST", path, body={"data": {"v": 1}})

    def allow(path: str) -> None:
        policy = f'path "{path}" {{ capabilities = ["read"] }}'
        assert first("POST", "sys/policies/acl/narrow", body={"policy": policy}).ok

    allow(paths[0])
    made = first("POST", "auth/token/create", body={"policies": ["narrow"]})
    token = made.json()["auth"]["client_token"]
    assert second("GET", paths[0], token).status_code == 200
    for number in range(ROUNDS):  # each takes away what was used last
        allowed, taken = paths[(number + 1) % 2], paths[number % 2]
        allow(allowed)
        assert second("GET", taken, token).status_code == 403
        assert second("GET", allowed, token).status_code == 200


def test_a_path_of_a_policy_ends_everywhere(pair: tuple[Platform, Platform]) -> None:
    first, second = Session(pair[0]), Session(pair[1])
    first("POST", "secret/data/brief", body={"data": {"v": 1}})

    def begun(seconds: int) -> str:
        policy = f"""path "secret/data/brief" {{ capabilities = ["read"] expiration = {int(time.time()) + seconds} }}
          path "secret/data/*" {{ capabilities = ["list"] }}"""
        first("POST", "sys/policies/acl/brief", body={"policy": policy})
        made = first("POST", "auth/token/create", body={"policies": ["brief"]})
        token = str(made.json()["auth"]["client_token"])
        for each in (first, second):
            assert each("GET", "secret/data/brief", token).status_code == 200
        return token

    token = while_it_lasts(begun, 4)

    def ended(session: Session) -> bool:
        return session("GET", "secret/data/brief", token).status_code == 403

    for each in (first, second):
        until(partial(ended, each))
    for each in (first, second):
        assert each("GET", "secret/data/brief", token).status_code == 403
        body = {"paths": ["secret/data/brief"]}
        judged = each("POST", "sys/capabilities-self", token, body).json()["data"]
        assert judged["secret/data/brief"] == ["list"]
        rules = each("GET", "sys/internal/ui/resultant-acl", token).json()["data"]
        assert "secret/data/brief" not in rules["exact_paths"]
        assert "secret/data/" in rules["glob_paths"]


def test_a_write_is_read_and_a_mount_is_gone_everywhere(pair: tuple[Platform, Platform]) -> None:
    first, second = Session(pair[0]), Session(pair[1])
    for number in range(ROUNDS):
        first("POST", "secret/data/shared", body={"data": {"n": number}})
        assert second("GET", "secret/data/shared").json()["data"]["data"] == {"n": number}
    for _ in range(100):
        assert first("POST", "sys/mounts/gone", body={"type": "kv"}).status_code == 204
        assert second("POST", "gone/x", body={"v": 1}).status_code == 204
        assert second("GET", "gone/x").status_code == 200
        assert first("DELETE", "sys/mounts/gone").status_code == 204
        assert second("GET", "gone/x").status_code == 404


def test_check_and_set_has_one_winner(pair: tuple[Platform, Platform]) -> None:
    sessions = [Session(pair[n % 2]) for n in range(12)]
    for round_ in range(100):
        won: list[int] = []
        barrier = threading.Barrier(len(sessions))

        def attempt(
            number: int,
            cas: int = round_,
            won: list[int] = won,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            body = {"data": {"n": number}, "options": {"cas": cas}}
            if sessions[number]("POST", "secret/data/cas", body=body).status_code == 200:
                won.append(number)

        threads = [threading.Thread(target=attempt, args=(n,)) for n in range(len(sessions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        for session in sessions[:2]:
            assert session("GET", "secret/data/cas").json()["data"]["data"] == {"n": won[0]}


def test_uses_are_counted_exactly(pair: tuple[Platform, Platform]) -> None:
    first = Session(pair[0])
    first("POST", "secret/data/counted", body={"data": {"v": 1}})
    rule = 'path "secret/data/counted" { capabilities = ["read"] }'
    first("POST", "sys/policies/acl/counted", body={"policy": rule})
    made = first("POST", "auth/token/create", body={"policies": ["counted"], "num_uses": 20})
    token = made.json()["auth"]["client_token"]
    statuses: list[int] = []
    barrier = threading.Barrier(12)

    def use(number: int) -> None:
        session = Session(pair[number % 2])
        barrier.wait()
        for _ in range(5):
            statuses.append(session("GET", "secret/data/counted", token).status_code)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(200) == 20
    assert set(statuses) <= {200, 403}


def at_once(count: int, work: Callable[[int], int]) -> list[int]:
    """Returns what some work gives that is begun by many threads at the same moment."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> int:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def opened(pair: tuple[Platform, Platform], token: str, number: int) -> int:
    return pair[number % 2].http("POST", "sys/wrapping/unwrap", token).status_code


def test_a_wrapped_answer_is_opened_once_wherever_it_was_wrapped(
    pair: tuple[Platform, Platform],
) -> None:
    headers = {"X-Vault-Wrap-TTL": "60"}
    for wrapping, opening in (pair, pair[::-1]):
        made = wrapping.http("GET", "sys/mounts", headers=headers).json()["wrap_info"]
        looked = opening.http("POST", "sys/wrapping/lookup", None, json={"token": made["token"]})
        assert looked.json()["data"]["creation_path"] == "sys/mounts"
        unwrap = partial(opened, pair, made["token"])
        assert sorted(at_once(12, unwrap)) == [200, *[400] * 11]


def test_the_first_logins_may_come_at_once(pair: tuple[Platform, Platform]) -> None:
    first = Session(pair[0])
    first("POST", "sys/auth/fresh", body={"type": "approle"})
    first("POST", "auth/fresh/role/app", body={"token_policies": "default"})
    role = first("GET", "auth/fresh/role/app/role-id").json()["data"]["role_id"]
    made = first("POST", "auth/fresh/role/app/secret-id").json()["data"]["secret_id"]
    body = {"role_id": role, "secret_id": made}

    def login(number: int) -> int:
        session = Session(pair[number % 2])
        return session("POST", "auth/fresh/login", "", body).status_code

    assert at_once(20, login) == [200] * 20
    first("DELETE", "sys/auth/fresh")


@pytest.mark.parametrize("seconds", [1, 8, 40])
def test_a_platform_that_was_stopped_refuses_first(
    pair: tuple[Platform, Platform], seconds: int
) -> None:
    first, second = Session(pair[0]), Session(pair[1])
    made = first("POST", "auth/token/create", body={"policies": ["default"], "ttl": "1h"})
    token = made.json()["auth"]["client_token"]
    for _ in range(3):
        assert second("GET", "auth/token/lookup-self", token).status_code == 200
    stopped = [pair[1].child(name) for name in pair[1].pids]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        revoked = first("POST", "auth/token/revoke", body={"token": token})
        assert revoked.status_code == 204
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    # A new connection: the old one may be given up after so long.
    second = Session(pair[1])
    assert second("GET", "auth/token/lookup-self", token).status_code in (403, 503)
    until(lambda: second("GET", "auth/token/lookup-self").status_code == 200)
    assert second("GET", "auth/token/lookup-self", token).status_code == 403


def kill(platform: Platform) -> None:
    """Kills all servers at once, the gateway first: none answers for what others still did."""
    platform.kill(*sorted(platform.pids, key=lambda name: name != "gateway"))


def comes_back(platform: Platform) -> None:
    session = Session(platform)
    until(lambda: session("GET", "auth/token/lookup-self").status_code == 200)


def test_what_was_revoked_stays_so_where_the_revoker_is_killed(
    pair: tuple[Platform, Platform],
) -> None:
    first, second = pair
    other = Session(first)
    for _ in range(3):
        comes_back(second)
        session = Session(second)
        made = session("POST", "auth/token/create", body={"policies": ["default"]})
        token = made.json()["auth"]["client_token"]
        for each in (session, other):
            assert each("GET", "auth/token/lookup-self", token).status_code == 200
        revoked = session("POST", "auth/token/revoke", body={"token": token})
        kill(second)
        assert revoked.status_code == 204
        assert other("GET", "auth/token/lookup-self", token).status_code == 403
    comes_back(second)
    assert Session(second)("GET", "auth/token/lookup-self", token).status_code == 403


def test_no_use_is_counted_twice_or_forgotten_by_a_platform_that_is_killed(
    pair: tuple[Platform, Platform],
) -> None:
    first, second = pair
    policy = 'path "secret/data/few" { capabilities = ["read"] }'
    first.http("POST", "secret/data/few", json={"data": {"v": 1}})
    first.http("POST", "sys/policies/acl/few", json={"policy": policy})
    body = {"policies": ["few"], "num_uses": 20}
    token = first.http("POST", "auth/token/create", json=body).json()["auth"]["client_token"]
    statuses: list[int] = []

    def use(number: int) -> int:
        session = Session(pair[number % 2])
        for turn in range(5):
            if number == turn == 1:
                kill(second)
            with contextlib.suppress(AskError):
                statuses.append(session("GET", "secret/data/few", token).status_code)
        return number

    at_once(12, use)
    # What the killed one had counted for its six clients and not answered is used up. Where the audit
    # service of a new one begins last, what no audit device took is a 500, and used up as well.
    unanswered = 6 + statuses.count(500) + statuses.count(503)
    assert 20 - unanswered <= statuses.count(200) <= 20
    assert set(statuses) <= {200, 403, 500, 503}
    assert first.http("GET", "secret/data/few", token).status_code == 403
    comes_back(second)
    assert Session(second)("GET", "secret/data/few", token).status_code == 403


def test_the_second_one_is_not_needed(pair: tuple[Platform, Platform], tmp_path: Path) -> None:
    first, second = pair
    kill(second)
    answer = Session(first)("POST", "secret/data/alone", body={"data": {"v": 1}})
    assert answer.status_code == 200
    session = Session(second)
    until(lambda: session("GET", "secret/data/alone").json()["data"]["data"] == {"v": 1})


def test_workers_that_start_together_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each writes before it takes calls, and a write returns when the others have confirmed it."""
    with start(tmp_path, "all", "--workers=3") as platform:
        for number in range(30):  # each over a connection of its own, which any of them may get
            written = platform.http("POST", "secret/data/w", json={"data": {"n": number}})
            assert written.ok, written.text
            read = platform.http("GET", "secret/data/w").json()
            assert read["data"]["data"] == {"n": number}
