"""JSON to messages and back, with the contracts as they are."""

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.auth.v1 import approle_pb2, login_pb2, policy_pb2, token_pb2, userpass_pb2
from strongroom.kv.v1 import kv1_pb2, kv2_pb2
from strongroom.seal.v1 import seal_pb2
from strongroom.sys.v1 import mounts_pb2
from strongroom.transit.v1 import cipher_pb2
from strongroom_gateway.contract.bodies import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_FORM,
    _depth,
    _is_flat,
    form_as_json,
    parameters_of,
    parse_body,
)
from strongroom_gateway.contract.decode import RequestPlan
from strongroom_gateway.contract.encode import Encoded, ResponsePlan
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.timestamps import timestamp


def decode(
    message: Any, body: bytes | str = b"", query: Any = None, captures: Any = None
) -> tuple[Any, list[str]]:
    body = body.encode() if isinstance(body, str) else body
    plan = RequestPlan(message.DESCRIPTOR)
    return plan.decode(body, parse_body(body), query or {}, captures or {})


def encode(message: Any) -> Encoded:
    return ResponsePlan(message.DESCRIPTOR).encode(message)


def shown(message: Any) -> Any:
    return json.loads(msgspec.json.encode(encode(message).data))


def test_a_document_keeps_every_byte() -> None:
    document = '{ "n": 18446744073709551617, "f": 1.0e400,"u":"\\u00fc" }'
    body = f'{{"data": {document}, "options": {{"cas": "3"}}}}'
    message, unknown = decode(kv2_pb2.WriteSecretRequest, body, captures={"path": "a/b"})
    assert message.data == document.encode()
    assert (message.path, message.options.cas, unknown) == ("a/b", 3, [])


@pytest.mark.parametrize(
    ("given", "seconds"), [('"1h"', 3600), ("60", 60), ('"0"', 0), ('"system"', 0), ('""', None)]
)
def test_a_span_may_be_the_systems_or_stay_as_it_is(given: str, seconds: int | None) -> None:
    message, _ = decode(mounts_pb2.TuneMountRequest, f'{{"max_lease_ttl": {given}}}')
    found = message.config.max_lease_ttl if message.config.HasField("max_lease_ttl") else None
    assert found == seconds


def test_keys_may_be_in_capitals_where_that_is_allowed() -> None:
    body = b'{"Key": "k", "RESET": true, "Other": 1, "none": null}'
    plan = RequestPlan(seal_pb2.UnsealRequest.DESCRIPTOR, any_case=True)
    message, unknown = plan.decode(body, parse_body(body), {}, {})
    assert message == seal_pb2.UnsealRequest(key="k", reset=True)
    assert unknown == ["Other"]
    strict, unknown = decode(seal_pb2.UnsealRequest, body)
    assert (strict, unknown) == (seal_pb2.UnsealRequest(), ["Key", "RESET", "Other"])


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ('{"path": "a", "paths": ["b"]}', ["b"]),
        ('{"paths": ["b"], "path": "a"}', ["b"]),
        ('{"paths": null, "path": "a"}', ["a"]),
        ('{"path": "a"}', ["a"]),
    ],
)
def test_an_older_name_says_nothing_beside_the_newer(body: str, paths: list[str]) -> None:
    message, unknown = decode(policy_pb2.CapabilitiesRequest, body)
    assert (list(message.paths), unknown) == (paths, [])
    rules = '{"rules": "old", "policy": "new"}'
    for text in (rules, '{"policy": "new", "rules": "old"}'):
        assert decode(policy_pb2.WritePolicyOldRequest, text)[0].policy == "new"
    query = {"path": "a", "paths": "b"}
    assert list(decode(policy_pb2.CapabilitiesRequest, query=query)[0].paths) == ["b"]
    assert list(decode(policy_pb2.CapabilitiesRequest, body, query)[0].paths) == paths


@pytest.mark.parametrize(
    ("kind", "unknown"),
    [
        (token_pb2.CreateTokenRequest, "metadata"),
        (policy_pb2.WritePolicyRequest, "rules"),
        (approle_pb2.WriteRoleRequest, "bound_cidrs"),
        (userpass_pb2.WriteUserRequest, "period"),
    ],
)
def test_a_setting_has_the_names_that_openbao_knows_and_no_more(kind: Any, unknown: str) -> None:
    """A policy that denies a parameter names these: with another name the setting would get past it."""
    message, ignored = decode(kind, f'{{"{unknown}": "1"}}')
    assert (message, ignored) == (kind(), [unknown])


