"""What releases of etcd do that their documentation does not say."""

import re

# The first patch release of each line that writes to its log before it answers, where it is the only member.
_LOGGED_FIRST = {(3, 4): 21, (3, 5): 5}
# The first patch release of each line that checks users' rights in all of a transaction.
_RIGHTS_CHECKED = {(3, 4): 44, (3, 5): 30, (3, 6): 11}
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:[-+].*)?", re.ASCII)


def answers_before_logging(version: str) -> bool:
    """Returns whether an only member of a release may lose what it has answered, if it is killed (etcd issue 14370).

    One whose version cannot be read is taken for such a one.
    """
    read = _read(version)
    if read is None:
        return True
    line, patch = read
    return patch < _LOGGED_FIRST.get(line, 0) or line < min(_LOGGED_FIRST)


def known_data_loss(version: str) -> str:
    """Returns a warning where an etcd is of a release that can lose agreement between members; else nothing.

    Releases 3.5.0 to 3.5.2 can when one is killed under load (etcd issue 13766). A single member is not affected.
    """
    if _read(version) in (((3, 5), 0), ((3, 5), 1), ((3, 5), 2)):
        return f"etcd {version} is fine as the only member; a cluster needs 3.4.22 or 3.5.6 at the least"
    return ""


def known_loose_rights(version: str) -> str:
    """Returns a warning where an etcd does not check all that users do inside of transactions; else nothing."""
    read = _read(version)
    if read is None or read[1] >= _RIGHTS_CHECKED.get(read[0], 0):
        return ""
    return (
        f"etcd {version} does not check all rights of users inside of transactions (CVE-2026-44283): they keep"
        " mistakes apart, but no attacker; 3.4.44, 3.5.30 and 3.6.11 are the first that do"
    )


def _read(version: str) -> tuple[tuple[int, int], int] | None:
    """Returns the line and the patch release, such as (3, 5) and 1; None where a version is not of that form.

    One before a release (3.5.0-rc.1) counts as that release, and so does one that somebody built of it (3.5.0+a).
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    major, minor, patch = map(int, found.groups())
    return (major, minor), patch
