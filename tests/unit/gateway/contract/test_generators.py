"""What older compilers want of the contracts: those of distributions, with which clients are made, too."""

from collections import Counter
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor

from strongroom_gateway.contract.public import public_services


def all_of(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        yield message
        yield from all_of(message.nested_types)


def test_no_two_fields_have_one_name_in_json() -> None:
    """Before release 22, protoc refused names that differ in capitals and underscores alone."""
    files = {service.file.name: service.file for service in public_services()}
    assert len(files) > 20
    for file in files.values():
        for message in all_of(file.message_types_by_name.values()):
            names = Counter(field.name.replace("_", "").lower() for field in message.fields)
            assert max(names.values(), default=1) == 1, message.full_name
