"""What holds of a log: its stretches put together, and compared with what the platform recorded."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from strongroom_audit.domain.chain import GENESIS
from strongroom_audit.domain.evidence import Evidence, KnownChain, Register
from strongroom_audit.domain.scanning import Problem, Scan, Sight, Stretch, missing
from strongroom_runtime.timestamps import parse_time

# A process that is killed leaves some seconds unsealed and unrecorded. The rest is for clocks that are changed.
_CRASH_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an auditor knows and asks.

    Args:
        anchors: public keys that are known to be the platform's.
        answers: of `sys/audit-chains`, from before the files were copied; any number of older ones too.
        since: from when on the files are complete, seconds since 1970; None for always.
        unsealed_until: until when entries may come from a version that sealed nothing, seconds since 1970; None for
            until the first key was made.
        devices: the paths of the devices whose files are given; empty for all.
    """

    anchors: Collection[str] = ()
    answers: Collection[Evidence] = ()
    since: float | None = None
    unsealed_until: float | None = None
    devices: Collection[str] = ()


@dataclass(slots=True)
class ChainReport:
    """A chain as the files have it.

    Args:
        writer: its name.
        device: the path of its device, where that is known.
        first: number of its first entry there.
        last: number of its last.
        began: time of the first.
        until: time of the last.
        sealed: how many entries, from 0 on, a believed key vouches for.
        keyed: it has seals.
        ended: its end is there.
        recorded: how many entries the platform recorded; 0 for none.
    """

    writer: str
    device: str
    first: int
    last: int
    began: str
    until: str
    sealed: int
    keyed: bool
    ended: bool
    recorded: int = 0

    @property
    def unsealed(self) -> int:
        """How many entries there are behind the last seal."""
        return self.last + 1 - max(self.sealed, self.first)


