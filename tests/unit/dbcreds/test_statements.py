"""Values never become part of a statement."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from strongroom_dbcreds.domain.statements import MYSQL, ORACLE, fill, split, texts
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


def test_a_statement_of_one_word_may_have_letters_of_any_script() -> None:
    assert texts(["~ü木:*"]) == ["~ü木:*"]


def test_statements_come_in_every_form() -> None:
    both = ["CREATE ROLE x;", "GRANT a, b"]
    listed = json.dumps(both)
    assert texts(both) == both
    assert texts([listed]) == both
    assert texts([base64.b64encode(listed.encode()).decode()]) == both
    assert texts([base64.b64encode(both[0].encode()).decode()]) == both[:1]
    assert texts(["", " "]) == []
    assert texts(["[not json"]) == ["[not json"]


@pytest.mark.parametrize(
    ("statement", "filled"),
    [
        ("SELECT date'2030-01-01\\', {{name}}", "SELECT date'2030-01-01\\', \"n'\""),
        ("DO $x$ BEGIN EXECUTE '{{name}}'; END $x$", "DO $x$ BEGIN EXECUTE 'n'''; END $x$"),
        ("DO $x$ it's $x$; DROP ROLE '{{name}}'", "DO $x$ it's $x$; DROP ROLE 'n'''"),
        ("/* a /* ' */ b */ '{{name}}' /* {{name}} */", "/* a /* ' */ b */ 'n''' /*  */"),
        ("SELECT $1, a$$b, '{{name}}'", "SELECT $1, a$$b, 'n'''"),
    ],
)
def test_postgresql_is_read_by_its_rules(statement: str, filled: str) -> None:
    assert fill(statement, {"name": "n'"}) == filled


@pytest.mark.parametrize(
    ("statement", "filled"),
    [
        (
            "CREATE USER '{{name}}'@'%' IDENTIFIED BY \"{{password}}\"; GRANT SELECT ON *.* TO '{{name}}'@'%';",
            ["CREATE USER 'a\\\\''b'@'%' IDENTIFIED BY \"\"\"\\\\\"", "GRANT SELECT ON *.* TO 'a\\\\''b'@'%'"],
        ),
        ("# it's; {{name}}\nSELECT `{{name}};`; SELECT 1", ["# it's; \nSELECT `a\\'b;`", "SELECT 1"]),
        ("SELECT 'it\\'s; {{name}}'", ["SELECT 'it\\'s; a\\\\''b'"]),
        ("SELECT 1--2; -- ;\n SELECT 2", ["SELECT 1--2", "-- ;\n SELECT 2"]),
        ("DROP USER {{name}}", ["DROP USER 'a\\\\''b'"]),
    ],
)  # fmt: skip
def test_mysql_is_read_and_split_by_its_rules(statement: str, filled: list[str]) -> None:
    assert split(statement, {"name": "a\\'b", "password": '"\\'}, MYSQL) == filled


def test_places_in_which_nothing_can_be_quoted_are_refused() -> None:
    for statement in ("U&'{{name}}'", 'u&"{{name}}"', "$a$ '{{name}}' $a$"):
        with pytest.raises(ServiceError):
            fill(statement, {"name": "$"})
    assert fill("menu&'{{name}}'", {"name": "x"}) == "menu&'x'"


def test_oracle_quotes_names_and_passwords_alike() -> None:
    hostile = "a; DROP USER x; --'\\ :n"
    values = {"name": hostile, "password": hostile, "expiration": "2030-01-01"}
    creation = """CREATE USER {{username}} IDENTIFIED BY {{password}}; -- it's {{password}}
        GRANT CREATE SESSION TO "{{name}}"; COMMENT ON TABLE t IS 'a "{{name}}"; b'"""
    assert split(creation, values, ORACLE) == [
        f'CREATE USER "{hostile}" IDENTIFIED BY "{hostile}"',
        f"""-- it's 
        GRANT CREATE SESSION TO "{hostile}\"""",
        """COMMENT ON TABLE t IS 'a "{}"; b'""".format(hostile.replace("'", "''")),
    ]


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("DROP USER {{name}}", 'a"b'),
        ('IDENTIFIED BY "{{password}}"', 'a" ACCOUNT UNLOCK --'),
        ("x q'[it's {{name}}]'", "x"),
        ("x nq'[it's]' {{name}}", "x"),
        ('"{{name}}"', "x\0"),
    ],
)
def test_what_oracle_cannot_quote_is_refused(statement: str, value: str) -> None:
    with pytest.raises(ServiceError):
        split(statement, {"name": value, "password": value}, ORACLE)


def test_quotations_of_oracle_hold_no_placeholders_open() -> None:
    assert split("x'q' || seq'q' {{name}}", {"name": "n"}, ORACLE) == ["x'q' || seq'q' \"n\""]
