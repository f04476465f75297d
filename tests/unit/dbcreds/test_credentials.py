"""Names, passwords, keys and certificates."""

import datetime
import hashlib
import json
import string
from collections import Counter

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.dbcreds.harness import Dbcreds, refused

from strongroom_dbcreds.domain import keys, passwords, usernames
from strongroom_dbcreds.domain.usernames import Known
from strongroom_runtime.errors import Kind, ServiceError

KNOWN = Known("token-with-a-long-name", "my.Role", 1_700_000_000.25)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{.RoleName}}-{{ .DisplayName }}", "my.Role-token-with-a-long-name"),
        ('{{ .RoleName | uppercase | replace `.` "-" }}', "MY-ROLE"),
        ("{{truncate 3 .DisplayName}}{{unix_time}}", "tok1700000000"),
        ("{{unix_time_millis}}", "1700000000250"),
        ('{{timestamp "2006-01-02T15:04:05Z"}}', "2023-11-14T22:13:20Z"),
        ('{{timestamp "Mon Jan _2"}}', "Tue Nov 14"),
        ("{{.RoleName | sha256 | truncate 8}}", hashlib.sha256(b"my.Role").hexdigest()[:8]),
        ('{{printf "%s_%d%%" (lowercase .RoleName) 7}}', "my.role_7%"),
        ("{{.RoleName | base64}}", "bXkuUm9sZQ=="),
        ("a {{- .RoleName -}} b", "amy.Roleb"),
        ('{{ "}}" }}', "}}"),
    ],
)
def test_names_are_made_as_go_makes_them(template: str, name: str) -> None:
    assert usernames.render(template, KNOWN) == name


def test_names_are_cut_off_with_a_hash() -> None:
    made = usernames.render("{{.DisplayName | truncate_sha256 12}}", KNOWN)
    assert made[:4] == "toke" and len(made) == 12
    assert usernames.render("{{.DisplayName | truncate_sha256 100}}", KNOWN) == KNOWN.display_name


@pytest.mark.parametrize(
    ("kind", "beginning", "longest"),
    [
        ("postgresql", "v-token-wi-my.Role-", 63),
        ("mysql", "v-token-with-my.Role-", 32),
        ("mysql-legacy", "v-my.R-", 16),
        ("mongodb", "v-token-with-a-lo-my-Role-", 100),
        ("valkey", "V_TOKEN-WITH-A-LO_MY.ROLE_", 64),
    ],
)
def test_usual_names_are_vaults(kind: str, beginning: str, longest: int) -> None:
    first, second = (usernames.render(usernames.DEFAULTS[kind], KNOWN) for _ in range(2))
    assert first.startswith(beginning) and len(first) <= longest
    assert first != second


@pytest.mark.parametrize(
    "template",
    [
        "", "{{", "{{.RoleName", "{{.Other}}", "{{none}}", "{{random}}", '{{random "x"}}', "{{random 0}}",
        "{{.RoleName | truncate}}", "{{.RoleName | truncate 0}}", "{{.RoleName | truncate_sha256 8}}",
        '{{printf "%s"}}', '{{printf "%x" 1}}', '{{printf "" 1}}', '{{.RoleName | "x"}}', "{{(.RoleName}}",
        "{{range .RoleName}}", "{{$x := 1}}", "{{random 100000}}", '{{"\\n"}}', "x" * 20_000,
        "{{" + "(" * 2_000 + "}}",
    ],
)  # fmt: skip
def test_templates_that_are_wrong_are_refused(template: str) -> None:
    with pytest.raises(ServiceError) as caught:
        usernames.render(template, KNOWN)
    assert caught.value.kind is Kind.INVALID
    assert "username_template" in caught.value.message


@given(st.text(max_size=60))
def test_any_text_gives_a_name_or_a_clear_error(text: str) -> None:
    for template in (text, "{{" + text + "}}"):
        try:
            assert usernames.render(template, KNOWN)
        except ServiceError as error:
            assert error.kind is Kind.INVALID


def test_the_usual_password_has_every_kind_of_character() -> None:
    for _ in range(200):
        made = passwords.generate(passwords.USUAL)
        assert len(made) == 20 and made.isascii()
        for charset in (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-"):
            assert set(made) & set(charset)


def test_policies_in_every_form() -> None:
    text = 'length = 8\nrule "charset" {\n charset = "ab"\n min-chars = 2\n}\nrule "charset" { charset = "12" }'
    listed = {
        "length": 8,
        "rule": [{"charset": {"charset": "ab", "min-chars": 2}}, {"charset": {"charset": "12"}}],
    }
    nested = {
        "length": 8,
        "rule": {"charset": [{"charset": "ab", "min-chars": 2}, {"charset": "12"}]},
    }
    expected = passwords.Policy(8, (passwords.Rule("ab", 2), passwords.Rule("12")))
    for each in (text, json.dumps(listed), json.dumps(nested)):
        assert passwords.parse(each) == expected
    for _ in range(200):
        made = passwords.generate(expected)
        assert len(made) == 8 and sum(c in "ab" for c in made) >= 2 and set(made) <= set("ab12")


def test_a_policy_may_have_letters_of_any_script() -> None:
    policy = passwords.parse('length=20 rule "charset" { charset="ü木" min-chars=20 }')
    assert set(passwords.generate(policy)) <= {"ü", "木"}


def test_a_password_whose_rules_chance_would_hardly_meet() -> None:
    policy = passwords.parse(
        'length = 100 rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" min-chars = 1 }'
        ' rule "charset" { charset = "0" min-chars = 98 }'
    )
    made = passwords.generate(policy)
    assert len(made) == 100 and made.count("0") in (98, 99)


def test_each_character_is_as_likely_as_any_other() -> None:
    policy = passwords.parse(
        'length = 100 rule "charset" { charset = "aab" } rule "charset" { charset = "bc" }'
    )
    counts = Counter("".join(passwords.generate(policy) for _ in range(300)))
    assert set(counts) == set("abc")
    assert all(9_300 < count < 10_700 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "length"),
        ("length = 20", "rule"),
        ('length = 3 rule "charset" { charset = "ab" }', "length"),
        ('length = 101 rule "charset" { charset = "ab" }', "length"),
        ('length = "x" rule "charset" { charset = "ab" }', "length"),
        ('length = 10 rule "charset" { charset = "" }', "charset"),
        ('length = 10 rule "charset" { charset = "ab" min-chars = 11 }', "more characters"),
        ('length = 10 rule "charset" { charset = "ab" min-chars = -1 }', "min-chars"),
        ('length = 10 rule "charset" { other = 1 }', "min-chars"),
        ('length = 10 rule "other" { charset = "ab" }', "charset"),
        ('length = 10 lenght = 5 rule "charset" { charset = "ab" }', "unknown"),
        ('length = 10 rule = "x"', "charset"),
        ("length = {", "line 1"),
    ],
)
def test_policies_that_are_wrong_are_refused(text: str, message: str) -> None:
    with pytest.raises(ServiceError) as caught:
        passwords.parse(text)
    assert caught.value.kind is Kind.INVALID
    assert message in caught.value.message


