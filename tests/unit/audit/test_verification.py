"""What a verification notices, and what it does not take for tampering."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.keys import KEY

from strongroom_audit.domain.chain import CONTINUE, END, SEAL, START, Chain
from strongroom_audit.domain.evidence import Evidence, KnownChain, KnownKey
from strongroom_audit.domain.keys import SigningKey, first_key
from strongroom_audit.domain.scanning import Head, OpenChains
from strongroom_audit.domain.verification import Expectation, Report, Verifier
from strongroom_runtime.timestamps import rfc3339

BEGAN = 1_700_000_000.0
OTHER = first_key(b"\7" * 32, rfc3339(BEGAN))
PINNED = Expectation(anchors=[KEY.public])
EARLIER = 1_600_000_000.0


class Log:
    """A chain as a writer makes it; time goes on by a second with each line."""

    def __init__(self, writer: str = "w", key: SigningKey = KEY, began: float = BEGAN) -> None:
        self.chain = Chain(writer)
        self.key = key
        self.now = began
        self.lines: list[bytes] = []

    def entries(self, count: int) -> "Log":
        for _ in range(count):
            entry = {"time": self._time(), "type": "request", "n": len(self.lines)}
            linked = self.chain.link([json.dumps(entry).encode()])
            self.chain = linked.chain
            self.lines.append(linked.data)
        return self

    def own(self, kind: str, **about: object) -> "Log":
        if kind in (START, CONTINUE):
            about["certificate"] = self.key.certificate
        linked = self.chain.seal(kind, self._time(), self.key, device="file/", **about)
        self.chain = linked.chain
        self.lines.append(linked.data)
        return self

    def known(self, number: int = 1, entries: int = 0, ended: bool = False) -> KnownChain:
        """Returns what the platform recorded of it, or of its first entries."""
        count = entries or len(self.lines)
        following = self.chain.prev if count == len(self.lines) else prev(self.lines[count])
        return KnownChain(
            "" + self.chain.writer, count, following, number, "file/", "host", "audit.log",
            rfc3339(BEGAN), rfc3339(self.now), ended,
        )  # fmt: skip

    def _time(self) -> str:
        self.now += 1
        return rfc3339(self.now)


def prev(line: bytes) -> str:
    return str(json.loads(line)["chain"]["prev"])


def log() -> Log:
    return Log().own(START).entries(4).own(SEAL).entries(3).own(SEAL).own(END)


LINES = log().lines  # made once: what is drawn must come quickly


def verify(*files: Iterable[bytes], wanted: Expectation = PINNED) -> Report:
    verifier = Verifier(wanted)
    for number, file in enumerate(files, 1):
        verifier.read(f"{number}.log", file)
    return verifier.report()


def recorded(
    *chains: KnownChain, keys: Iterable[SigningKey] = (KEY,), **more: object
) -> Expectation:
    shown = [
        KnownKey(k.public, k.certificate.number, k.certificate.since, k.certificate.issuer, k.certificate.signature)
        for k in keys
    ]  # fmt: skip
    answer = Evidence(
        shown, list(chains), max((c.number for c in chains), default=0), rfc3339(BEGAN + 3600)
    )
    return Expectation(answers=[answer], **more)  # type: ignore[arg-type]


def recomputed(lines: list[bytes], sign: Callable[[bytes], bytes]) -> list[bytes]:
    """Returns a log as somebody without the platform's key makes it: all hashes hold."""
    chain, result = Chain("w"), []
    for line in lines:
        entry = line[: line.rindex(b',"chain"')] + b"}"
        linked = chain.link([sign(entry)])
        chain = linked.chain
        result.append(linked.data)
    return result


def open_heads(lines: Iterable[bytes]) -> dict[str, Head]:
    chains = OpenChains()
    chains.read(line.rstrip(b"\n") for line in lines)
    return chains.heads(())


def problems(report: Report) -> list[str]:
    return [str(problem) for problem in report.problems]


def test_an_untouched_log_holds() -> None:
    report = verify(log().lines)
    chain = report.chains[0]
    assert (report.problems, report.notices, report.lines) == ([], [], 11)
    assert (chain.first, chain.last, chain.sealed, chain.ended, chain.device) == (
        0,
        10,
        11,
        True,
        "file/",
    )
    assert report.keys == {KEY.public: True}