@pytest.mark.parametrize("name", ["lockout_counter_reset", "lockout_counter_reset_duration"])
def test_the_reset_of_a_lockout_has_vaults_name_and_that_of_its_documentation(name: str) -> None:
    body = f'{{"user_lockout_config": {{"{name}": "4s"}}}}'
    message, unknown = decode(mounts_pb2.TuneMountRequest, body)
    assert message.config.user_lockout_config.lockout_counter_reset == 4
    assert unknown == []


def test_what_the_query_gives_in_vain_is_told() -> None:
    query = {"token": "t", "bogus": "1", "other": "2"}
    message, unknown = decode(policy_pb2.CapabilitiesRequest, '{"bogus": 1}', query)
    assert (message.token, unknown) == ("t", ["bogus", "other"])


def test_a_body_may_be_one_field() -> None:
    message, unknown = decode(
        kv1_pb2.WriteValueRequest, b' {"path":"inner", "x": 1}', captures={"path": "p"}
    )
    assert (message.data, message.path, unknown) == (b' {"path":"inner", "x": 1}', "p", [])


@pytest.mark.parametrize(
    "text", ["\u00e4", "\u00e4===", "a", "aGk", "aGk==", "aGk\n", "aGk=\r", " aGk=", "a-_=", "="]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(cipher_pb2.EncryptRequest, json.dumps({"plaintext": text}))
    assert (caught.value.kind, caught.value.message) == (Kind.INVALID, "plaintext: takes base64")


@pytest.mark.parametrize("text", ["aGk=\n", "a\nGk=", "aG\r\nk=\r\n"])
def test_base64_may_have_line_ends(text: str) -> None:
    """Programs wrap it and files end with one; Vault passes over them."""
    message, _ = decode(cipher_pb2.EncryptRequest, json.dumps({"plaintext": text}))
    assert message.plaintext == b"hi"


def test_what_can_be_read_of_a_malformed_item_is() -> None:
    """Its result tells by the reference which one it was."""
    items = [{"plaintext": "%", "reference": "first", "key_version": "x"}, {"reference": "second"}]
    body = json.dumps({"batch_input": [*items, 7]})
    message, _ = decode(cipher_pb2.EncryptRequest, body)
    assert [item.reference for item in message.batch_input] == ["first", "second", ""]
    said = [item.malformed for item in message.batch_input]
    assert said == ["plaintext: takes base64", "", "batch_input: takes an object"]


@pytest.mark.parametrize("beside", [{}, {"plaintext": "aGk="}])
def test_a_batch_has_items(beside: dict[str, str]) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(cipher_pb2.EncryptRequest, json.dumps({"batch_input": [], **beside}))
    said = (caught.value.kind, caught.value.message)
    assert said == (Kind.INVALID, "missing batch input to process")


@pytest.mark.parametrize("value", ["%", 7, "aGk"])
def test_what_is_no_base64_beside_a_batch_means_nothing(value: Any) -> None:
    """As in Vault, which reads what a single item has only where there is no batch."""
    batch = {"batch_input": [{"plaintext": "aGk="}]}
    for name in ("plaintext", "context", "associated_data", "nonce"):
        message, _ = decode(cipher_pb2.EncryptRequest, json.dumps({**batch, name: value}))
        assert [item.plaintext for item in message.batch_input] == [b"hi"]
        for body in ({name: value}, {"batch_input": None, name: value}):
            with pytest.raises(ServiceError, match=f"{name}: takes base64"):
                decode(cipher_pb2.EncryptRequest, json.dumps(body))


@pytest.mark.parametrize("field", [{"plaintext": {}}, {"context": ["a"]}, {"key_version": "x"}])
def test_what_has_another_type_beside_a_batch_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match=": takes "):
        body = json.dumps({"batch_input": [{"plaintext": "aGk="}], **field})
        decode(cipher_pb2.EncryptRequest, body)


_values: st.SearchStrategy[Any] = st.sampled_from(
    [
        "aGk=",
        "",
        "aGk",
        "aG\r\nk=",
        "a-_=",
        "aGl=",
        "\u00e4",
        "7",
        7,
        -1,
        1 << 63,
        1.0,
        1.5,
        True,
        None,
        [],
        {},
    ]
)
_item = st.dictionaries(
    st.sampled_from(
        [
            "plaintext",
            "context",
            "associated_data",
            "key_version",
            "nonce",
            "reference",
            "malformed",
            "other",
        ]
    ),
    _values,
    max_size=4,
)


