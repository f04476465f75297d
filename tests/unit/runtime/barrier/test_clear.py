"""The codec of the one store that must be readable before there are keys."""

import pytest

from strongroom_runtime.barrier import ClearCodec
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Plain

PATH = (Plain("rotation"), Plain("config"))


def test_paths_and_values_stand_as_they_are() -> None:
    codec = ClearCodec("seal")
    key = codec.encode_path(PATH)
    assert key == b"seal/rotation/config"
    assert codec.decode_path(key) == PATH
    assert all(isinstance(segment, Plain) for segment in codec.decode_path(key))
    assert codec.encode_prefix(PATH[:1]) == b"seal/rotation/"
    assert codec.encode_prefix(()) == b"seal/"
    assert codec.open(key, codec.seal(key, b"value")) == b"value"


@pytest.mark.parametrize("segment", ["payroll", Plain("a/b"), Plain("")])
def test_a_name_is_never_written_without_encryption(segment: str) -> None:
    with pytest.raises(ValueError, match="plain segments only"):
        ClearCodec("seal").encode_path((segment,))


def test_a_key_of_another_service_is_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        ClearCodec("seal").decode_path(b"kv/m")
    assert caught.value.kind is Kind.INTERNAL
