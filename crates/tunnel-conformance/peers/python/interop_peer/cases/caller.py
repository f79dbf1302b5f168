"""What a case calls with."""

import contextvars
import dataclasses
import itertools
import uuid
from collections.abc import Sequence

import echo_pb2_grpc
import grpc
import interop_pb2 as pb
import interop_pb2_grpc

from interop_peer import pattern
from interop_peer.cases.expect import (
    Mismatch,
    expect,
    expect_observed,
    expect_ok,
    expect_pattern,
    within,
)

UNARY = "unary"
SERVER = "server stream"
CLIENT = "client stream"
BIDI = "bidi"
KINDS = (UNARY, SERVER, CLIENT, BIDI)

_METHODS = {UNARY: "Unary", SERVER: "ServerStream", CLIENT: "ClientStream", BIDI: "Bidi"}

# How long the end of a call may take after its last response.
_END_SECONDS = 5

# The streams that the library opens for the calls of this task.
_opened: contextvars.ContextVar[list | None] = contextvars.ContextVar("opened", default=None)


@dataclasses.dataclass
class Outcome:
    """Everything that a caller learns of a call."""

    headers: Sequence = ()
    responses: list[pb.Response] = dataclasses.field(default_factory=list)
    trailers: Sequence = ()
    error: BaseException | None = None


def requests(script: pb.Script, count: int, size: int) -> list[pb.Request]:
    """Makes the messages of a call: patterns of a size, the script in front."""
    made = [pb.Request(payload=pattern.of(script.seed + number, size)) for number in range(count)]
    made[0].script.CopyFrom(script)
    return made


async def each(messages: Sequence[pb.Request]):
    """Yields messages in the way in which stubs take them."""
    for message in messages:
        yield message


class Caller:
    """Calls through a tunnel, with ordinary stubs."""

    def __init__(self, name: str, tunnel) -> None:
        _reveal(tunnel)
        self.tunnel = tunnel
        self.interop = interop_pb2_grpc.InteropServiceStub(tunnel)
        self.echo = echo_pb2_grpc.EchoServiceStub(tunnel)
        # What to blame when an error or the end of time comes from the library.
        self.doing = "starting"
        self._name = f"{name}-{uuid.uuid4()}"
        self._named = itertools.count()

    def name_call(self) -> str:
        """Returns a name for a call that no other call has."""
        return f"{self._name}-{next(self._named)}"

    def stub(self, kind: str, method: str | None = None):
        """Returns what makes calls of a kind, to its own method or to another."""
        if method is None:
            return getattr(self.interop, _METHODS[kind])
        make = self.tunnel.stream_stream if kind == BIDI else self.tunnel.unary_unary
        return make(
            method,
            request_serializer=pb.Request.SerializeToString,
            response_deserializer=pb.Response.FromString,
        )

    async def call(
        self, kind: str, messages: Sequence[pb.Request], method: str | None = None
    ) -> Outcome:
        """Sends all requests, and then reads all responses, of which both are few."""
        self.doing = f"{kind}: calling"
        got = Outcome()
        streams: list = []
        _opened.set(streams)
        try:
            stub = self.stub(kind, method)
            if kind == UNARY:
                got.responses.append(await stub(messages[0]))
            elif kind == CLIENT:
                got.responses.append(await stub(each(messages)))
            else:
                if kind == SERVER:
                    responses = await stub(messages[0])
                else:
                    responses = await stub()
                    for message in messages:
                        await responses.write(message)
                    await responses.done_writing()
                async for response in responses:
                    got.responses.append(response)
        except grpc.RpcError as error:
            got.error = error
        if streams:
            if got.error is None:
                await self._end(streams[0])
            # No public way leads to these, of all kinds and in both directions.
            got.headers = streams[0]._headers or ()
            got.trailers = streams[0]._trailers or ()
        return got

    async def _end(self, stream) -> None:
        """Waits for the end of a call that went well.

        The library itself does not where there is a single response, but trailers come only then.
        """
        await within(
            _END_SECONDS, stream._done_event.wait(), f"{self.doing}: expected the end of the call"
        )

    async def exchange(self, kind: str, script: pb.Script, count: int, size: int) -> None:
        """Makes a call that is to succeed, and checks all that comes of it."""
        script.observe = True
        got = await self.call(kind, requests(script, count, size))
        expect_ok(kind, got.error)
        echoed, scripted, observed = 0, 1, count
        if kind == SERVER:
            scripted = script.responses
        elif kind == BIDI:
            # The first response leaves before the second request is read.
            echoed, scripted, observed = count, script.responses, 1
        expect(f"{kind}: responses", echoed + scripted, len(got.responses))
        for number, response in enumerate(got.responses):
            what = f"{kind}: response {number}"
            if number < echoed:
                expect_pattern(what, script.seed + number, size, response.payload)
            else:
                expect_pattern(
                    what, script.seed + number - echoed, script.response_bytes, response.payload
                )
        expect_observed(kind, observed, observed * size, got.responses[0])

    async def usable(self) -> None:
        """Checks that the tunnel still works."""
        try:
            await self.exchange(UNARY, pb.Script(response_bytes=10), 1, 10)
        except Mismatch as mismatch:
            raise Mismatch(f"a call afterwards: {mismatch}") from mismatch


def _reveal(tunnel) -> None:
    """Makes a tunnel tell which streams it opens: its calls show no headers or trailers."""
    if getattr(tunnel, "revealed", False):
        return
    tunnel.revealed = True
    allocate = tunnel._allocate_stream

    async def allocate_and_tell(*arguments, **named):
        stream = await allocate(*arguments, **named)
        streams = _opened.get()
        if streams is not None:
            streams.append(stream)
        return stream

    tunnel._allocate_stream = allocate_and_tell
