"""`strongroom audit verify`: what it takes, what it says, how it ends."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from strongroom_audit.domain.chain import END, START, Chain
from strongroom_audit.domain.keys import first_key
from strongroom_cli.main import main

KEY = first_key(b"\1" * 32, "2023-11-14T22:13:20.000000Z")


def lines(writer: str = "w", entries: int = 3) -> list[bytes]:
    chain, result = Chain(writer), []
    for number in range(entries + 2):
        time = f"2023-11-14T22:13:{number:02}.000000Z"
        if 0 < number <= entries:
            linked = chain.link([json.dumps({"time": time, "type": "request"}).encode()])
        else:
            about = {"device": "file/", "certificate": KEY.certificate} if not number else {}
            linked = chain.seal(END if number else START, time, KEY, **about)
        chain = linked.chain
        result.append(linked.data)
    return result


def answer(*known: tuple[str, list[bytes]]) -> str:
    import hashlib

    chains = [
        {
            "writer": writer, "number": number, "entries": len(its), "device": "file/", "host": "h",
            "hash": hashlib.sha256(its[-1][:-1]).hexdigest(), "file": "/var/log/audit.log",
            "began": "2023-11-14T22:13:00Z", "recorded": "2023-11-14T22:13:09Z", "ended": True,
        }
        for number, (writer, its) in enumerate(known, 1)
    ]  # fmt: skip
    keys = [{"public_key": KEY.public, "number": 1, "since": KEY.certificate.since, "issuer": ""}]
    return json.dumps({"data": {"keys": keys, "chains": chains, "numbered": len(chains)}})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["audit", "verify", *map(str, arguments)])


def test_a_sound_log_is_described(tmp_path: Path) -> None:
    file, known = tmp_path / "audit.log", tmp_path / "chains.json"
    file.write_bytes(b"".join(lines()))
    known.write_text(answer(("w", lines())))
    for arguments in ((file, "--chains", known), (file, "--public-key", KEY.public)):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert (
            "chain w (file): entries 0 to 4, 2023-11-14T22:13:00.000000Z to 2023-11-14T22:13:04"
            in result.output
        )
        assert "all sealed, ended" in result.output
        assert "intact: 5 entries in 1 chains" in result.output
    assert "5 recorded by the platform" in run(file, "--chains", known).output
    assert f"key {KEY.public}: vouched for by --public-key" in result.output
    assert "without --chains it does not show" in result.output
    alone = run(file)
    assert (alone.exit_code, "nobody vouches for it" in alone.output) == (0, True)


def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path) -> None:
    file, known = tmp_path / "audit.log", tmp_path / "chains.json"
    whole = lines()
    file.write_bytes(b"".join([*whole[:2], *whole[3:]]))
    known.write_text(answer(("w", whole), ("gone", lines("gone"))))
    result = run(file, "--chains", known)
    assert result.exit_code == 1
    assert f"PROBLEM: {file}:3: entry 2 of w is missing before it" in result.output
    assert "PROBLEM: chain gone is missing (device file/ on h, /var/log/audit.log)" in result.output
    assert (
        f"NOT INTACT: 4 entries in 1 chains, 2 problems, the first bad line is {file}:3"
        in result.output
    )


def test_several_files_are_one_log(tmp_path: Path) -> None:
    whole = lines(entries=10)
    packed, rest = tmp_path / "1.gz", tmp_path / "2"
    packed.write_bytes(gzip.compress(b"".join(whole[:5])))
    rest.write_bytes(b"".join(whole[5:]))
    result = run(rest, packed, "--public-key", KEY.public)
    assert result.exit_code == 0, result.output
    assert "entries 0 to 11" in result.output


def test_a_damaged_archive_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "audit.log.gz"
    whole = gzip.compress(b"".join(lines(entries=400)))
    damages = {"short": whole[: len(whole) // 2], "changed": whole[:-8] + bytes(8)}
    for content in damages.values():
        file.write_bytes(content)
        result = run(file)
        assert result.exit_code == 1
        assert "the compressed file is damaged" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["absent.log"], "absent.log: No such file or directory"),
        (["."], ".: Is a directory"),
        (["audit.log", "--chains", "absent.json"], "absent.json: No such file"),
        (["audit.log", "--chains", "audit.log"], "audit.log: is not an answer of sys/audit-chains"),
        (["audit.log", "--chains", "empty.json"], "it names no keys"),
        (["audit.log", "--chains", "binary"], "is not an answer of sys/audit-chains"),
        (["audit.log", "--public-key", "abc"], "--public-key: takes 64 hexadecimal digits"),
        (["audit.log", "--public-key", "binary"], "--public-key: takes 64 hexadecimal digits"),
        (["audit.log", "--since", "yesterday"], "--since: takes RFC 3339"),
        (["audit.log", "--unsealed-until", "9999999999999"], "--unsealed-until: takes RFC 3339"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("audit.log").write_bytes(b"".join(lines()))
    Path("empty.json").write_text("{}")
    Path("binary").write_bytes(b'{"data":{"keys":[{"public_key":"\xff"}]}}')
    result = run(*arguments)
    assert (result.exit_code, text in result.output) == (2, True), result.output


def test_a_key_comes_from_a_file_too(tmp_path: Path) -> None:
    file, key = tmp_path / "audit.log", tmp_path / "key"
    file.write_bytes(b"".join(lines()))
    key.write_text(KEY.public.upper() + "\n")
    assert run(file, "--public-key", key).exit_code == 0
    key.write_text("0" * 64)
    refused = run(file, "--public-key", key)
    assert (refused.exit_code, "NOT vouched for" in refused.output) == (1, True)


def test_a_log_does_not_steer_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_bytes(b"".join(lines(r"\u001b[2J")))
    result = run(file)
    assert "\x1b" not in result.output