@settings(max_examples=300)
@given(st.lists(_item | st.none() | st.just(7), max_size=3) | _values)
def test_items_that_are_read_in_one_step_are_those_that_are_read_singly(items: Any) -> None:
    plan = RequestPlan(cipher_pb2.EncryptRequest.DESCRIPTOR)
    singly = RequestPlan(cipher_pb2.EncryptRequest.DESCRIPTOR)
    singly._items = {}
    body = json.dumps({"batch_input": items, "type": "x", "other": 1}).encode()

    def read(by: RequestPlan) -> Any:
        try:
            return by.decode(body, parse_body(body), {"key_version": "3"}, {"name": "k"})
        except ServiceError as error:
            return error.kind, error.message

    assert read(plan) == read(singly)


def test_items_as_they_should_be_are_read_in_one_step() -> None:
    plan = RequestPlan(cipher_pb2.EncryptRequest.DESCRIPTOR)
    item = {
        "plaintext": "aGk=",
        "context": "aGk=",
        "key_version": 2,
        "reference": "r",
        "other": [1],
    }
    body = json.dumps({"batch_input": [item]}).encode()
    assert list(plan._read_items(parse_body(body))) == ["batch_input"]


_fields = st.fixed_dictionaries(
    {},
    optional={
        "ciphertext": st.text(max_size=3),
        "key_version": st.integers(-1, 2),
        "error": st.text(max_size=3),
        "reference": st.text(max_size=3),
    },
)


@given(st.lists(_fields, max_size=4))
def test_results_are_written_alike_as_rows_and_one_by_one(results: list[Any]) -> None:
    message = cipher_pb2.EncryptResponse(key_version=1, batch_results=results)
    plan = ResponsePlan(message.DESCRIPTOR)
    assert shown(message) == json.loads(msgspec.json.encode(plan.fields(message)))


@given(st.lists(st.binary(max_size=3) | st.none(), max_size=4))
def test_bytes_of_rows_are_base64(texts: list[bytes | None]) -> None:
    results: list[Any] = [{"plaintext": text} for text in texts]
    message = cipher_pb2.DecryptResponse(batch_results=results)
    written = shown(message) or {}
    expected = [
        {"reference": ""} | ({} if text is None else {"plaintext": b64encode(text).decode()})
        for text in texts
    ]
    assert written.get("batch_results", []) == expected


def test_absent_is_not_empty() -> None:
    results = [
        cipher_pb2.EncryptResult(),
        cipher_pb2.EncryptResult(ciphertext="", key_version=0),
        cipher_pb2.EncryptResult(ciphertext="c", key_version=2, error="", reference="r"),
    ]
    assert shown(cipher_pb2.EncryptResponse(batch_results=results))["batch_results"] == [
        {"reference": ""},
        {"ciphertext": "", "key_version": 0, "reference": ""},
        {"ciphertext": "c", "key_version": 2, "reference": "r", "error": ""},
    ]


def test_clients_are_generous_with_types() -> None:
    body = {
        "policies": "a, b,,c",
        "ttl": "1h30m",
        "num_uses": "5",
        "renewable": "false",
        "no_parent": 1,
        "meta": "k=v, x = y",
        "explicit_max_ttl": 60.0,
        "display_name": 7,
    }
    message, _ = decode(token_pb2.CreateTokenRequest, json.dumps(body))
    parameters = message.parameters
    assert list(parameters.policies) == ["a", "b", "c"]
    assert (parameters.ttl, parameters.num_uses, parameters.explicit_max_ttl) == (5400, 5, 60)
    assert (parameters.renewable, parameters.no_parent) == (False, True)
    assert parameters.HasField("renewable")
    assert dict(parameters.meta) == {"k": "v", "x": "y"}
    assert parameters.display_name == "7"


def test_absent_and_empty_lists_are_told_apart() -> None:
    absent, _ = decode(approle_pb2.WriteRoleRequest, "{}")
    assert not absent.role.settings.HasField("token_policies")
    for empty in ('{"token_policies": []}', '{"token_policies": ""}'):
        message, _ = decode(approle_pb2.WriteRoleRequest, empty)
        assert message.role.settings.HasField("token_policies")
        assert list(message.role.settings.token_policies.values) == []