@given(st.data())
def test_any_change_of_what_is_sealed_is_found(data: st.DataObject) -> None:
    entries = list(LINES)
    where = data.draw(st.integers(0, len(entries) - 2))  # the last is under the register alone
    what = data.draw(st.sampled_from(["change", "remove", "repeat", "swap"]))
    if what == "change":
        position = data.draw(st.integers(0, len(entries[where]) - 2))
        changed = bytearray(entries[where])
        changed[position] ^= data.draw(st.integers(1, 255))
        entries[where] = bytes(changed)
    elif what == "remove":
        del entries[where]
    elif what == "repeat":
        entries.insert(where, entries[where])
    else:
        entries[where], entries[where + 1] = entries[where + 1], entries[where]
    report = verify(entries)
    assert report.problems
    first = report.problems[0].line
    assert where <= first <= where + 3  # the line itself, or the one that shows it


def test_every_byte_of_every_line_is_under_a_seal() -> None:
    entries = log().lines
    wanted = recorded(log().known(ended=True))
    for where, line in enumerate(entries):
        for position in range(len(line)):
            changed = bytearray(line)
            changed[position] ^= 1
            tampered = [*entries[:where], bytes(changed), *entries[where + 1 :]]
            stream = b"".join(tampered).splitlines(keepends=True)
            report = verify(stream, wanted=wanted)
            is_last_newline = where == len(entries) - 1 and position == len(line) - 1
            assert report.problems or is_last_newline, (where, position)


@pytest.mark.parametrize(
    ("forge", "text"),
    [
        (lambda entry: entry.replace(b'"n": 2', b'"n": 9'), "the signature of chain-seal is wrong"),
        (lambda entry: entry.replace(b"file/", b"fire/"), "the signature of chain-start is wrong"),
        (lambda entry: b'{"type":"request"}', "has no seals"),
        (
            lambda entry: entry.replace(b"chain-start", b"request"),
            "the signature of chain-seal is wrong",
        ),
    ],
)
def test_a_log_that_was_written_anew_without_the_key_is_found(
    forge: Callable[[bytes], bytes], text: str
) -> None:
    whole = log()
    forged = recomputed(whole.lines, forge)
    pinned = Expectation(anchors=[KEY.public], unsealed_until=BEGAN)
    for wanted in (pinned, recorded(whole.known())):
        assert text in " ".join(problems(verify(forged, wanted=wanted)))


def test_a_log_that_is_sealed_with_another_key_is_found() -> None:
    report = verify(Log(key=OTHER).own(START).entries(3).own(END).lines)
    assert problems(report) == [
        f"1.log:1: entry 0 of w is sealed with a key that is not the platform's: {OTHER.public}"
    ]
    assert report.keys == {OTHER.public: False}
    assert report.chains[0].sealed == 0


def test_keys_are_followed_from_one_that_is_known_and_never_back() -> None:
    second = KEY.successor(b"\2" * 32, rfc3339(BEGAN + 10))
    third = second.successor(b"\3" * 32, rfc3339(BEGAN + 20))
    chain = Log(key=KEY).own(START).entries(2)
    for key in (second, third):
        chain.key = key
        chain.own(CONTINUE).entries(2)
    lines = chain.own(END).lines
    assert verify(lines, wanted=Expectation(anchors=[KEY.public])).problems == []
    late = verify(lines, wanted=Expectation(anchors=[third.public]))
    assert len(late.problems) == 2
    forged = msgspec_replaced(second)
    chain = Log(key=forged).own(START).own(END)
    assert verify(chain.lines).problems


def msgspec_replaced(key: SigningKey) -> SigningKey:
    """Returns a key whose certificate names the platform's first one, which did not sign it."""
    import msgspec

    other = OTHER.successor(b"\4" * 32, key.certificate.since).certificate
    return SigningKey(b"\4" * 32, msgspec.structs.replace(other, issuer=KEY.public))


