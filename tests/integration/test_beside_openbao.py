"""Random requests, the same to the platform and to OpenBao: what the one answers the other does, too.

Where both refuse, their words and which error it is may differ. What differs on purpose (docs/differences.md) is not
asked for.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Answer, Client
from tests.integration.openbao import TOKEN, openbao
from tests.integration.platforms import ROOT, Platform, until

Request = tuple[str, str, Any]  # method, path, and what is sent as JSON; None for nothing

_MERGE = {"Content-Type": "application/merge-patch+json"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
# What names a request or the kind of a mount, what is said beside an answer, and a setting that token roles of
# OpenBao show once it was written.
_NOT_COMPARED = {"request_id", "mount_type", "warnings", "token_strictly_bind_ip"}


@dataclass
class Both:
    """The platform and OpenBao."""

    ours: Client
    theirs: Client

    def ask(
        self, method: str, path: str, body: Any = None, tokens: tuple[str, str] = (ROOT, TOKEN)
    ) -> tuple[Answer, Answer]:
        headers = _MERGE if method == "PATCH" else {}
        return (
            self.ours.ask(method, path, tokens[0], json=body, headers=headers),
            self.theirs.ask(method, path, tokens[1], json=body, headers=headers),
        )

    def mount(self, path: str, **settings: Any) -> None:
        for answer in self.ask("POST", f"sys/{path}", settings):
            assert answer.ok, answer.text


@pytest.fixture(scope="module")
def both(platforms: Callable[[str], Platform], shared_folder: Path) -> Iterator[Both]:
    with (
        platforms("all").client() as ours,
        openbao(shared_folder) as address,
        Client(address, "") as theirs,
    ):
        yield Both(ours, theirs)


def check_alike(answers: tuple[Answer, Answer], said: object) -> None:
    """Fails, with what was asked, where one answers and the other refuses, or where both tell something else."""
    ours, theirs = answers
    assert ours.ok == theirs.ok, f"{said}: {ours.status_code} {ours.text}, {theirs.text}"
    assert told(ours) == told(theirs), said


def told(answer: Answer) -> Any:
    """Returns what an answer tells: of an error nothing but its data."""
    document = json.loads(answer.content or b"{}")
    return comparable(document if answer.ok else document.get("data"))


def comparable(value: Any) -> Any:
    """Returns a value without what cannot be the same, and without what is empty, which may be left out."""
    if isinstance(value, dict):
        known = {k: comparable(v) for k, v in value.items() if k not in _NOT_COMPARED}
        return {k: v for k, v in known.items() if v not in (None, "", [], {})}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    return _TIME.sub("T", value) if isinstance(value, str) else value


class Policies:
    """Makes policies for a mount of KV version 1, at `beside/`, and requests that they may or may not allow."""

    _SEGMENTS = ("a", "b", "ab", "+", "abc")
    _ODD = (
        "beside/*",
        "*",
        "beside*",
        "+/a",
        "beside/+/*",
        "+/+/a",
        "/beside/a",
        "beside//a",
        "beside/+a",
    )
    _VALUES = ("[]", '["1"]', '["a*"]', '["*b"]', '["1", "2"]')

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self) -> str:
        return "\n".join(self._stanza() for _ in range(self._random.randrange(1, 4)))

    def path(self) -> str:
        """Returns the path of a request."""
        return self._joined(("a", "b", "ab", "abc", "x"))

    def request(self) -> Request:
        choose = self._random
        method = choose.choice(["GET", "POST", "POST", "POST", "DELETE", "LIST"])
        names = choose.sample(["k", "j", "z", "K"], choose.randrange(1, 3))
        values = ["1", "2", "ab", "abc", "b", "", ["1"], {"x": "1"}]
        body = {name: choose.choice(values) for name in names}
        return method, self.path(), body if method == "POST" else None

    def _joined(self, segments: tuple[str, ...]) -> str:
        chosen = (self._random.choice(segments) for _ in range(self._random.randrange(1, 4)))
        return "beside/" + "/".join(chosen)

    def _stanza(self) -> str:
        choose = self._random
        path = self._joined(self._SEGMENTS) + choose.choice(["", "", "*", "/*", "/"])
        if choose.random() < 0.1:
            path = choose.choice(self._ODD)
        capabilities = choose.sample(
            ["create", "read", "update", "delete", "list", "patch"], choose.randrange(1, 4)
        )
        if choose.random() < 0.15:
            capabilities = ["deny"]
        lines = [f"capabilities = {json.dumps(capabilities)}"]
        for field in ("allowed_parameters", "denied_parameters"):
            if choose.random() < 0.25:
                names = choose.sample(["k", "j", "*", "K"], choose.randrange(1, 3))
                pairs = " ".join(f'"{name}" = {choose.choice(self._VALUES)}' for name in names)
                lines.append(f"{field} = {{ {pairs} }}")
        if choose.random() < 0.15:
            lines.append(f"required_parameters = {json.dumps(choose.sample(['k', 'j'], 1))}")
        inside = "\n".join(lines)
        return f'path "{path}" {{\n{inside}\n}}'


def capabilities(client: Client, root: str, token: str, paths: list[str]) -> Any:
    asked = {"token": token, "paths": paths}
    return client.ask("POST", "sys/capabilities", root, json=asked).json()["data"]


@pytest.mark.parametrize("seed", range(3))
def test_policies_decide_alike(both: Both, seed: int) -> None:
    if not seed:
        both.mount("mounts/beside", type="kv")
    made, names = Policies(seed), ["beside-0", "beside-1"]
    for _ in range(12):
        texts = {name: made.text() for name in names}
        for name, text in texts.items():
            check_alike(both.ask("POST", f"sys/policies/acl/{name}", {"policy": text}), text)
        wanted = {"policies": names, "no_default_policy": True}
        made_for = both.ask("POST", "auth/token/create", wanted)
        ours, theirs = (each.json()["auth"]["client_token"] for each in made_for)
        paths = [made.path() for _ in range(8)]
        assert capabilities(both.ours, ROOT, ours, paths) == capabilities(
            both.theirs, TOKEN, theirs, paths
        ), texts
        for _ in range(6):
            method, path, body = made.request()
            there = len(path) % 2
            both.ask("POST" if there else "DELETE", path, {"was": "there"} if there else None)
            answers = both.ask(method, path, body, (ours, theirs))
            check_alike(answers, (method, path, body, there, texts))


def versioned(choose: random.Random, mount: str) -> Request:
    """Returns a request to a mount of KV version 2."""
    path, versions = choose.choice(["a", "b", "d/x", "d/y"]), [1, 2, 3, 4, 5, 12]
    documents = [{"k": 1}, {"k": {"n": 2, "m": [1, 2]}}, {"a": None, "b": "x"}, {}, {"z": 1.5}]
    data = {"data": choose.choice(documents)}
    written = {
        **data,
        **choose.choice([{}, {"options": {}}, {"options": {"cas": choose.randrange(4)}}]),
    }
    some = {"versions": [choose.choice(versions) for _ in range(2)]}
    settings = choose.choice(
        [
            {"max_versions": choose.choice([0, 2, 3, 5])},
            {"cas_required": choose.choice([True, False])},
            {"custom_metadata": {"x": "y"}},
            {"delete_version_after": choose.choice(["0s", "1h"])},
        ]
    )
    return choose.choice(
        [
            *[("POST", f"{mount}/data/{path}", written)] * 5,
            *[("PATCH", f"{mount}/data/{path}", written)] * 2,
            *[("GET", f"{mount}/data/{path}?version={choose.choice([0, 1, 3, 99])}", None)] * 3,
            ("DELETE", f"{mount}/data/{path}", None),
            ("POST", f"{mount}/delete/{path}", some),
            ("POST", f"{mount}/undelete/{path}", some),
            ("POST", f"{mount}/destroy/{path}", some),
            ("GET", f"{mount}/metadata/{path}", None),
            ("DELETE", f"{mount}/metadata/{path}", None),
            ("POST", f"{mount}/metadata/{path}", settings),
            ("PATCH", f"{mount}/metadata/{path}", settings),
            ("LIST", f"{mount}/metadata/{choose.choice(['', 'd', 'd/', 'none'])}", None),
            ("GET", f"{mount}/subkeys/{path}?depth={choose.choice([0, 1])}", None),
            ("POST", f"{mount}/config", {"max_versions": choose.choice([0, 3, 10])}),
            ("POST", f"{mount}/config", {"delete_version_after": choose.choice(["0s", "2h"])}),
            ("GET", f"{mount}/config", None),
        ]
    )


def unversioned(choose: random.Random, mount: str) -> Request:
    """Returns a request to a mount of KV version 1."""
    path = choose.choice(["a", "b", "d/x", "d/y", "d"])
    document = choose.choice([{"k": 1}, {"ttl": "1h", "a": 1}, {}, {"a": {"b": [1]}}])
    folder = choose.choice(["", "d", "d/", "a"])
    return choose.choice(
        [
            ("POST", f"{mount}/{path}", document),
            ("GET", f"{mount}/{path}", None),
            ("DELETE", f"{mount}/{path}", None),
            ("LIST", f"{mount}/{folder}", None),
        ]
    )


@pytest.mark.parametrize(
    ("version", "requests"), [("1", unversioned), ("2", versioned)], ids=["v1", "v2"]
)
@pytest.mark.parametrize("seed", range(2))
def test_kv_answers_alike(
    both: Both, version: str, requests: Callable[[random.Random, str], Request], seed: int
) -> None:
    choose, mount = random.Random(seed), f"beside-{version}-{seed}"
    both.mount(f"mounts/{mount}", type="kv", options={"version": version})
    until(lambda: both.theirs.ask("POST", f"{mount}/data/first", TOKEN, json={"data": {}}).ok)
    both.ours.ask("POST", f"{mount}/data/first", ROOT, json={"data": {}})
    for step in range(150):
        request = requests(choose, mount)
        check_alike(both.ask(*request), (step, request))


_SPANS = [0, 60, "60", "1h", "90m", "1d", "1h30m", "", "abc", -5, "5 s", [], None]
_COUNTS = [0, 1, "5", "", "abc", "1h", [], {"a": 1}]
_FLAGS = [True, False, "true", "0", 1, 0, "", "abc", [], None]
_RANGES = ["10.0.0.0/8", ["10.0.0.0/8", "192.168.0.0/16"], "", [], "abc"]
_POLICIES = ["a", "a,b", ["a", "b"], " a , b ", "", [], ["default"], 5]
_HASH = "$2b$05$abcdefghijklmnopqrstuuVO0bGmbmwlwRTVOJrJVLbrLXlh1nhqm"  # of nothing: it costs less than a password
_TOKENS: dict[str, list[Any]] = {
    "token_ttl": _SPANS,
    "token_max_ttl": _SPANS,
    "token_explicit_max_ttl": _SPANS,
    "token_period": _SPANS,
    "token_num_uses": _COUNTS,
    "token_no_default_policy": _FLAGS,
    "token_bound_cidrs": _RANGES,
    "token_policies": _POLICIES,
    "policies": _POLICIES,
}


@pytest.mark.parametrize(
    ("path", "also", "fields"),
    [
        (
            "auth/beside-users/users/u",
            {"password_hash": _HASH},
            {**_TOKENS, "ttl": _SPANS, "max_ttl": _SPANS},
        ),
        (
            "auth/beside-roles/role/r",
            {},
            {
                **_TOKENS,
                "period": [60, "1h"],
                "secret_id_ttl": _SPANS,
                "secret_id_num_uses": _COUNTS,
            },
        ),
        (
            "auth/token/roles/beside",
            {},
            {
                "allowed_policies": _POLICIES,
                "disallowed_policies": _POLICIES,
                "allowed_policies_glob": ["a*", ["*b", "c"], "", []],
                "orphan": _FLAGS,
                "token_period": _SPANS,
                "period": _SPANS,
                "explicit_max_ttl": _SPANS,
                "token_num_uses": _COUNTS,
            },
        ),
        (
            "beside-settings/metadata/a",
            {},
            {"max_versions": _COUNTS, "delete_version_after": _SPANS},
        ),
    ],
    ids=["userpass", "approle", "token roles", "kv metadata"],
)
def test_settings_are_read_alike(
    both: Both, path: str, also: Mapping[str, Any], fields: Mapping[str, list[Any]]
) -> None:
    both.ask("POST", "sys/auth/beside-users", {"type": "userpass"})
    both.ask("POST", "sys/auth/beside-roles", {"type": "approle"})
    both.ask("POST", "sys/mounts/beside-settings", {"type": "kv", "options": {"version": "2"}})
    until(lambda: both.theirs.ask("GET", "beside-settings/config", TOKEN).ok)
    for field, values in fields.items():
        for value in values:
            both.ask("DELETE", path)
            given = {**also, field: value}
            check_alike(both.ask("POST", path, given), (path, given))
            check_alike(both.ask("GET", path), (path, given))