@pytest.mark.parametrize(
    "request_type", [kv2_pb2.PatchMetadataRequest, kv2_pb2.WriteMetadataRequest]
)
def test_null_is_zero_where_the_contract_says_so(request_type: Any) -> None:
    text = '{"max_versions": null, "cas_required": null, "metadata_cas_required": null}'
    message, _ = decode(request_type, text)
    assert [field.name for field, _ in message.ListFields()] == [
        "max_versions", "cas_required", "metadata_cas_required",
    ]  # fmt: skip
    assert not message.max_versions
    assert not message.cas_required


def test_null_is_absent_but_for_documents() -> None:
    message, _ = decode(token_pb2.CreateTokenRequest, '{"ttl": null, "policies": null}')
    assert message == token_pb2.CreateTokenRequest()
    message, _ = decode(kv2_pb2.PatchMetadataRequest, '{"delete_version_after": null}')
    assert not message.ListFields()
    message, _ = decode(kv2_pb2.PatchMetadataRequest, '{"custom_metadata": null}')
    assert message.custom_metadata == b"null"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (kv2_pb2.WriteSecretRequest, '{"data": {}, "options": {"cas": null}}'),
        (kv2_pb2.PatchSecretRequest, '{"data": {}, "options": {"cas": null}}'),
        (kv2_pb2.WriteMetadataRequest, '{"metadata_cas": null}'),
        (policy_pb2.WritePolicyRequest, '{"cas": null}'),
    ],
)
def test_a_version_to_be_expected_is_never_passed_over(kind: Any, body: str) -> None:
    """A client that computed none must not overwrite what others wrote meanwhile: null is 0, as in OpenBao."""
    message, unknown = decode(kind, body)
    holder = getattr(message, "options", message)
    field = "metadata_cas" if "metadata_cas" in body else "cas"
    assert (holder.HasField(field), getattr(holder, field), unknown) == (True, 0, [])


@pytest.mark.parametrize(
    ("given", "seconds", "given_back"),
    [
        ('"-1h"', -1, "-1s"),
        ("-5", -1, "-1s"),
        ('"-100ms"', -1, "-1s"),
        ('"-0s"', None, ""),
        ('"-x"', None, ""),
        ('"1h"', 3600, "1h0m0s"),
        ("0", 0, "0s"),
    ],
)
def test_a_span_may_be_switched_off(given: str, seconds: int | None, given_back: str) -> None:
    text = f'{{"delete_version_after": {given}}}'
    if seconds is None:
        with pytest.raises(ServiceError, match="delete_version_after"):
            decode(kv2_pb2.WriteConfigRequest, text)
        return
    message, _ = decode(kv2_pb2.WriteConfigRequest, text)
    assert message.delete_version_after == seconds
    read = kv2_pb2.ReadConfigResponse(delete_version_after=seconds)
    assert ResponsePlan(read.DESCRIPTOR).fields(read)["delete_version_after"] == given_back


def test_unknown_keys_are_named() -> None:
    _, unknown = decode(token_pb2.LookupTokenRequest, '{"token":"x","nonsense":1,"more":{}}')
    assert unknown == ["nonsense", "more"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (b"a=1&b=x%20y+z&c=", {"a": "1", "b": "x y z", "c": ""}),
        (b"a=1&a=2", {"a": ["1", "2"]}),
        (b"a", {"a": ""}),
        ("a=é".encode(), {"a": "é"}),
    ],
)
def test_forms_say_what_json_would(form: bytes, expected: dict[str, object]) -> None:
    assert json.loads(form_as_json(form)) == expected


def test_forms_have_bounds() -> None:
    with pytest.raises(ServiceError) as caught:
        form_as_json(b"a=" + b"x" * MAX_FORM)
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(ServiceError, match="well-formed"):
        form_as_json(b"a=\xff")


def test_queries_fill_what_the_body_does_not() -> None:
    message, _ = decode(kv2_pb2.ReadSecretRequest, query={"version": "2", "x": "y"})
    assert message.version == 2


