"""Values never become part of a statement."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from strongroom_dbcreds.domain.statements import fill, texts
from strongroom_runtime.errors import ServiceError

HOSTILE = """a"; DROP TABLE x; --'\\ """


def test_a_value_is_quoted_as_its_place_demands() -> None:
    values = {"name": HOSTILE, "password": HOSTILE, "expiration": "2030-01-01"}
    double, single = HOSTILE.replace('"', '""'), HOSTILE.replace("'", "''")
    assert fill('CREATE ROLE "{{name}}"', values) == f'CREATE ROLE "{double}"'
    assert fill('CREATE ROLE "x {{ username }}"', values) == f'CREATE ROLE "x {double}"'
    assert fill("PASSWORD '{{password}}'", values) == f"PASSWORD '{single}'"
    escaped = single.replace("\\", "\\\\")
    assert fill("PASSWORD E'\\' {{password}}' x", values) == f"PASSWORD E'\\' {escaped}' x"
    assert fill("DROP ROLE {{name}}", values) == f'DROP ROLE "{double}"'
    assert fill("PASSWORD {{password}}", values) == f"PASSWORD '{single}'"
    assert fill("x 'it''s some' {{name}}", values) == f"x 'it''s some' \"{double}\""
    assert fill("-- it's {{nothing}}\nDROP ROLE {{name}}", values).endswith(f'ROLE "{double}"')


def test_a_quoted_name_can_stand_in_a_text() -> None:
    assert fill("DO 'DROP ROLE {{name}}'", {"name": "it's"}) == "DO 'DROP ROLE it''s'"


@given(
    st.text(st.characters(exclude_characters="\0", codec="utf-8")).filter(lambda t: "$$" not in t)
)
def test_quoting_is_psycopgs(value: str) -> None:
    values = {"name": value, "password": value}
    assert fill('"{{name}}"', values) == sql.Identifier(value).as_string()
    literal = fill("'{{password}}'", values)
    assert "'" not in literal[1:-1].replace("''", "")
    assert literal[1:-1].replace("''", "'") == value


def test_what_cannot_be_quoted_is_refused() -> None:
    for statement, values in (
        ("{{unknown}}", {"name": "x"}),
        ("'{{password}}'", {"name": "x"}),
        ('"{{name}}"', {"name": "x\0"}),
        ('DO $$ "{{name}}" $$', {"name": "x$$"}),
    ):
        with pytest.raises(ServiceError):
            fill(statement, values)


def test_statements_come_in_every_form() -> None:
    both = ["CREATE ROLE x;", "GRANT a, b"]
    listed = json.dumps(both)
    assert texts(both) == both
    assert texts([listed]) == both
    assert texts([base64.b64encode(listed.encode()).decode()]) == both
    assert texts([base64.b64encode(both[0].encode()).decode()]) == both[:1]
    assert texts(["", " "]) == []
    assert texts(["[not json"]) == ["[not json"]
