"""Messages and streams larger than any window."""

import interop_pb2 as pb

from interop_peer.cases.caller import UNARY, Caller, each, requests
from interop_peer.cases.expect import expect, expect_observed, expect_pattern

_MEBIBYTE = 1 << 20
# So many messages of a mebibyte are a large stream.
_LARGE_COUNT = 16


async def unary_large(c: Caller) -> None:
    """One large message each way."""
    await c.exchange(UNARY, pb.Script(seed=5, response_bytes=3 * _MEBIBYTE), 1, 3 * _MEBIBYTE)


async def server_stream_large(c: Caller) -> None:
    """A large stream of responses."""
    script = pb.Script(seed=6, responses=_LARGE_COUNT, response_bytes=_MEBIBYTE)
    c.doing = "opening the stream"
    await read_scripted(c, await c.interop.ServerStream(pb.Request(script=script)), script)


async def read_scripted(c: Caller, responses, script: pb.Script) -> None:
    """Reads the responses of a script, and the end."""
    number = 0
    c.doing = f"response 0 of {script.responses}"
    async for response in responses:
        expect_pattern(c.doing, script.seed + number, script.response_bytes, response.payload)
        number += 1
        c.doing = f"response {number} of {script.responses}"
    expect("responses before the end", script.responses, number)


async def client_stream_large(c: Caller) -> None:
    """A large stream of requests."""
    await upload(c, pb.Script(seed=7), _LARGE_COUNT, _MEBIBYTE)


async def upload(c: Caller, script: pb.Script, count: int, size: int) -> None:
    """Sends a stream of requests and checks that they arrived."""
    c.doing = "the upload"
    response = await c.interop.ClientStream(each(requests(script, count, size)))
    expect_observed("the upload", count, count * size, response)
