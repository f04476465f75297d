"""The policy language."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.policy import PolicyError, hcl, parse_policy

HCL = """
# a comment
name = "ignored"
path "/secret/data/*" {  // another
  capabilities = ["read", "list",]
  allowed_parameters = {
    "*" = []
    ttl = ["1h", 5, true]
  }
  min_wrapping_ttl = "1h30m"
  required_parameters = ["A"]
  pagination_limit = 10
}
/* and
   another */
path "old" { policy = "write" }
path "text" { capabilities = ["read"] comment = <<EOT
  "anything" { at all
EOT
}
"""
JSON = """{"path": {
  "secret/data/*": {"capabilities": ["read", "list"], "allowed_parameters": {"*": [], "ttl": ["1h", 5, true]},
    "min_wrapping_ttl": "1h30m", "required_parameters": ["A"], "pagination_limit": 10},
  "old": {"policy": "write"}, "text": {"capabilities": ["read"]}}}"""


@pytest.mark.parametrize("text", [HCL, JSON])
def test_both_forms_say_the_same(text: str) -> None:
    secret, old, plain = parse_policy("p", text).rules
    assert secret.path == "secret/data/*"
    assert secret.capabilities == {"read", "list"}
    assert secret.allowed_parameters == {"*": (), "ttl": ("1h", 5, True)}
    assert (secret.min_wrapping_ttl, secret.pagination_limit) == (5400, 10)
    assert secret.required_parameters == {"a"}
    assert old.capabilities == {"create", "read", "update", "delete", "list"}
    assert plain.path == "text"


def test_two_blocks_for_one_path_are_both_kept() -> None:
    text = 'path "a" { capabilities = ["read"] } path "a" { capabilities = ["deny"] }'
    assert [sorted(r.capabilities) for r in parse_policy("p", text).rules] == [["read"], ["deny"]]


def test_a_path_that_comes_twice_in_json_is_kept_twice() -> None:
    for text in (
        '{"path": {"a": {"capabilities": ["deny"]}, "a": {"capabilities": ["read"]}}}',
        '{"path": {"a": [{"capabilities": ["deny"]}, {"capabilities": ["read"]}]}}',
        '{"path": [{"a": {"capabilities": ["deny"]}}, {"a": {"capabilities": ["read"]}}]}',
        '{"path": {"a": {"capabilities": ["deny"]}}, "path": {"a": {"capabilities": ["read"]}}}',
    ):
        rules = parse_policy("p", text).rules
        assert [sorted(r.capabilities) for r in rules] == [["deny"], ["read"]], text


@pytest.mark.parametrize(
    ("least", "most", "seconds"),
    [
        ("0", "0", (0, 0)),
        ("500ms", "500ms", (1, 1)),  # not none
        ("1.2s", "3.8s", (2, 3)),
        ("1d", "2d12h", (86_400, 216_000)),
    ],
)
def test_wrapping_bounds_never_come_to_none(
    least: str, most: str, seconds: tuple[int, int]
) -> None:
    text = f'path "a" {{ min_wrapping_ttl = "{least}" max_wrapping_ttl = "{most}" }}'
    (rule,) = parse_policy("p", text).rules
    assert (rule.min_wrapping_ttl, rule.max_wrapping_ttl) == seconds


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.booleans())
def test_json_is_read_as_it_was_meant(document: dict[str, object], ascii_only: bool) -> None:
    def plain(value: object) -> object:
        if isinstance(value, hcl.Body):
            return {item.key: plain(item.value) for item in value}
        return [plain(each) for each in value] if isinstance(value, list) else value

    assert plain(hcl.parse(json.dumps(document, ensure_ascii=ascii_only))) == document


@given(st.text())
def test_a_text_comes_back_as_it_was_quoted(text: str) -> None:
    quoted = json.dumps(text).replace("\\u007f", "\x7f")
    (item,) = hcl.parse(f"k = {quoted} // {text.splitlines()[0] if text.splitlines() else ''}\n")
    assert item.value == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ('"2030-01-01T00:00:00Z"', 1893456000),
        ('"2030-01-01T00:00:00.5+02:00"', 1893448800.5),
        ('"2030-01-01T00:00:00,25-00:00"', 1893456000.25),
        ('"1893456000"', 1893456000),
        ("1893456000", 1893456000),
        ('"2020-01-01T00:00:00Z"', 1577836800),
        ("0", 0),
        ("-5", -5),
        ('"9999-12-31T23:59:59Z"', 253402300799),
        ('""', math.inf),
    ],
)
def test_a_path_may_end(value: str, seconds: float) -> None:
    (rule,) = parse_policy("p", f'path "a" {{ expiration = {value} }}').rules
    assert rule.expires == seconds
    (rule,) = parse_policy("p", f'{{"path": {{"a": {{"expiration": {value}}}}}}}').rules
    assert rule.expires == seconds


@pytest.mark.parametrize(
    "value",
    [
        '"tomorrow"',
        '"1h"',
        '"2030-01-01"',
        '"2030-01-01T00:00:00"',
        '"2030-01-01 00:00:00Z"',
        '" 2030-01-01T00:00:00Z"',
        '"20300101T000000Z"',
        '"2030-02-30T00:00:00Z"',
        '"2030-01-01T24:00:00Z"',
        '"2030-01-01T00:00:00+24:00"',
        '"0000-01-01T00:00:00Z"',
        '"10000-01-01T00:00:00Z"',
        '"253402300800"',
        '"9223372036854775807"',
        "9223372036854775807",
        '"1893456000.5"',
        "1.5",
        '"1_0"',
        '"٣"',
        "true",
        "null",
        "[]",
        '["2030-01-01T00:00:00Z"]',
        "{}",
    ],
)
def test_an_end_must_be_a_time(value: str) -> None:
    where = 'line 2: path "a": expiration takes '
    with pytest.raises(PolicyError, match=f"{where}(RFC 3339, such as 2030|a text)"):
        parse_policy("p", f'path "a" {{\n expiration = {value} }}')


def test_an_empty_policy_has_no_rules() -> None:
    assert parse_policy("p", "  # nothing\n").rules == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path "a" { capabilities = ["fly"] }', "unknown capability fly; known: create"),
        ('path "a" { capability = ["read"] }', "unknown key capability; known: allowed_parameters"),
        ('path "a" { capabilities = "read" }', "capabilities takes a list of texts"),
        ('paths "a" { }', "line 1: unknown key paths"),
        ('path "a" "b" { }', "unknown key path"),
        ('path "a/+*" { capabilities = ["read"] }', "is forbidden"),
        ('path "a*b" { capabilities = ["read"] }', r"\* may stand at the end only"),
        ('path "a" {\n capabilities = ["read"\n "list"] }', "line 3: expected , or ]"),
        ('path "a" { capabilities = ["read"]', "line 1: the text ends too early"),
        ('path "a" { comment = "\\q" }', "unknown escape"),
        ('path "a" { comment = "\\ud800" }', "names no character"),
        ('path "a" { comment = <<X\nno end }', "heredoc is not closed by X"),
        ('path "a" { policy = "admin" }', "policy must be one of deny, read, write, sudo"),
        ('path "a" { policy = "read" policy = "read" }', "policy is given twice"),
        ('path "a" { min_wrapping_ttl = "soon" }', "takes seconds or a duration"),
        (
            'path "a" { expiration = "1" expiration = "2" }',
            'line 1: path "a": expiration is given twice',
        ),
        ('path "a" { min_wrapping_ttl = 9 max_wrapping_ttl = 1 }', "less than min_wrapping_ttl"),
        ('path "a" { pagination_limit = -1 }', "a whole number from 0 to 2147483647"),
        ('path "a" { allowed_parameters = { x = 1 } }', "x takes a list"),
        ('{"path": ', "line 1: the text ends too early"),
        ('{"path": {}} x', "line 1: nothing may follow"),
        ('{"path": {"a": {\n"capability": 1}}}', 'line 2: path "a": unknown key capability'),
        ('{"path": {"a": {"policy": "read"}}, "x": 1}', "unknown key x"),
        (
            'path "a" {\n\n capability = ["read"] }',
            'line 3: path "a": unknown key capability; known',
        ),
        ('path "a" { capabilities = ["a" "]"] }', "expected , or ]"),
        ('path "a" { capabilities = {} }', "capabilities takes a list of texts"),
        ('path "a" { capabilities = [read] }', "a value, found read without quotes"),
        ('path "a" { allowed_parameters = [] }', "takes an object of lists"),
        ('path "a" { allowed_parameters = { x = {} } }', "x takes a list"),
        (
            'path "a" { allowed_parameters "b" { x = [] } }',
            "expected = or { after allowed_parameters",
        ),
        ('path { "a" "b" {} }', "expected = or { after a"),
        ('path "a" { capabilities = ["read"] mfa_methods = ["x"] }', "unknown key mfa_methods"),
        ('path "a/{{identity.entity.id}" {}', "double braces must stand around a name"),
        ('path "a/{{}}" {}', "double braces must stand around a name"),
        ('path "a/}}{{" {}', "double braces must stand around a name"),
        ('path "a" { pagination_limit = ' + "9" * 5000 + " }", "a number may have 32 characters"),
        ('path "a" { max_wrapping_ttl = "' + "9" * 5000 + '" }', "takes seconds or a duration"),
        ('path "a" { max_wrapping_ttl = "' + "9" * 90 + '" }', "292 years"),
        ('path "a" { max_wrapping_ttl = 1e30 }', "292 years"),
        ('path "a" { max_wrapping_ttl = true }', "takes seconds or a duration"),
        ('path "a" { max_wrapping_ttl = "1m30" }', "takes seconds or a duration"),
        ('path "a', "not closed by a quote"),
        ("/* path", r"the comment is not closed by \*/"),
        ('path "' + "a" * 500 + '*b" {}', 'path "' + "a" * 60 + '…": '),
        ('{"path": [1]}', "needs a block"),
        ("path = 1", "needs a block"),
        ("x = " + "[" * 50, "nested deeper"),
        ("{" + '"path":{' * 200 + "}" * 201, "nested deeper"),
        ("#" * (1 << 20) + "#", "at most 1048576 bytes"),
        ("\x00", "line 1: unexpected character"),
    ],
)
def test_an_error_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy("p", text)


@given(st.text(alphabet='path "a{}[]=,:<>\\\n#/*1.-trueX', max_size=80))
def test_no_text_does_anything_but_parse_or_explain(text: str) -> None:
    try:
        parse_policy("p", text)
    except PolicyError as error:
        assert str(error)
