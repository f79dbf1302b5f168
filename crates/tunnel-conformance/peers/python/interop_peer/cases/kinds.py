"""The four kinds of call, and streams of unusual shape."""

import interop_pb2 as pb

from interop_peer import pattern
from interop_peer.cases.caller import BIDI, CLIENT, SERVER, UNARY, Caller, requests
from interop_peer.cases.expect import describe, expect, expect_observed, expect_ok, expect_pattern


async def unary(c: Caller) -> None:
    """One request, one response."""
    await c.exchange(UNARY, pb.Script(seed=1, response_bytes=2000), 1, 1000)


async def server_stream(c: Caller) -> None:
    """One request, several responses."""
    await c.exchange(SERVER, pb.Script(seed=2, responses=10, response_bytes=1000), 1, 1000)


async def client_stream(c: Caller) -> None:
    """Several requests, one response."""
    await c.exchange(CLIENT, pb.Script(seed=3, response_bytes=1000), 10, 1000)


async def bidi_half_close(c: Caller) -> None:
    """Answers to the requests, and more after their end."""
    await c.exchange(BIDI, pb.Script(seed=4, responses=5, response_bytes=500), 3, 1000)


async def bidi_ping_pong(c: Caller) -> None:
    """Each request after the answer to the one before; sizes around a chunk and a window."""
    stream = await c.interop.Bidi()
    sizes = (1, 100, 16383, 16384, 16385, 65535, 65536, 65537, 200_000)
    for number in range(100):
        size = sizes[number % len(sizes)]
        c.doing = f"round {number}"
        await stream.write(pb.Request(payload=pattern.of(number, size)))
        response = await stream.read()
        expect(f"round {number}: whether the stream ended", False, response is None)
        expect_pattern(f"round {number}", number, size, response.payload)
    c.doing = "after the last round"
    await stream.done_writing()
    expect("after the last round: messages", None, await stream.read())


async def unary_empty_message(c: Caller) -> None:
    """Messages that take no bytes at all."""
    c.doing = "a call without bytes"
    response = await c.interop.Unary(pb.Request())
    expect("size of the response", 0, response.ByteSize())


async def stream_empty_messages(c: Caller) -> None:
    """Messages that take no bytes, counted in both directions."""
    await c.exchange(CLIENT, pb.Script(), 10, 0)
    await c.exchange(SERVER, pb.Script(responses=10), 1, 0)
    await c.exchange(BIDI, pb.Script(responses=10), 10, 0)


async def empty_stream(c: Caller) -> None:
    """Streams without messages, which end well."""
    got = await c.call(SERVER, requests(pb.Script(), 1, 10))
    expect("no responses", "OK and 0", f"{describe(got.error)} and {len(got.responses)}")
    got = await c.call(CLIENT, [])
    expect_ok("no requests", got.error)
    expect_observed("no requests", 0, 0, got.responses[0])
    got = await c.call(BIDI, [])
    expect("no messages", "OK and 0", f"{describe(got.error)} and {len(got.responses)}")
