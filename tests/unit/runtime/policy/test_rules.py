"""The policy language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.policy import PolicyError, parse_policy

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
        ('path "a" { min_wrapping_ttl = 9 max_wrapping_ttl = 1 }', "less than min_wrapping_ttl"),
        ('path "a" { pagination_limit = -1 }', "not negative"),
        ('path "a" { allowed_parameters = { x = 1 } }', "x takes a list"),
        ('{"path": ', "begins like JSON"),
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
