"""What unsealing and sealing were answered with holds in every process from then on."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.platforms import start, until

_ROUNDS = 4
_CLIENTS = 9  # whose connections are with all workers


@pytest.mark.parametrize("option", ["--workers=3", "--split"])
def test_no_process_is_behind_the_answer(tmp_path: Path, option: str) -> None:
    with contextlib.ExitStack() as stack:
        platform = stack.enter_context(
            start(tmp_path, "all", option, "--seal=shamir", command="server")
        )
        one_share = {"secret_shares": 1, "secret_threshold": 1}
        made = platform.http("PUT", "sys/init", None, json=one_share).json()
        (key,), root = made["keys"], made["root_token"]
        clients = [stack.enter_context(platform.client()) for _ in range(_CLIENTS)]
        threads = stack.enter_context(ThreadPoolExecutor(_CLIENTS))

        def read(client: Client) -> int:
            return client.ask("GET", "auth/token/lookup-self", root).status_code

        def statuses() -> set[int]:
            return set(threads.map(read, clients))

        platform.http("PUT", "sys/unseal", None, json={"key": key})
        until(lambda: statuses() == {200})
        for _ in range(_ROUNDS):
            for client in clients[:2]:
                assert client.ask("PUT", "sys/seal", root).status_code == 204
                assert statuses() == {503}
                answer = client.ask("PUT", "sys/unseal", None, json={"key": key})
                assert not answer.json()["sealed"]
                assert statuses() == {200}
