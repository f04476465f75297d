"""What is refused leaves nothing in memory: anybody can send bodies of many megabytes."""

import contextlib

from tests.garbage import no_frames_left
from tests.unit.gateway.fakes import Audit, Gate, Mounts, Rules

from strongroom_gateway.admission import Admission
from strongroom_gateway.call import Call
from strongroom_gateway.observe.observer import Observer
from strongroom_gateway.pipeline import Pipeline
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.metrics import Metrics
from strongroom_runtime.telemetry import Telemetry


async def test_paths_that_lead_nowhere_leave_nothing_in_memory() -> None:
    admission = Admission(Gate('path "*" { capabilities = ["update"] }'), Mounts(), lambda: False)  # type: ignore[arg-type]
    pipeline = Pipeline(
        {}, admission, Rules(), Audit(), None,  # type: ignore
        Observer(Telemetry("gateway"), Metrics()),
    )  # fmt: skip
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(ServiceError):
                await pipeline.handle(
                    Call(
                        spec=None, message=None, path="nowhere/x", mount=None, token_text="token",
                        client_address="127.0.0.1", operation="update", parameters=dict,
                        missing=ServiceError(Kind.NOT_FOUND, "no handler for route"),
                    )
                )  # fmt: skip