def test_a_key_that_vouches_for_two_is_named() -> None:
    made = [KEY.successor(bytes([n]) * 32, rfc3339(BEGAN + 10)) for n in (2, 3)]
    files = [Log(str(n), key).own(START).own(END).lines for n, key in enumerate(made)]
    report = verify(*files)
    assert report.problems == []
    assert f"key {KEY.public} vouches for two others" in report.notices[0]


def test_what_is_cut_off_shows_against_the_register() -> None:
    whole = log()
    for kept in range(1, 11):
        assert verify(whole.lines[:kept]).problems == []
        report = verify(whole.lines[:kept], wanted=recorded(whole.known()))
        assert "missing at the end" in problems(report)[0]
    assert verify(whole.lines, wanted=recorded(whole.known())).problems == []


def test_what_was_written_anew_behind_the_last_seal_shows_against_the_register() -> None:
    whole = Log().own(START).entries(5)
    other = Log().own(START)
    other.now += 1
    other.entries(5)
    report = verify(other.lines, wanted=recorded(whole.known()))
    assert problems(report) == ["1.log:6: entry 5 of w is not the one that the platform recorded"]


def test_older_answers_are_evidence_too() -> None:
    whole, rewritten = log(), Log().own(START).entries(4)
    rewritten.lines[2:] = []
    rewritten.chain = Chain("w", 2, prev(log().lines[2]))
    rewritten.now += 50
    rewritten.entries(5).own(END)  # somebody has the running process, with all its keys
    now = recorded(rewritten.known(ended=True)).answers
    before = recorded(whole.known(entries=6)).answers
    assert verify(rewritten.lines, wanted=Expectation(answers=now)).problems == []
    report = verify(rewritten.lines, wanted=Expectation(answers=[*now, *before]))
    assert "1.log:6: entry 5 of w is not the one that the platform recorded" in problems(report)


def test_a_chain_that_is_gone_shows_against_the_register() -> None:
    here, gone = log(), Log("gone").own(START).entries(2).own(END)
    wanted = recorded(here.known(1), gone.known(2))
    (problem,) = problems(verify(here.lines, wanted=wanted))
    assert problem.startswith(
        "chain gone is missing (device file/ on host, audit.log): entries 0 to 3"
    )
    assert verify(here.lines, gone.lines, wanted=wanted).problems == []
    assert verify([*here.lines, *gone.lines], wanted=wanted).problems == []


def test_a_record_that_was_taken_out_of_etcd_is_named() -> None:
    wanted = recorded(log().known(3), Log("v").own(START).own(END).known(1))
    report = verify(log().lines, Log("v").own(START).own(END).lines, wanted=wanted)
    assert problems(report) == ["the platform's record of chain number 2 was taken out"]
    wanted = recorded(log().known(10))
    assert problems(verify(log().lines, wanted=wanted)) == [
        "the platform's record of chain numbers 1 to 9 was taken out"
    ]


def test_a_chain_that_is_unknown_to_the_platform_is_found_unless_a_kill_explains_it() -> None:
    short, long = Log("s").own(START).entries(3), Log("l").own(START).entries(900).own(END)
    report = verify(short.lines, long.lines, wanted=recorded())
    assert ["record chain l" in problem for problem in problems(report)] == [True]
    assert "had not recorded chain s" in report.notices[0]


def test_a_process_that_was_killed_leaves_no_problem() -> None:
    whole = log()
    for written in range(1, 11):
        for known in range(1, written + 1):
            chain = Log().own(START).entries(4).own(SEAL).entries(3).own(SEAL).own(END)
            lines = whole.lines[:written]
            wanted = recorded(chain.known(entries=known))
            cut = whole.lines[written][:-5] + b"\n"
            assert verify([*lines, cut], wanted=wanted).problems == []


