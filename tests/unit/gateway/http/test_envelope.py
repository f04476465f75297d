"""Bodies of errors."""

import json

from strongroom_gateway.http.envelope import error_document
from strongroom_runtime.errors import Kind, ServiceError, denied, not_found


def test_an_error_lists_its_text() -> None:
    assert json.loads(error_document(not_found("no such thing"))) == {"errors": ["no such thing"]}
    assert json.loads(error_document(not_found())) == {"errors": []}
    text = "1 error occurred:\n\t* permission denied\n\n"
    assert json.loads(error_document(denied())) == {"errors": [text]}
    refused = json.loads(error_document(denied(), by_policies=False))
    assert refused == {"errors": ["permission denied"]}


def test_an_error_with_data_or_warnings_is_an_envelope() -> None:
    deleted = ServiceError(Kind.NOT_FOUND, data=b'{"data":null}')
    body = json.loads(error_document(deleted, "id", "kv"))
    assert (body["data"], body["request_id"], body["mount_type"]) == ({"data": None}, "id", "kv")
    assert (body["warnings"], "errors" in body) == (None, False)
    hinted = ServiceError(Kind.NOT_FOUND, "gone", warnings=("look elsewhere",))
    body = json.loads(error_document(hinted))
    assert (body["errors"], body["warnings"], body["data"]) == (["gone"], ["look elsewhere"], None)
