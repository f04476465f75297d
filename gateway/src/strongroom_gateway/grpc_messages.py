"""Request messages of gRPC calls, as far as they may be read at all.

What is wrong with one is told by its handler: what a deserializer raises becomes UNKNOWN, with its text.
"""

from collections.abc import Callable

from google.protobuf.message import DecodeError, Message

from strongroom_gateway.contract import counting
from strongroom_gateway.contract.routes import MethodSpec
from strongroom_runtime.errors import Kind, ServiceError, invalid


class Refused:
    """Stands for a message that was not read.

    Args:
        error: what the client is to be told.
    """

    def __init__(self, error: ServiceError) -> None:
        self.error = error


Read = Message | Refused


def reader(spec: MethodSpec, most: int) -> Callable[[bytes], Read]:
    """Returns what reads the request messages of a method.

    Args:
        spec: the method.
        most: how many bytes one may have.
    """
    kind, shape = spec.request, counting.Shape.of(spec.descriptor.input_type)

    def read(data: bytes) -> Read:
        if len(data) > most:
            text = f"the message may have at most {most >> 20} MiB; of a stream, send more, smaller ones"
            return Refused(ServiceError(Kind.TOO_LARGE, text))
        if counting.has_too_many_fields(data, shape):
            return Refused(invalid(f"the message has more than {counting.MOST_FIELDS} fields"))
        try:
            return kind.FromString(data)
        except DecodeError:
            return Refused(invalid("the message is malformed, or a text in it is not UTF-8"))

    return read


def checked(request: Read) -> Message:
    """Returns a message that was read.

    Raises:
        ServiceError: what was wrong with it.
    """
    if isinstance(request, Refused):
        raise request.error.again()
    return request