def test_the_end_of_a_chain_is_vouched_for_by_another_that_has_seen_it() -> None:
    killed = Log("killed").own(START).entries(900)
    other = Log("other", began=killed.now).own(START)
    head = open_heads([*killed.lines, *other.lines])
    assert list(head) == ["killed", "other"]
    other.own(SEAL, seen={"killed": head["killed"]}).entries(1)
    report = verify([*killed.lines, *other.lines])
    assert (report.problems, [chain.unsealed for chain in report.chains]) == ([], [0, 1])
    (cut, _) = problems(verify([*killed.lines[:-1], *other.lines]))
    assert cut == "1.log:900: entry 900 of killed is missing at the end, which 1.log:902 has seen"
    changed = [*killed.lines[:-1], killed.lines[-1].replace(b"900", b"901", 1), *other.lines]
    assert (
        "entry 900 of killed is not the one that 1.log:903 has seen" in problems(verify(changed))[0]
    )
    (gone,) = problems(verify(other.lines))
    assert gone == "1.log:2: entries 0 to 900 of killed are missing: they stood before this line"
    forged = Log("other", OTHER).own(START).own(SEAL, seen={"killed": head["killed"]})
    assert "900 entries of killed" in " ".join(problems(verify([*killed.lines, *forged.lines])))


def test_chains_that_ended_need_no_other_to_see_them() -> None:
    assert open_heads([*log().lines, b"no entry\n"]) == {}


def test_many_entries_without_a_seal_are_no_crash() -> None:
    chain = Log().own(START).entries(5).own(SEAL).entries(700)
    report = verify(chain.lines)
    assert problems(report) == [
        "1.log:707: 700 entries of w, of 699 seconds, have no seal: no crash leaves so many"
    ]


def test_a_line_behind_the_end_is_found() -> None:
    chain = log().entries(1)
    assert "stands behind the end" in problems(verify(chain.lines))[0]
    assert "stands behind the end" in problems(verify(chain.lines[:-1], chain.lines[-1:]))[0]


def test_something_else_between_the_lines_is_found_and_what_a_crash_leaves_is_told_apart() -> None:
    lines = log().lines
    for odd in (b"hello\n", b'{"type":"request"}\n', b"[]\n", b'{"a":1} {\n'):
        assert problems(verify([*lines[:3], odd, *lines[3:]])) == ["1.log:4: is not an audit entry"]
    for odd in (b'{"type":"requ\n', b"\0\0\0\n", b"\0\0" + lines[5][20:]):
        report = verify([*lines[:3], odd, *lines[3:]])
        assert (report.problems, report.notices) == ([], ["1.log:4: a crash cut a line short"])
    assert verify([*lines, lines[0][:20]]).notices == [
        "1.log:12: the last line is not complete (yet)"
    ]


class TestFiles:
    def parts(self) -> tuple[list[bytes], ...]:
        chain = Log()
        for kind in (START, CONTINUE, CONTINUE):
            chain.own(kind).entries(3).own(SEAL)
        chain.own(END)
        self.known = chain.known(ended=True)
        return chain.lines[:5], chain.lines[5:10], chain.lines[10:]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_come_in_any_order(self, order: tuple[int, ...]) -> None:
        parts = self.parts()
        wanted = recorded(self.known)
        report = verify(*(parts[n] for n in order), wanted=wanted)
        assert (report.problems, report.chains[0].last) == ([], 15)
        joined = [line for n in order for line in parts[n]]
        assert verify(joined, wanted=wanted).problems == []

    def test_one_between_others_is_missing(self) -> None:
        first, _, third = self.parts()
        (problem,) = problems(verify(first, third))
        assert problem == "2.log:1: entries 5 to 9 of w are missing between 1.log and this"

    def test_those_before_are_wanted_from_a_time_on(self) -> None:
        _, second, third = self.parts()
        files, known = (second, third), self.known
        assert verify(*files).problems == []
        (problem,) = problems(verify(*files, wanted=recorded(known)))
        assert (
            problem == "1.log:1: entries 0 to 4 of w are missing: no file was given that has them"
        )
        later = recorded(known, since=BEGAN + 6)
        assert verify(*files, wanted=later).problems == []
        earlier = recorded(known, since=BEGAN + 5)
        assert verify(*files, wanted=earlier).problems
        assert verify(*files, wanted=recorded()).problems  # killed before it was recorded

    def test_chains_that_ended_before_that_time_are_not_wanted(self) -> None:
        old, here = log(), Log("here", began=BEGAN + 100).own(START).own(END)
        chains = (old.known(1), here.known(2))
        assert verify(here.lines, wanted=recorded(*chains, since=BEGAN + 50)).problems == []
        assert verify(here.lines, wanted=recorded(*chains, since=BEGAN)).problems

    def test_a_beginning_that_was_cut_off_is_no_earlier_file(self) -> None:
        first, second, _ = self.parts()
        assert "no file ends before" in problems(verify(first[2:]))[0]
        assert "no file ends before" in problems(verify(second[1:]))[0]
        assert verify(first[:2], first[2:]).problems == []  # a log may be split anywhere

    def test_given_twice_is_said(self) -> None:
        first, *_ = self.parts()
        report = verify(first, first)
        assert (report.problems, report.notices) == ([], ["2.log repeats what 1.log has of w"])
        assert "give each part of the log once" in problems(verify(first, first[:3]))[0]

    def test_a_change_at_the_seam_is_found(self) -> None:
        first, second, _ = self.parts()
        first[-1] = first[-1].replace(b"chain-seal", b"chain-saal")
        assert "1.log:5" in " ".join(problems(verify(first, second)))

    def test_of_other_devices_are_left_out(self) -> None:
        other = Log("o").own(START).own(END).known(2)
        other = KnownChain(
            other.writer,
            other.entries,
            other.hash,
            2,
            "second/",
            "h",
            "f",
            other.began,
            other.recorded,
        )
        wanted = recorded(log().known(1), other)
        assert verify(log().lines, wanted=wanted).problems
        narrowed = recorded(log().known(1), other, devices=["file/"])
        assert verify(log().lines, wanted=narrowed).problems == []


