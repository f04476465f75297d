"""What the platform promises, judged by a history. Each check yields what contradicts it.

What began after something else was answered sees it. What began before may see it or not; where an outcome is not
known, so may everything later.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.histories.history import History, Operation, Outcome
from tests.histories.linearizability import VersionedRegister, linearizable

Versions = Mapping[str, Mapping[int, Any]]  # of each secret the value of each version
Check = Callable[[History], Iterator[str]]


def settle(history: History, found: Versions) -> None:
    """Notes what became of writes whose outcome nobody was told, by what is found when all is over."""
    now = time.monotonic()
    for key, writes in history.by_key("write").items():
        version_of = {value: version for version, value in found.get(key, {}).items()}
        for each in writes:
            if each.outcome is Outcome.UNKNOWN:
                each.result = version_of.get(each.argument[0])
                each.outcome = Outcome.FAILED if each.result is None else Outcome.OK
                each.ended = now


def every_version_is_kept(history: History, found: Versions) -> Iterator[str]:
    """What was acknowledged is there in the end; versions have no gaps, and each is what somebody wrote, once."""
    for key, writes in history.by_key("write").items():
        versions = found.get(key, {})
        if sorted(versions) != list(range(1, len(versions) + 1)):
            yield f"{key} has gaps: {sorted(versions)}"
        if len(set(versions.values())) != len(versions):
            yield f"{key} has a write twice: {versions}"
        for each in writes:
            if each.ok and versions.get(each.result) != each.argument[0]:
                yield f"version {each.result} is {versions.get(each.result)!r}: {each}"
        written = {o.argument[0] for o in writes if o.may_count}
        for version, value in versions.items():
            if value not in written:
                yield f"nobody wrote version {version} of {key}, {value!r}"


def secrets_are_linearizable(history: History) -> Iterator[str]:
    """Writes, and reads that ask for it, come in one order, which real time agrees with."""
    for key, operations in history.by_key("write", "read").items():
        counted = [o for o in operations if o.ok or (o.name == "write" and o.may_count)]
        if not linearizable(VersionedRegister(), counted):
            yield f"{key} is not linearizable: " + "; ".join(map(str, counted))


def reads_see_what_was_acknowledged(history: History) -> Iterator[str]:
    """A read has what was written, and nothing older than what was acknowledged before it began."""
    for operations in history.by_key("write", "read", "glance").values():
        writes = [o for o in operations if o.name == "write" and o.may_count]
        writer = {o.argument[0]: o for o in writes}
        for each in operations:
            if not each.ok or each.name == "write":
                continue
            version, value = each.result
            if version < _newest(writes, each):
                yield f"version {_newest(writes, each)} was acknowledged before: {each}"
            write = writer.get(value)
            if version and (write is None or write.began > each.ended):
                yield f"nobody had written it: {each}"
            elif write is not None and write.ok and write.result != version:
                yield f"it was answered as another version, {write}: {each}"


def conditions_are_judged_by_the_newest_version(history: History) -> Iterator[str]:
    """A write is refused for its condition only where another version was the newest, or was about to be."""
    for operations in history.by_key("write", "mismatch").values():
        writes = [o for o in operations if o.name == "write" and o.ok]
        for each in operations:
            if each.name == "mismatch":
                newest = max((o.result for o in writes if o.began < each.ended), default=0)
                if newest == _newest(writes, each) == each.argument[1]:
                    yield f"it was the newest: {each}"


def _newest(writes: Sequence[Operation], each: Operation) -> int:
    """Returns the newest version that was acknowledged before something began."""
    return max((o.result for o in writes if o.ok and o.precedes(each)), default=0)


def revoked_tokens_are_refused(history: History) -> Iterator[str]:
    """A token is refused once its revocation, or that of what made it, was answered; and not before that began."""
    made = {o.result: o for o in history.of("create") if o.ok}
    revocations = {o.key: o for o in history.of("revoke")}
    for use in history.of("use"):
        if not use.ok:
            continue
        parent = made[use.key].key
        revocation = revocations.get(use.key) or revocations.get(parent)
        if use.result and revocation is not None and revocation.ok and revocation.precedes(use):
            yield f"revoked before, {revocation}: {use}"
        begun = revocation is not None and revocation.may_count and revocation.began < use.ended
        if not use.result and not begun:
            yield f"nobody had revoked it: {use}"


def uses_are_counted_exactly(history: History) -> Iterator[str]:
    """What may be used so many times is used no more often, and refused only where others may have used it up."""
    for key, uses in history.by_key("spend").items():
        most = uses[0].argument
        taken = [o for o in uses if o.ok and o.result]
        if len(taken) > most:
            yield f"{key} was used {len(taken)} times of {most}: " + "; ".join(map(str, taken))
        for refused in uses:
            if refused.ok and not refused.result:
                others = [o for o in uses if o.began < refused.ended and o.may_count]
                if sum(not o.ok or bool(o.result) for o in others) < most:
                    yield f"it was not used up, of {most}: {refused}"


def policies_bind(history: History) -> Iterator[str]:
    """Every request is decided by the policy as it stands, or as somebody is about to change it to."""
    changes = history.by_key("allow")
    for key, tries in history.by_key("try").items():
        for each in tries:
            allowed = _possible(changes.get(key, []), each, None)
            if each.ok and each.result not in {slot == each.argument for slot in allowed}:
                yield f"the policy allowed {allowed}: {each}"


def mounts_are_gone(history: History) -> Iterator[str]:
    """A mount that was disabled answers nothing, and the next one at its path is empty."""
    changes = history.by_key("put", "disable")
    for key, looks in history.by_key("look").items():
        for each in looks:
            there = _possible(changes.get(key, []), each, False)
            if each.ok and each.result not in there:
                yield f"it was there: {there}: {each}"


def ciphertexts_open(history: History) -> Iterator[str]:
    """What was encrypted or signed opens and verifies everywhere, until its version is closed."""
    closings = history.by_key("close")
    for key, operations in history.by_key("decrypt", "verify").items():
        for each in operations:
            least = _possible(closings.get(key, []), each, 1)
            version = version_of(each.argument)
            if each.ok and each.result not in {version >= number for number in least}:
                yield f"the least version was {least}: {each}"


def rotations_are_seen(history: History) -> Iterator[str]:
    """Everything is encrypted and signed under the newest version, and under none that nobody made."""
    rotations = history.by_key("rotate")
    for key, operations in history.by_key("encrypt", "sign").items():
        made = rotations.get(key, [])
        for each in operations:
            least = max((o.result for o in made if o.ok and o.precedes(each)), default=1)
            most = 1 + sum(o.may_count and o.began < each.ended for o in made)
            if each.ok and not least <= version_of(each.result) <= most:
                yield f"the newest version was {least} to {most}: {each}"


def version_of(text: str) -> int:
    """Returns the version of a key that made a ciphertext or a signature."""
    return int(text.split(":")[1].removeprefix("v"))


def _possible(changes: Sequence[Operation], each: Operation, initial: Any) -> set[Any]:
    """Returns what may be found of a thing that one client changes.

    Args:
        changes: of it, one after the other; the argument of each is what it is from then on.
        each: finds it.
        initial: what it was before them.
    """
    possible = {initial}
    for change in changes:
        if change.ok and change.precedes(each):
            possible = {change.argument}
        elif change.may_count and change.began < each.ended:
            possible.add(change.argument)
    return possible


def users_are_of_leases(history: History) -> Iterator[str]:
    """A database user logs in once it was answered, and no more once the end of its lease was."""
    ends = {o.key: o for o in history.of("end")}
    for login in history.of("login"):
        end = ends.get(login.key)
        if login.result and end is not None and end.ok and end.precedes(login):
            yield f"ended before, {end}: {login}"
        if not login.result and (end is None or login.precedes(end)):
            yield f"nobody had ended it: {login}"


def watches_tell_everything_once(history: History, found: Versions) -> Iterator[str]:
    """A watch that goes on after each break tells of each version once and in order."""
    told = history.by_key("told")
    for watch in {o.argument for o in history.of("told")}:
        for key, versions in found.items():
            seen = [o.result for o in told.get(key, []) if o.argument == watch]
            if seen != sorted(versions):
                yield f"watch {watch} told of {seen} of {key}, which has {len(versions)} versions"


CHECKS: tuple[Check, ...] = (
    secrets_are_linearizable,
    reads_see_what_was_acknowledged,
    conditions_are_judged_by_the_newest_version,
    revoked_tokens_are_refused,
    uses_are_counted_exactly,
    policies_bind,
    mounts_are_gone,
    ciphertexts_open,
    rotations_are_seen,
    users_are_of_leases,
)
CHECKS_OF_VERSIONS = (every_version_is_kept, watches_tell_everything_once)