@pytest.mark.parametrize(
    ("message", "body", "field"),
    [
        (token_pb2.CreateTokenRequest, '{"ttl": "soon"}', "ttl"),
        (token_pb2.CreateTokenRequest, '{"ttl": {}}', "ttl"),
        (token_pb2.CreateTokenRequest, '{"num_uses": "many"}', "num_uses"),
        (token_pb2.CreateTokenRequest, '{"num_uses": 1.5}', "num_uses"),
        (token_pb2.CreateTokenRequest, '{"num_uses": 99999999999999999999}', "num_uses"),
        (token_pb2.CreateTokenRequest, '{"policies": {"a": 1}}', "policies"),
        (token_pb2.CreateTokenRequest, '{"policies": [[]]}', "policies"),
        (token_pb2.CreateTokenRequest, '{"meta": "novalue"}', "meta"),
        (token_pb2.CreateTokenRequest, '{"meta": 5}', "meta"),
        (token_pb2.CreateTokenRequest, '{"meta": {"a": {}}}', "meta"),
        (token_pb2.CreateTokenRequest, '{"no_parent": "maybe"}', "no_parent"),
        (approle_pb2.LoginAppRoleRequest, '{"role_id": ["hunter2"]}', "role_id"),
        (approle_pb2.LoginAppRoleRequest, '{"role_id": {"hunter2": 1}}', "role_id"),
        (approle_pb2.WriteRoleRequest, '{"token_policies": [{"hunter2":1}]}', "token_policies"),
        (kv2_pb2.WriteSecretRequest, '{"options": 5}', "options"),
        (kv2_pb2.WriteSecretRequest, '{"options": {"cas": "hunter2"}}', "cas"),
        (kv2_pb2.DeleteVersionsRequest, '{"versions": ["hunter2"]}', "versions"),
    ],
)
def test_a_wrong_type_names_the_field_and_not_the_value(
    message: Any, body: str, field: str
) -> None:
    with pytest.raises(ServiceError, match=field) as caught:
        decode(message, body)
    assert caught.value.kind is Kind.INVALID
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b"5", b'"x"', b"{}x", b'{"a":}', b"\xff", b'{"a":"\xff"}', b"nul"]
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(token_pb2.LookupTokenRequest, body)
        parameters_of(parse_body(body))
    assert caught.value.kind is Kind.INVALID


def test_depth_and_size_are_bounded() -> None:
    deep = b'{"data":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}"
    with pytest.raises(ServiceError, match="nested deeper"):
        parse_body(deep)
    parse_body(b'{"data":"' + b"[" * 5000 + b'"}')
    with pytest.raises(ServiceError, match="too large"):
        parse_body(b" " * (32 << 20) + b"{}")
    with pytest.raises(ServiceError, match="texts"):
        parse_body(b'{"a":[' + b'"",' * 1_100_000 + b'""]}')
    parse_body(b'{"a":[' + b"[]," * (MAX_CONTAINERS - 3) + b"[]]}")
    for empty in (b"[]", b"{}"):
        with pytest.raises(ServiceError, match="lists and objects"):
            parse_body(b'{"a":[' + (empty + b",") * MAX_CONTAINERS + b"1]}")


def _depth_by_byte(body: bytes) -> int:
    depth, deepest, text, escaped = 0, 0, False, False
    for byte in body:
        if text:
            text = escaped or byte != ord('"')
            escaped = byte == ord("\\") and not escaped
        elif byte == ord('"'):
            text = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


@given(st.lists(st.sampled_from(list(b'[]{}"\\a\n'))).map(bytes))
@settings(max_examples=500)
def test_depth_is_that_outside_of_texts(body: bytes) -> None:
    assert _depth(body) == max(_depth_by_byte(body), 0)


@given(st.lists(st.sampled_from(list(b'[]{}"a'))).map(bytes))
@settings(max_examples=500)
def test_what_is_flat_is_not_deep(body: bytes) -> None:
    assert _depth_by_byte(body) <= 6 or not _is_flat(body)


def test_batches_are_flat_whatever_their_texts_are() -> None:
    items = [{"plaintext": "aGk=", "reference": "[[[{"}] * (MAX_DEPTH + 1)
    assert _is_flat(json.dumps({"batch_input": items}).encode())
    assert not _is_flat(b'{"a":' + b"[" * 7 + b"]" * 7 + b"}")
    assert not _is_flat(b'{"a":"\\"' + b"[" * 7 + b"]" * 7 + b"}")


def test_a_secret_is_spliced_in_as_it_is() -> None:
    metadata = kv2_pb2.VersionMetadata(
        created_time=timestamp(1_700_000_000.5), version=2, custom_metadata=b"null"
    )
    response = kv2_pb2.ReadSecretResponse(data=b'{"n":18446744073709551617}', metadata=metadata)
    assert msgspec.json.encode(encode(response).data) == (
        b'{"data":{"n":18446744073709551617},"metadata":{"created_time":"2023-11-14T22:13:20.500Z",'
        b'"deletion_time":"","destroyed":false,"version":2,"custom_metadata":null}}'
    )