def test_rsa_keys() -> None:
    assert keys.check_rsa({}) == 2048
    private = keys.rsa_key(keys.check_rsa({"key_bits": "2048", "format": "pkcs8"}))
    public = load_pem_public_key(keys.rsa_public(private).encode())
    assert load_pem_private_key(private.encode(), None).public_key() == public
    for config in ({"key_bits": "1024"}, {"format": "pkcs1"}, {"other": "x"}):
        with pytest.raises(ServiceError):
            keys.check_rsa(config)


def authority(*, ca: bool = True) -> tuple[str, str, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return made.public_bytes(Encoding.PEM).decode(), pem, made


@pytest.mark.parametrize("key_type", ["rsa", "ec", "ed25519"])
async def test_client_certificates(key_type: str) -> None:
    certificate, key, ca = authority()
    config = {
        "ca_cert": certificate, "ca_private_key": key, "key_type": key_type,
        "common_name_template": "{{.RoleName}}_{{.DisplayName}}",
    }  # fmt: skip
    dbcreds = await Dbcreds().furnish(
        credential_type="client_certificate", credential_config=config
    )
    made = await dbcreds.creds()
    issued = x509.load_pem_x509_certificate(made.client_certificate.encode())
    issued.verify_directly_issued_by(ca)
    private = load_pem_private_key(made.private_key.encode(), None)
    assert private.public_key() == issued.public_key()
    assert made.private_key_type == key_type
    assert issued.subject.rfc4514_string() == "CN=app_token"
    assert dbcreds.database.users[made.username].credential.subject == "CN=app_token"  # type: ignore[union-attr]
    assert not made.HasField("password")
    shown = await dbcreds("ReadRole", name="app")
    assert "ca_private_key" not in shown.credential_config


async def test_a_certificate_is_in_the_users_name_where_nothing_else_is_said() -> None:
    certificate, key, _ = authority()
    config = {"ca_cert": certificate, "ca_private_key": key, "key_type": "ec"}
    dbcreds = await Dbcreds().furnish(
        credential_type="client_certificate", credential_config=config
    )
    made = await dbcreds.creds()
    issued = x509.load_pem_x509_certificate(made.client_certificate.encode())
    assert issued.subject.rfc4514_string() == f"CN={made.username}"
    assert dbcreds.database.users[made.username].credential.common_name == made.username  # type: ignore[union-attr]


async def test_certificates_that_cannot_be_made_are_named() -> None:
    certificate, key, _ = authority()
    usual = {
        "ca_cert": certificate, "ca_private_key": key, "key_type": "ec", "common_name_template": "{{.RoleName}}",
    }  # fmt: skip
    dbcreds = await Dbcreds().furnish()
    for change, field in (
        ({"ca_cert": ""}, "ca_cert"),
        ({"ca_cert": "x"}, "ca_cert"),
        ({"ca_cert": authority(ca=False)[0]}, "ca_cert"),
        ({"ca_private_key": authority()[1]}, "ca_private_key"),
        ({"key_type": "dsa"}, "key_type"),
        ({"key_bits": "100"}, "key_bits"),
        ({"signature_bits": "1"}, "signature_bits"),
        ({"common_name_template": "{{none}}"}, "template"),
        ({"none": "x"}, "unknown"),
    ):
        role = dbcreds.role(
            "x", credential_type="client_certificate", credential_config=usual | change
        )
        await refused(role, Kind.INVALID, field)


async def test_keys_and_policies_of_dynamic_users() -> None:
    dbcreds = await Dbcreds().furnish(credential_type="rsa_private_key")
    made = await dbcreds.creds()
    told = dbcreds.database.users[made.username].credential
    assert told.public_key == keys.rsa_public(made.rsa_private_key)  # type: ignore[union-attr]
    await dbcreds.role("plain")
    policy = 'length = 30 rule "charset" { charset = "xy" }'
    await dbcreds("WritePasswordPolicy", name="xy", policy=policy)
    await dbcreds(
        "WriteConnection",
        name="db",
        password_policy="xy",
        details={"username_template": "u-{{random 9}}"},
    )
    made = await dbcreds.creds("plain")
    assert set(made.password) <= {"x", "y"} and len(made.password) == 30
    assert made.username.startswith("u-") and len(made.username) == 11
    await refused(
        dbcreds("WriteConnection", name="db", details={"username_template": "{{"}),
        Kind.INVALID,
        "username_template",
    )
