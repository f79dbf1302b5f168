"""A call that does what its script says, at the handler."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import grpc
import interop_pb2 as pb

from interop_peer import entry, pattern
from interop_peer.watch import Records

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def status_code(number: int) -> grpc.StatusCode:
    """Returns the status code with a number."""
    return next(
        (code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN
    )


class ScriptedFailure(grpc.aio.AioRpcError):
    """A failure that the script asks for. Its details are lost: the library sends none."""

    def __init__(self, failure: pb.Failure) -> None:
        nothing = grpc.aio.Metadata()
        super().__init__(status_code(failure.code), nothing, nothing, failure.message)


class GivenUp(Exception):
    """The caller no longer wants the call."""


class Call:
    """One call, from its first request to its end."""

    # Streams of the library have no public type; contexts lead to theirs only by a
    # private name, without which a unary call could not send headers.
    def __init__(self, records: Records, context, first: pb.Request | None) -> None:
        self.script = first.script if first else pb.Script()
        self._records = records
        self._context = context
        self._stream = context._stream
        self._began = time.monotonic()
        self._requests = 0
        self._bytes = 0
        self._damaged = 0
        self._sent = 0
        self._update(lambda record: setattr(record, "state", pb.WatchResponse.RUNNING))
        if first:
            self.received(first)

    async def follow(self, body: Callable[[], Awaitable[pb.Response | None]]) -> pb.Response | None:
        """Does what comes before the first response and then the rest, and records the end."""
        state = pb.WatchResponse.BROKEN
        try:
            await self._prelude()
            response = await body()
            state = pb.WatchResponse.COMPLETED
            return response
        except ScriptedFailure:
            state = pb.WatchResponse.COMPLETED
            raise
        except (GivenUp, asyncio.CancelledError):
            state = pb.WatchResponse.CANCELLED
            raise
        except Exception as error:
            # This is how the library tells of a cancelled call, where it does.
            if str(error) == "cancelled":
                state = pb.WatchResponse.CANCELLED
            raise
        finally:
            self._update(lambda record: setattr(record, "state", state))

    def received(self, request: pb.Request) -> None:
        """Takes note of a request."""
        if not pattern.matches(self.script.seed + self._requests, request.payload):
            self._damaged += 1
        self._requests += 1
        self._bytes += len(request.payload)
        self._update(lambda record: setattr(record, "requests", record.requests + 1))

    async def requests(self):
        """Yields the requests beyond the first."""
        while True:
            try:
                request = await self._stream.recv_message(pb.Request.FromString)
            except StopAsyncIteration:
                return
            self.received(request)
            yield request

    def response(self, number: int) -> pb.Response:
        """Makes the response with a number that the script asks for."""
        return self.complete(
            pb.Response(payload=pattern.of(self.script.seed + number, self.script.response_bytes))
        )

    def complete(self, response: pb.Response) -> pb.Response:
        """Adds to a response what only the first one has."""
        if self.script.observe and self._sent == 0:
            response.observed.CopyFrom(self.observed())
        return response

    def observed(self) -> pb.Observed:
        """Returns what has been seen of the call."""
        metadata = self._context.invocation_metadata()
        timeout = self._timeout(metadata)
        return pb.Observed(
            metadata=entry.from_metadata(metadata),
            deadline=timeout is not None,
            deadline_ms=max(0, int((timeout or 0) * 1000)),
            requests=self._requests,
            request_bytes=self._bytes,
            damaged=self._damaged,
        )

    async def send(self, response: pb.Response) -> None:
        """Sends a response of several, and fails if it was the last one wanted."""
        await self._stream.send_message(response)
        self.answered()
        failure = self.script.failure
        if failure.moment == pb.Failure.AFTER_RESPONSES and self._sent >= failure.after_responses:
            self._fail_at(pb.Failure.AFTER_RESPONSES)

    def answered(self) -> None:
        """Takes note of a response."""
        self._sent += 1
        self._update(lambda record: setattr(record, "responses", record.responses + 1))

    async def respond(self) -> None:
        """Sends the responses of the script, and lingers."""
        for number in range(self.script.responses):
            await self.send(self.response(number))
        await self.wait(self.script.linger_ms)

    async def wait(self, milliseconds: int) -> None:
        """Sleeps, but not longer than the call is wanted."""
        if milliseconds == 0:
            return
        cancelled = asyncio.create_task(self._context.wait_for_cancellation())
        try:
            done, _ = await asyncio.wait({cancelled}, timeout=milliseconds / 1000)
        finally:
            cancelled.cancel()
        if done:
            raise GivenUp

    async def _prelude(self) -> None:
        if self.script.trailers:
            await self._context.set_trailing_metadata(entry.to_metadata(self.script.trailers))
        await self.wait(self.script.delay_ms)
        self._fail_at(pb.Failure.BEFORE_HEADERS)
        failing = (
            self.script.HasField("failure")
            and self.script.failure.moment == pb.Failure.AFTER_HEADERS
        )
        if self.script.headers or failing:
            await self._stream.send_response_headers(entry.to_metadata(self.script.headers))
        self._fail_at(pb.Failure.AFTER_HEADERS)

    def _fail_at(self, moment: int) -> None:
        if self.script.HasField("failure") and self.script.failure.moment == moment:
            raise ScriptedFailure(self.script.failure)

    def _update(self, change: Callable[[pb.WatchResponse], None]) -> None:
        self._records.update(self.script.call, change)

    def _timeout(self, metadata) -> float | None:
        """Returns the seconds to the deadline, of which the library itself knows nothing."""
        for key, value in metadata or ():
            if key == "grpc-timeout" and (match := re.fullmatch(r"(\d{1,8})([HMSmun])", value)):
                return int(match[1]) * _UNITS[match[2]] - (time.monotonic() - self._began)
        return None
