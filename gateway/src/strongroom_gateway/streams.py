"""Streams: admitted like any request, and again before each message and every few seconds between them.

A server stream is audited once at its start: it carries names and no values. Of a stream both ways every message
stands in an entry before it goes on, batches and their answers in one append.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from strongroom_gateway.admission import Admission
from strongroom_gateway.audit.columns import Columns
from strongroom_gateway.audit.entries import Outcome, Subject
from strongroom_gateway.audit.sink import AuditSink
from strongroom_gateway.call import Call, context_of, service_of, subject_of
from strongroom_gateway.contract.routes import MethodSpec
from strongroom_gateway.resuming import resumed
from strongroom_gateway.settings.rules import Rules
from strongroom_gateway.shown import SHOW
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.handlers import Shape, StreamCaller
from strongroom_runtime.policy import Acl

T = TypeVar("T")
R = TypeVar("R")

_SECONDS = 5.0
# Batches of one stream that are under way at once: enough to keep a client, the gateway and a replica busy together.
_WIDTH = 4


class Streams:
    """Handles requests that are streams.

    Args:
        services: who answers, by the package of the method.
        admission: who may do what.
        rules: what the settings demand of requests. Each message of a client is one; those after the first wait.
        audit: where entries go.
    """

    def __init__(
        self,
        services: Mapping[str, StreamCaller],
        admission: Admission,
        rules: Rules,
        audit: AuditSink,
    ) -> None:
        self._services = services
        self._rules = rules
        self._admission = admission
        self._audit = audit
        self._columns: dict[str, tuple[Columns, Columns]] = {}

    async def watch(self, call: Call, check: Callable[[], Awaitable[None]]) -> AsyncGenerator[Any]:
        """Yields the messages of a server stream for as long as the token and its policies allow.

        Args:
            call: the request.
            check: raises once what is watched is gone.

        Raises:
            ServiceError: what the client is to be told.
        """
        subject = subject_of(call)
        context = await self._open(call, subject)
        spec, mount = _spec(call), call.mount
        if call.message is None or mount is None:
            raise ServiceError(Kind.INTERNAL, "internal error")
        await self._audit.both(subject, Outcome(), context)

        admit = partial(self._admit, call, check)
        show = SHOW[spec.name]
        service = service_of(self._services, spec)
        messages = resumed(
            lambda request: service.stream(spec.name, request, context), call.message
        )
        async with contextlib.aclosing(_guarded(messages, admit)) as guarded:
            async for message in guarded:
                _, acl = await admit()
                yield show(acl, mount.path, message)

    def exchange(
        self, call: Call, messages: AsyncIterator[Message], check: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[Any]:
        """Yields the answers of a stream both ways for as long as the token and its policies allow.

        Args:
            call: the request, with the first message.
            messages: all of them. They are taken no faster than they are answered.
            check: raises once the mount is gone.

        Raises:
            ServiceError: what the client is to be told.
        """
        if call.spec is None or call.spec.shape is not Shape.BATCHES:
            return self._duplex(call, messages, check)
        return self._batches(call, messages, check)

    async def _batches(
        self, call: Call, messages: AsyncIterator[Message], check: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[Any]:
        subject = subject_of(call)
        context = await self._open(call, subject)
        spec = _spec(call)
        asked, answered = self._columns_of(spec)
        service = service_of(self._services, spec)

        async def answer(given: tuple[int, Message, RequestContext]) -> Any:
            number, message, inner = given
            request = _about(subject, number, asked.of(message))
            response = _about(subject, number)
            try:
                result = await service.call(spec.name, message, inner)
            except ServiceError as error:
                outcome = Outcome(error=error.message or error.kind.value)
                await self._audit.pair(request, response, outcome, context)
                raise
            outcome = Outcome(data=answered.of(result))
            await self._audit.pair(request, response, outcome, context)
            return result

        admitted = self._admitted(call, subject, messages, check)
        async with contextlib.aclosing(in_order(admitted, answer, _WIDTH)) as answers:
            async for each in answers:
                yield each

    async def _duplex(
        self, call: Call, messages: AsyncIterator[Message], check: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[Any]:
        subject = subject_of(call)
        context = await self._open(call, subject)
        spec = _spec(call)
        asked, answered = self._columns_of(spec)
        counts = {"requests": 0, "responses": 0}

        async def announced() -> AsyncIterator[Message]:
            async for number, message, inner in self._admitted(call, subject, messages, check):
                await self._audit.request(_about(subject, number, asked.of(message)), inner)
                counts["requests"] = number
                yield message

        responses = service_of(self._services, spec).duplex(spec.name, announced(), context)
        outcome = Outcome(error="the stream was left before its end")
        try:
            async with contextlib.aclosing(responses):
                async for message in responses:
                    counts["responses"] += 1
                    about = _about(subject, counts["responses"])
                    await self._audit.response(about, Outcome(data=answered.of(message)), context)
                    yield message
            outcome = Outcome(data=counts)
        except ServiceError as error:
            outcome = Outcome(error=error.message or error.kind.value)
            raise
        finally:
            await self._audit.response(_about(subject, 0), outcome, context)

    async def _open(self, call: Call, subject: Subject) -> RequestContext:
        """Admits the start of a stream; returns the context with what the policies allow. A refusal is audited.

        Raises:
            ServiceError: what the client is to be told.
        """
        self._admission.check_seal()
        if call.wrap_ttl:
            # Policies that demand wrapping must not be satisfied by what does not happen.
            raise invalid("X-Vault-Wrap-TTL: the messages of a stream cannot be wrapped")
        context = context_of(call)
        await self._rules.apply(call, context)
        subject.headers = call.audited_headers
        try:
            identity = await self._admission.identify(call, context)
            if identity is not None:
                subject.token = identity.token
            if identity is not None and identity.limited:
                await self._admission.finish(identity, context)
                raise invalid("a token with a limited number of uses cannot open a stream")
            context = await self._admission.decide(call, identity, context)
            if call.spec is None or call.message is None:
                raise call.refusal()
            return context
        except ServiceError as error:
            await self._audit.both(subject, Outcome(error=error.message), context)
            raise

    async def _admit(
        self, call: Call, check: Callable[[], Awaitable[None]]
    ) -> tuple[RequestContext, Acl]:
        """Admits what is in `call` now, as if it had just come."""
        self._admission.check_seal()
        await check()
        context = context_of(call)
        identity = await self._admission.identify(call, context)
        if identity is None:
            raise ServiceError(Kind.INTERNAL, "internal error")
        decided = await self._admission.decide(call, identity, context)
        return decided, await self._admission.acl(identity, context)

    async def _admitted(
        self,
        call: Call,
        subject: Subject,
        messages: AsyncIterator[Message],
        check: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[tuple[int, Message, RequestContext]]:
        """Yields messages of a client as far as they are admitted, each with its number and its context.

        A refusal ends the stream and is audited.
        """
        spec = _spec(call)
        fixed = {name: getattr(call.message, name) for name in spec.path_fields}
        number, admit = 0, partial(self._admit, call, check)
        try:
            async with contextlib.aclosing(_guarded(messages, admit)) as guarded:
                async for message in guarded:
                    number += 1
                    _fill(message, fixed)
                    call.message = message
                    call.parameters = partial(spec.given_plan.fields, message, spec.path_fields)
                    context, _ = await admit()
                    while number > 1 and (seconds := await self._rules.turn(call, context)):
                        # The client is not heard meanwhile: it sends no faster than its quota allows.
                        await asyncio.sleep(min(seconds, _SECONDS))
                        context, _ = await admit()
                    yield number, message, context
        except ServiceError as error:
            about = _about(subject, number)
            await self._audit.both(about, Outcome(error=error.message), context_of(call))
            raise

    def _columns_of(self, spec: MethodSpec) -> tuple[Columns, Columns]:
        """Returns how requests and responses of a method stand in entries."""
        made = self._columns.get(spec.name)
        if made is None:
            made = self._columns[spec.name] = (
                Columns(spec.descriptor.input_type, spec.path_fields),
                Columns(spec.descriptor.output_type),
            )
        return made


async def _guarded(
    messages: AsyncIterator[T], admit: Callable[[], Awaitable[object]]
) -> AsyncGenerator[T]:
    """Yields messages; while none comes, admits every few seconds."""
    pending: asyncio.Task[T | None] | None = None
    try:
        while True:
            if pending is None:
                pending = asyncio.ensure_future(_next(messages))
            await asyncio.wait({pending}, timeout=_SECONDS)
            if not pending.done():
                await admit()
                continue
            message, pending = pending.result(), None
            if message is None:
                return
            yield message
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
            # It keeps its error, and the error's traceback this frame: a cycle, with the messages in it.
            pending = None
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()


async def in_order(
    given: AsyncGenerator[T], work: Callable[[T], Awaitable[R]], width: int
) -> AsyncGenerator[R]:
    """Yields what work makes of each thing given, in order, with so many under way or waiting at once at most.

    What `given` raises comes after the results before it.
    """
    room = asyncio.Semaphore(width)
    results: asyncio.Queue[asyncio.Future[R] | None] = asyncio.Queue()

    async def feed() -> None:
        while True:
            await room.acquire()
            try:
                thing = await _next(given)
            except Exception as error:
                results.put_nowait(_failed(error))
                return
            results.put_nowait(asyncio.ensure_future(work(thing)) if thing is not None else None)
            if thing is None:
                return

    feeding = asyncio.create_task(feed())
    running: asyncio.Future[R] | None = None
    try:
        while (running := await results.get()) is not None:
            yield await running
            room.release()
    finally:
        await _drop(feeding, running, results)
        running = None  # as in `_guarded`
        await given.aclose()


async def _drop(
    feeding: asyncio.Task[None],
    running: asyncio.Future[R] | None,
    results: asyncio.Queue[asyncio.Future[R] | None],
) -> None:
    """Ends what is under way, and what waits."""
    left: list[asyncio.Future[Any]] = [feeding]
    if running is not None:
        left.append(running)
    while not results.empty():
        waiting = results.get_nowait()
        if waiting is not None:
            left.append(waiting)
    for each in left:
        each.cancel()
    await asyncio.wait(left)


def _failed(error: Exception) -> asyncio.Future[Any]:
    """Returns a result that is an error. Apart: a frame that the error went through must not hold it."""
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    failed.set_exception(error)
    return failed


async def _next(messages: AsyncIterator[T]) -> T | None:
    """Returns the next message, None after the last."""
    return await anext(messages, None)


def _spec(call: Call) -> MethodSpec:
    if call.spec is None:
        raise ServiceError(Kind.INTERNAL, "internal error")
    return call.spec


def _fill(message: Any, fixed: Mapping[str, Any]) -> None:
    """Gives a later message what the first one said of the path.

    Raises:
        ServiceError: INVALID where it says something else.
    """
    for name, value in fixed.items():
        said = getattr(message, name)
        if said and said != value:
            raise invalid(f"{name}: is not that of the first message of the stream")
        setattr(message, name, value)


def _about(subject: Subject, number: int, data: dict[str, Any] | None = None) -> Subject:
    """Returns the subject of one message of a stream; 0 for the end of all."""
    parameters = {**({"message": number} if number else {}), **(data or {})}
    return msgspec.structs.replace(subject, parameters=parameters, made={})
