"""Auditors verify a log against its platform: what was done to it is found, what happened to the platform is not held
against it."""

import gzip
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from strongroom_audit.domain.chain import Chain
from strongroom_audit.domain.keys import first_key
from strongroom_cli.main import main
from tests.integration.platforms import TOPOLOGIES, Platform, start, until

SERVERS = {"all": "server", "workers": "server", "split": "audit"}


@pytest.fixture(scope="module", params=[*TOPOLOGIES, "workers"])
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def platform(topology: str, shared_folder: Path) -> Iterator[Platform]:
    with start(shared_folder / topology, *options_of(topology)) as platform:
        yield platform


def options_of(topology: str) -> list[str]:
    return ["all", "--workers=2"] if topology == "workers" else [topology]


def chains(platform: Platform) -> dict[str, Any]:
    answer: dict[str, Any] = platform.http("GET", "sys/audit-chains").json()["data"]
    return answer


def use(platform: Platform, times: int = 30) -> None:
    for n in range(times):
        until(partial(write, platform, n))


def write(platform: Platform, n: int) -> bool:
    answer = platform.http("POST", f"secret/data/a{n % 3}", json={"data": {"n": n}})
    return answer.status_code == 200


def in_the_register(platform: Platform) -> dict[str, Any]:
    """Returns what the platform says once it has recorded all that is in the file now."""
    lines = len(platform.audit_log.read_bytes().splitlines())

    def recorded() -> dict[str, Any] | None:
        answer = chains(platform)
        return answer if entries(answer) >= lines else None

    found: dict[str, Any] = until(recorded)
    return found


def entries(answer: dict[str, Any]) -> int:
    return sum(int(chain["entries"]) for chain in answer["chains"])


def verify(folder: Path, answer: dict[str, Any] | None, *files: Path, key: str = "") -> Result:
    options = ["audit", "verify", *map(str, files)]
    if answer is not None:
        (folder / "chains.json").write_text(json.dumps({"data": answer}))
        options += ["--chains", str(folder / "chains.json")]
    if key:
        options += ["--public-key", key]
    return CliRunner().invoke(main, options)


def test_what_was_done_to_a_log_is_found(platform: Platform, tmp_path: Path) -> None:
    key = chains(platform)["keys"][0]["public_key"]
    use(platform)
    answer = in_the_register(platform)
    copy = tmp_path / "copy.log"
    copy.write_bytes(platform.audit_log.read_bytes())
    lines = copy.read_bytes().splitlines(keepends=True)
    for pinned in ("", key):
        sound = verify(tmp_path, answer, copy, key=pinned)
        assert sound.exit_code == 0, sound.output

    def tampered(*content: bytes) -> str:
        copy.write_bytes(b"".join(content))
        result = verify(tmp_path, answer, copy)
        assert result.exit_code == 1, result.output
        return str(result.output)

    # Looks at the register are in the log, too: as many as it took until all before them was recorded.
    assert "missing at the end" in tampered(*lines[: entries(answer) - 40])
    # Seals between the entries have no operation.
    at = next(n for n in range(20, len(lines)) if b'"operation":"' in lines[n])
    changed = lines[at].replace(b'"operation":"', b'"operation":"x', 1)
    found = tampered(*lines[:at], changed, *lines[at + 1 :])
    assert f"the first bad line is {copy}:{at + 1}" in found
    assert "out of order" in tampered(*lines[:at], *lines[at - 10 :])
    writer = json.loads(lines[at])["chain"]["writer"]
    rest = [line for line in lines if json.loads(line)["chain"]["writer"] != writer]
    assert f"chain {writer} is missing" in tampered(*rest)
    # Somebody writes the file anew, hashes and all.
    chain, forged = Chain(writer), list[bytes]()
    other = first_key(b"\1" * 32, "2020-01-01T00:00:00.000000Z")
    for line in lines:
        entry = json.loads(line)
        if entry.pop("chain")["writer"] != writer:
            continue
        if entry["type"].startswith("chain-"):
            linked = chain.seal(entry["type"], entry["time"], other)
        else:
            linked = chain.link([json.dumps(entry).encode()])
        forged.append(linked.data)
        chain = linked.chain
    output = tampered(*forged, *rest)
    assert "is sealed with a key that is not the platform's" in output
    assert "is not the one that the platform recorded" in output
    copy.write_bytes(b"".join([*forged, *rest]))
    assert verify(tmp_path, None, copy, key=key).exit_code == 1


def test_what_happens_to_a_platform_is_not_held_against_its_log(
    topology: str, tmp_path: Path
) -> None:
    with start(tmp_path / "p", *options_of(topology)) as platform:
        much_happens(platform, topology, tmp_path)


