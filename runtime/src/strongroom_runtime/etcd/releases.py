"""What releases of etcd do that their documentation does not say."""

# The first patch release of each line that writes to its log before it answers, where it is the only member.
_LOGGED_FIRST = {(3, 4): 21, (3, 5): 5}


def answers_before_logging(version: str) -> bool:
    """Returns whether an only member of a release may lose what it has answered, if it is killed (etcd issue 14370).

    One whose version cannot be read is taken for such a one.
    """
    try:
        major, minor, patch = (int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return True
    return patch < _LOGGED_FIRST.get((major, minor), 0) or (major, minor) < min(_LOGGED_FIRST)
