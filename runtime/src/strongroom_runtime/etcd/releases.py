"""What releases of etcd do that their documentation does not say."""

# The first patch release of each line that writes to its log before it answers, where it is the only member.
_LOGGED_FIRST = {(3, 4): 21, (3, 5): 5}
# The first patch release of each line that checks users' rights in all of a transaction.
_RIGHTS_CHECKED = {"3.4": 44, "3.5": 30, "3.6": 11}


def answers_before_logging(version: str) -> bool:
    """Returns whether an only member of a release may lose what it has answered, if it is killed (etcd issue 14370).

    One whose version cannot be read is taken for such a one.
    """
    try:
        major, minor, patch = (int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return True
    return patch < _LOGGED_FIRST.get((major, minor), 0) or (major, minor) < min(_LOGGED_FIRST)


def known_data_loss(version: str) -> str:
    """Returns a warning where an etcd is of a release that can lose agreement between members; else nothing.

    Releases 3.5.0 to 3.5.2 can when one is killed under load (etcd issue 13766). A single member is not affected.
    """
    if version in ("3.5.0", "3.5.1", "3.5.2"):
        return f"etcd {version} is fine as the only member; a cluster needs 3.4.22 or 3.5.6 at the least"
    return ""


def known_loose_rights(version: str) -> str:
    """Returns a warning where an etcd does not check all that users do inside of transactions; else nothing."""
    first = _RIGHTS_CHECKED.get(version.rpartition(".")[0])
    if first is None or not version.rpartition(".")[2].isdigit():
        return ""
    if int(version.rpartition(".")[2]) >= first:
        return ""
    return (
        f"etcd {version} does not check all rights of users inside of transactions (CVE-2026-44283): they keep"
        " mistakes apart, but no attacker; 3.4.44, 3.5.30 and 3.6.11 are the first that do"
    )