def test_durations_times_and_absences() -> None:
    assert shown(kv2_pb2.ReadConfigResponse(delete_version_after=5400)) == {
        "max_versions": 0,
        "cas_required": False,
        "delete_version_after": "1h30m0s",
        "metadata_cas_required": False,
    }
    info = shown(token_pb2.LookupSelfResponse(info=token_pb2.TokenInfo(meta=b"null")))
    assert info["expire_time"] is None
    assert info["meta"] is None
    assert "role" not in info
    assert "bound_cidrs" not in info
    role = token_pb2.TokenRole(period=0)
    assert shown(token_pb2.ReadTokenRoleResponse(role=role)) == {
        "name": "",
        "period": 0,
        "allowed_entity_aliases": None,
    }
    role.allowed_entity_aliases.values.append("bob")
    shown_role = shown(token_pb2.ReadTokenRoleResponse(role=role))
    assert shown_role["allowed_entity_aliases"] == ["bob"]


def test_inline_parts_have_no_key_of_their_own() -> None:
    response = kv1_pb2.ReadValueResponse(data=b'{"k": 1}', lease_duration=60)
    encoded = encode(response)
    assert msgspec.json.encode(encoded.data) == b'{"k": 1}'
    assert encoded.lease_duration == 60
    role = approle_pb2.AppRole(
        secret_id_ttl=5,
        settings=login_pb2.TokenSettings(token_policies=login_pb2.TextList(values=["a"])),
    )
    assert shown(approle_pb2.ReadRoleResponse(role=role)) == {
        "secret_id_ttl": 5,
        "token_policies": ["a"],
    }
    document = policy_pb2.CapabilitiesSelfResponse(document=b'{"a":["read"]}')
    assert shown(document) == {"a": ["read"]}


def test_the_envelope_gets_its_parts() -> None:
    auth = login_pb2.Auth(client_token="t", policies=["a"], lease_duration=5)
    encoded = encode(token_pb2.CreateTokenResponse(auth=auth, warnings=["careful"]))
    assert encoded.data is None
    assert encoded.warnings == ["careful"]
    assert encoded.auth is not None
    assert encoded.auth["client_token"] == "t"
    assert encoded.auth["metadata"] is None
    assert encode(token_pb2.RevokeSelfResponse()) == Encoded()


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_any_object_is_kept_as_a_document(value: dict[str, Any]) -> None:
    document = json.dumps(value)
    message, _ = decode(kv2_pb2.WriteSecretRequest, f'{{"data":{document}}}')
    assert message.data == document.encode()


@settings(deadline=None)  # a busy machine
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    )
)
def test_no_value_in_any_field_is_more_than_a_clear_error(value: Any) -> None:
    for message in (
        token_pb2.CreateTokenRequest,
        approle_pb2.WriteRoleRequest,
        approle_pb2.LoginAppRoleRequest,
        kv2_pb2.WriteSecretRequest,
        policy_pb2.CapabilitiesRequest,
    ):
        for key in RequestPlan(message.DESCRIPTOR).keys:
            try:
                decode(message, json.dumps({key: value}))
            except ServiceError as error:
                assert error.kind is Kind.INVALID
                assert error.message


def test_a_mount_without_options_shows_none_of_them_instead_of_null() -> None:
    # Some clients take a mount for malformed otherwise.
    fields = ResponsePlan(mounts_pb2.MountInfo.DESCRIPTOR).fields(mounts_pb2.MountInfo(type="kv"))
    assert fields["options"] == {}
    info = approle_pb2.SecretIdInfo()  # which Terraform's provider would replace for ever
    assert ResponsePlan(info.DESCRIPTOR).fields(info)["metadata"] == {}


def test_maps_are_in_the_order_of_their_keys_and_versions_in_that_of_numbers() -> None:
    message = kv2_pb2.SecretMetadata(
        versions={str(number): kv2_pb2.VersionState() for number in range(120, 0, -1)}
    )
    shown = ResponsePlan(message.DESCRIPTOR).fields(message)
    assert list(shown["versions"]) == [str(number) for number in range(1, 121)]
    names = ["b", "10", "a", "Z", "9", "zz"]
    mount = mounts_pb2.MountInfo(options=dict.fromkeys(names, "x"))
    shown = ResponsePlan(mount.DESCRIPTOR).fields(mount)
    assert list(shown["options"]) == ["Z", "a", "b", "zz", "9", "10"]