def much_happens(platform: Platform, topology: str, folder: Path) -> None:
    log = platform.audit_log
    use(platform)
    for number in range(4):
        platform.kill(SERVERS[topology])  # of those there are in the middle of anything
        until(lambda: platform.http("GET", "secret/data/a0").status_code == 200)
        use(platform)
        log.rename(log.with_name(f"audit.log.{number}"))
        os.kill(platform.process.pid, signal.SIGHUP)
        until(lambda: moved_on(platform))
        use(platform, 5)
    for what in ("sys/audit-chains/rotate-key", "sys/rotate", "sys/rotate/root"):
        assert platform.http("POST", what).status_code in (200, 204)
        use(platform, 5)
    files = [log, *(log.with_name(f"audit.log.{number}") for number in range(4))]
    until(lambda: gone(files) >= 4)  # each killed process is missed by the next
    answer = until(lambda: recorded_keys(platform))
    platform.stop()
    packed = files[1].with_suffix(".gz")
    packed.write_bytes(gzip.compress(files[1].read_bytes()))
    result = verify(
        folder, answer, packed, *files[2:], files[0], key=answer["keys"][0]["public_key"]
    )
    assert result.exit_code == 0, result.output
    assert "ended" in result.output
    without = verify(folder, answer, packed, *files[3:], files[0])
    assert without.exit_code == 1
    assert "missing" in without.output


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_platform_that_was_sealed_ends_its_chains(topology: str, tmp_path: Path) -> None:
    with start(tmp_path / "p", topology, "--seal=shamir", command="server") as platform:
        options = ("operator", "init", "-format=json", "-key-shares=1", "-key-threshold=1")
        made = json.loads(platform.bao(*options))
        platform.root = made["root_token"]
        (share,) = made["unseal_keys_b64"]

        def ask(method: str, path: str, **options: Any) -> Any:
            return platform.http(method, path, platform.root, **options)

        platform.bao("operator", "unseal", share)
        device = {"type": "file", "options": {"file_path": str(platform.audit_log)}}
        until(lambda: ask("POST", "sys/audit/file", json=device).status_code == 204)
        for number in (1, 2):
            assert ask("PUT", "sys/seal").status_code == 204
            until(partial(has_ends, platform.audit_log, number))
            platform.bao("operator", "unseal", share)
            until(lambda: ask("GET", "sys/mounts").status_code == 200)

        def ended() -> Any:
            answer = ask("GET", "sys/audit-chains").json()["data"]
            return answer if sum(chain["ended"] for chain in answer["chains"]) == 2 else None

        answer = until(ended)
        result = verify(tmp_path, answer, platform.audit_log)
        assert result.exit_code == 0, result.output
        assert result.output.count("all sealed, ended") == 2
        lines = platform.audit_log.read_bytes().splitlines(keepends=True)
        last = next(n for n, line in enumerate(lines) if b"chain-end" in line)
        platform.audit_log.write_bytes(b"".join([*lines[:last], *lines[last + 1 :]]))
        assert "missing at the end" in verify(tmp_path, answer, platform.audit_log).output


def gone(files: list[Path]) -> int:
    """Returns how many chains were sealed for processes that had ended."""
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    return sum(b'"gone":true' in line for line in lines)


def has_ends(log: Path, number: int) -> bool:
    return log.read_bytes().count(b'"chain-end"') == number


def moved_on(platform: Platform) -> bool:
    """Returns whether entries go to a new file."""
    use(platform, 1)
    return platform.audit_log.exists()


def recorded_keys(platform: Platform) -> dict[str, Any] | None:
    answer = chains(platform)
    return answer if len(answer["keys"]) == 2 else None


def test_a_token_needs_the_right_to_read_the_chains(platform: Platform) -> None:
    def token(rules: str) -> str:
        platform.http("POST", "sys/policies/acl/auditor", json={"policy": rules})
        made = platform.http("POST", "auth/token/create", json={"policies": ["auditor"]})
        return str(made.json()["auth"]["client_token"])

    nobody = token('path "secret/*" { capabilities = ["read"] }')
    assert platform.http("GET", "sys/audit-chains", nobody).status_code == 403
    auditor = token('path "sys/audit-chains" { capabilities = ["read"] }')
    assert platform.http("GET", "sys/audit-chains", auditor).status_code == 200
    assert platform.http("POST", "sys/audit-chains/rotate-key", auditor).status_code == 403
    almost = token('path "sys/audit-chains/rotate-key" { capabilities = ["update"] }')
    assert platform.http("POST", "sys/audit-chains/rotate-key", almost).status_code == 403