@dataclass(slots=True)
class Report:
    """What a verification found.

    Args:
        lines: how many entries were read.
        chains: in the order in which they began.
        problems: what no crash explains; empty where all holds.
        more_problems: how many there are beyond those.
        notices: what an auditor should know.
        keys: the keys of the seals, and whether they are believed.
    """

    lines: int = 0
    chains: list[ChainReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0
    notices: list[str] = field(default_factory=list)
    keys: dict[str, bool] = field(default_factory=dict)


class Verifier:
    """Verifies a log: files are read one after another, in any order; then the report is made."""

    def __init__(self, expectation: Expectation) -> None:
        self._wanted = expectation
        self._register = Register(expectation.answers)
        self._trust = self._register.trust(expectation.anchors)
        self._scan = Scan(self._register.hashes, self._trust)
        self.problem, self._notice = self._scan.problem, self._scan.notice
        self._unsealed_until = expectation.unsealed_until
        self._keyed_by_anyone = not self._trust.anchors
        self._sights: dict[str, list[Sight]] = {}

    def read(self, file: str, lines: Iterable[bytes]) -> None:
        """Reads a file, whose lines come with their newlines."""
        self._scan.read(file, lines)

    def report(self) -> Report:
        """Returns what holds of all that was read."""
        report = Report(self._scan.lines, notices=self._scan.notices)
        by_writer: dict[str, list[Stretch]] = {}
        for stretch in self._scan.stretches:
            by_writer.setdefault(stretch.writer, []).append(stretch)
        if self._unsealed_until is None and (begun := self._trust.begun()):
            self._unsealed_until = _seconds(begun)
        hashes = {stretch.hash for stretch in self._scan.stretches}
        for sight in self._scan.sights:
            if self._keyed_by_anyone or self._trust.believes(sight.key):
                self._sights.setdefault(sight.writer, []).append(sight)
        for stretches in by_writer.values():
            stretches.sort(key=lambda each: (each.first, -each.next))
            if self._is_asked_for(stretches):
                chain = self._chain(list(self._joined(stretches)), hashes)
                report.chains.append(chain)
        for sights in self._sights.values():
            for sight in sights:
                if sight.writer not in by_writer:
                    text = f"{missing(sight.writer, 0, sight.head.entries)}: they stood before this line"
                    self.problem(sight.file, sight.line, text)
        report.chains.sort(key=lambda chain: chain.began)
        self._compare(by_writer, report)
        report.keys = {
            key: self._trust.believes(key)
            for stretch in self._scan.stretches
            for key in stretch.signed
        }
        for key in self._trust.forks():
            self._notice(
                f"key {key} vouches for two others: the platform was restored from a snapshot, or the key was stolen"
            )
        report.problems, report.more_problems = self._scan.problems, self._scan.more_problems
        return report

    def _is_asked_for(self, stretches: list[Stretch]) -> bool:
        if not self._wanted.devices:
            return True
        known = self._register.chains.get(stretches[0].writer)
        names = {each.device for each in stretches} | {known.device if known else ""}
        return bool(names & set(self._wanted.devices)) or names == {""}

    def _joined(self, stretches: list[Stretch]) -> Iterator[Stretch]:
        """Yields the stretches of a chain that follow upon one another, and notes where they do not."""
        before: Stretch | None = None
        for each in stretches:
            if before is None:
                self._check_beginning(each)
            elif each.first < before.next:
                if (each.first, each.next, each.hash) == (before.first, before.next, before.hash):
                    self._notice(f"{each.file} repeats what {before.file} has of {each.writer}")
                    continue
                self.problem(
                    each.file,
                    each.line,
                    f"entries from {each.first} on of {each.writer} stand in {before.file} too:"
                    " give each part of the log once",
                )
            elif each.first > before.next:
                text = missing(each.writer, before.next, each.first)
                self.problem(each.file, each.line, f"{text} between {before.file} and this")
            elif each.prev != before.hash:
                text = f"entry {before.next - 1} of {each.writer} was changed: {each.file}:{each.line} has"
                self.problem(before.file, before.last_line, f"{text} another hash of it")
            elif before.ended:
                text = f"entry {each.first} of {each.writer} stands behind the end of its chain"
                self.problem(each.file, each.line, text)
            before = each
            yield each

    def _check_beginning(self, first: Stretch) -> None:
        if first.first == 0:
            if first.prev != GENESIS:
                text = f"entry 0 of {first.writer} names one before it"
                self.problem(first.file, first.line, text)
            return
        gone = missing(first.writer, 0, first.first)
        since = self._wanted.since
        if not first.opens:
            text = f"{gone}; no file ends before the one of this line"
            self.problem(first.file, first.line, text)
        elif self._wanted.answers and (since is None or _seconds(first.began) > since):
            self.problem(first.file, first.line, f"{gone}: no file was given that has them")
        else:
            self._notice(
                f"{first.file}:{first.line}: goes on with {first.writer} from an earlier file, which was not given"
            )

    def _chain(self, stretches: list[Stretch], hashes: set[str]) -> ChainReport:
        first, last = stretches[0], stretches[-1]
        chain = ChainReport(
            writer=first.writer,
            device=next((each.device for each in stretches if each.device), ""),
            first=first.first,
            last=max(each.next for each in stretches) - 1,
            began=first.began,
            until=max(each.until for each in stretches),
            sealed=0,
            keyed=any(each.signed for each in stretches),
            ended=last.ended,
        )
        for each in stretches:
            for key, use in each.signed.items():
                if self._keyed_by_anyone or self._trust.believes(key):
                    chain.sealed = max(chain.sealed, use.covers)
                else:
                    text = f"entry {use.seq} of {each.writer} is sealed with a key that is not the platform's"
                    self.problem(each.file, use.line, f"{text}: {key}")
        self._take_sights(chain, stretches)
        if not chain.keyed:
            self._check_unkeyed(chain, first, hashes)
        elif last.unsealed and chain.unsealed:
            seconds = _seconds(last.until) - _seconds(last.unsealed)
            if seconds > _CRASH_SECONDS:
                text = f"{chain.unsealed} entries of {chain.writer}, of {seconds:.0f} seconds, have no seal"
                self.problem(last.file, last.last_line, f"{text}: no crash leaves so many")
        return chain

    def _take_sights(self, chain: ChainReport, stretches: list[Stretch]) -> None:
        """Compares the end of a chain with what seals of others say of it."""
        added = False
        for sight in self._sights.pop(chain.writer, ()):
            entries = sight.head.entries
            at = f"{sight.file}:{sight.line}"
            if sight.head.gone and not added:
                added = self._check_gone(stretches, entries, at)
            last = stretches[-1]
            if chain.last + 1 < entries:
                text = missing(chain.writer, chain.last + 1, entries)
                self.problem(last.file, last.last_line, f"{text} at the end, which {at} has seen")
            elif chain.last + 1 == entries and last.hash != sight.head.hash:
                text = f"entry {chain.last} of {chain.writer} is not the one that {at} has seen"
                self.problem(last.file, last.last_line, text)
            else:
                chain.sealed = max(chain.sealed, entries)

    def _check_gone(self, stretches: list[Stretch], entries: int, at: str) -> bool:
        """Returns whether a writer seems to have gone on in a file that it had left; in another it may."""
        for each in stretches:
            if each.next > entries and (
                each.first < entries or (each.first == entries and not each.opens)
            ):
                text = f"entries from {entries} on of {each.writer} were added when it had left the file"
                self.problem(each.file, each.last_line, f"{text}, as {at} has seen")
                return True
        return False

    def _check_unkeyed(self, chain: ChainReport, first: Stretch, hashes: set[str]) -> None:
        """Judges a chain without seals: of an earlier version, or made up."""
        if first.after and first.after not in hashes:
            self._notice(f"{first.file}:{first.line}: follows upon a file that was not given")
        until = self._unsealed_until
        if until is not None and not 0 < _seconds(chain.until) <= until:
            self.problem(
                first.file,
                first.line,
                f"chain {chain.writer} has no seals: it is made up, or of an earlier version that still ran when the"
                " platform made its first key",
            )
        else:
            self._notice(
                f"{first.file}:{first.line}: chain {chain.writer} has no seals, as those of earlier versions:"
                " only hashes, which anybody can compute, hold it together"
            )

    def _compare(self, by_writer: dict[str, list[Stretch]], report: Report) -> None:
        """Compares the chains with those that the platform recorded."""
        register = self._register
        if not self._wanted.answers:
            return
        for chain in report.chains:
            known = register.chains.get(chain.writer)
            stretch = by_writer[chain.writer][-1]
            if known is not None:
                chain.recorded, chain.device = known.entries, known.device
                if chain.last + 1 < known.entries:
                    text = missing(chain.writer, chain.last + 1, known.entries)
                    text = f"{text} at the end, which were recorded at {known.recorded}"
                    self.problem(stretch.file, stretch.last_line, text)
            elif chain.keyed:
                self._check_unrecorded(chain, stretch)
        for writer, known in register.chains.items():
            if writer not in by_writer and self._must_be_there(known):
                text = f"entries 0 to {known.entries - 1}, from {known.began} to {known.recorded}"
                self.problem("", 0, f"chain {writer} is missing ({known.where}): {text}")
        for begin, end in register.gone:
            which = f"number {begin}" if begin == end else f"numbers {begin} to {end}"
            self.problem("", 0, f"the platform's record of chain {which} was taken out")

    def _check_unrecorded(self, chain: ChainReport, stretch: Stretch) -> None:
        began, answered = _seconds(chain.began), _seconds(self._register.time)
        if _seconds(chain.until) - began > _CRASH_SECONDS and answered - began > _CRASH_SECONDS:
            self.problem(
                stretch.file,
                stretch.line,
                f"the platform did not record chain {chain.writer}: its record was lost with a snapshot that was"
                " restored, or it was made up with a stolen key",
            )
        else:
            self._notice(
                f"{stretch.file}:{stretch.line}: the platform had not recorded chain {chain.writer}:"
                " it is new, or its process was killed within seconds"
            )

    def _must_be_there(self, known: KnownChain) -> bool:
        if self._wanted.devices and known.device not in self._wanted.devices:
            return False
        return self._wanted.since is None or _seconds(known.recorded) >= self._wanted.since


def _seconds(time: str) -> float:
    """Returns seconds since 1970; 0 where a line says something else."""
    try:
        return parse_time(time)
    except ValueError:
        return 0.0