class TestEarlierVersions:
    def old(self, until: float) -> list[bytes]:
        chain = Log("old", began=until - 10)
        chain.lines = []
        entry = json.dumps({"time": rfc3339(until - 10), "type": "chain-start"}).encode()
        linked = chain.chain.link([entry])
        chain.chain = linked.chain
        chain.lines.append(linked.data)
        return chain.entries(10).lines

    def test_what_they_wrote_is_checked_as_far_as_it_goes(self) -> None:
        old = self.old(EARLIER)
        for wanted in (Expectation(), PINNED, recorded(log().known())):
            report = verify([*old, *log().lines], wanted=wanted)
            assert report.problems == []
            assert [chain.keyed for chain in report.chains] == [False, True]
            assert "only hashes" in report.notices[0]
        del old[4]
        assert verify(old).problems

    def test_nothing_of_theirs_is_of_a_time_with_seals_unless_the_auditor_knows(self) -> None:
        lines = [*self.old(BEGAN + 50), *log().lines]
        assert "has no seals" in problems(verify(lines))[0]
        known = Expectation(anchors=[KEY.public], unsealed_until=BEGAN + 60)
        assert verify(lines, wanted=known).problems == []


def test_nobody_vouches_for_keys_that_are_not_known() -> None:
    report = verify(log().lines, wanted=Expectation())
    assert (report.problems, report.keys) == ([], {KEY.public: False})
    assert report.chains[0].sealed == 11
    assert problems(verify(log().lines[1:], wanted=Expectation()))


@given(st.lists(st.binary(max_size=60) | st.sampled_from([*LINES, b"{" * 50, b"[" * 5_000])))
def test_whatever_stands_in_a_file_is_judged(pieces: list[bytes]) -> None:
    stream = b"".join(pieces).splitlines(keepends=True)
    for wanted in (PINNED, recorded(log().known())):
        report = verify(stream, wanted=wanted)
        assert report.lines <= len(stream)
    open_heads(stream)


def test_the_memory_that_problems_take_is_bounded() -> None:
    report = verify([b"x\n", b'{"a\n'] * 5_000)
    assert (len(report.problems), report.more_problems) == (1_000, 4_000)
    assert len(report.notices) == 1_000


def test_gzip_is_read_as_it_comes(tmp_path: Path) -> None:
    from strongroom_cli.audit_verify import _lines

    file = tmp_path / "audit.log.1.gz"
    file.write_bytes(gzip.compress(b"".join(log().lines)))
    assert list(_lines(file)) == log().lines
