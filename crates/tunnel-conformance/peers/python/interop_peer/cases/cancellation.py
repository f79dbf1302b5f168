"""Callers that let go of a call, or have no more time for it.

A call of the library is an ordinary coroutine, and has no other handle by which to
cancel it than the task that runs it.
"""

import asyncio

import grpc
import interop_pb2 as pb

from interop_peer.cases.caller import Caller, requests
from interop_peer.cases.expect import Mismatch, expect, expect_pattern, expect_status, within

# For how long handlers would go on if nobody told them to stop, and how long they have
# to begin or to stop, in milliseconds.
_FOREVER = 120_000
_SOON = 5_000


async def _watch(c: Caller, call: str, until: int) -> str:
    """Asks the handler of a call where it stands."""
    c.doing = "watching the call"
    answer = await c.interop.Watch(pb.WatchRequest(call=call, until=until, wait_ms=_SOON))
    return pb.WatchResponse.State.Name(answer.state)


async def _stopped(c: Caller, call: str) -> None:
    """Checks that a handler was told to stop, and that the tunnel still works."""
    expect("the handler", "CANCELLED", await _watch(c, call, pb.WatchRequest.ENDED))
    await c.usable()


async def _cancel(reading: asyncio.Task) -> None:
    """Cancels a call through its task, and wants it to end as cancelled."""
    # A task that has not begun never calls anything, so it would not be cancelled either.
    await asyncio.sleep(0)
    reading.cancel()
    try:
        outcome = await reading
    except asyncio.CancelledError:
        return
    except grpc.RpcError as error:
        expect_status("the cancelled call", grpc.StatusCode.CANCELLED, None, error)
        return
    except StopAsyncIteration:
        outcome = None
    got = "the end" if outcome is None else "a message"
    raise Mismatch(f"the cancelled call: expected CANCELLED, got {got}")


async def cancel_unary(c: Caller) -> None:
    """While the handler is at work."""
    script = pb.Script(call=c.name_call(), delay_ms=_FOREVER)
    calling = asyncio.create_task(c.interop.Unary(requests(script, 1, 10)[0]))
    expect("the handler before", "RUNNING", await _watch(c, script.call, pb.WatchRequest.BEGUN))
    await _cancel(calling)
    await _stopped(c, script.call)


async def cancel_server_stream(c: Caller) -> None:
    """After some of the responses."""
    script = pb.Script(call=c.name_call(), responses=3, response_bytes=1000, linger_ms=_FOREVER)
    c.doing = "opening the stream"
    responses = await c.interop.ServerStream(pb.Request(script=script))
    for number in range(script.responses):
        c.doing = f"response {number}"
        response = await anext(responses)
        expect_pattern(c.doing, number, 1000, response.payload)
    await _cancel(asyncio.ensure_future(_read(responses)))
    await _stopped(c, script.call)


async def _read(responses) -> pb.Response:
    return await anext(responses)


async def cancel_bidi(c: Caller) -> None:
    """While the handler waits for another request."""
    script = pb.Script(call=c.name_call())
    c.doing = "opening the stream"
    stream = await c.interop.Bidi()
    for number, request in enumerate(requests(script, 3, 1000)):
        c.doing = f"round {number}"
        await stream.write(request)
        response = await stream.read()
        expect(f"round {number}: whether the stream ended", False, response is None)
        expect_pattern(c.doing, number, 1000, response.payload)
    await _cancel(asyncio.create_task(stream.read()))
    await _stopped(c, script.call)


async def deadline(c: Caller) -> None:
    """Both ends of a call stop when its time is up."""
    script = pb.Script(call=c.name_call(), delay_ms=_FOREVER)
    calling = c.interop.Unary(requests(script, 1, 10)[0], timeout=0.5)
    error = None
    try:
        await within(_SOON / 1000, calling, "the call: expected DEADLINE_EXCEEDED")
    except grpc.RpcError as failed:
        error = failed
    expect_status("the call", grpc.StatusCode.DEADLINE_EXCEEDED, None, error)
    await _stopped(c, script.call)


async def deadline_travels(c: Caller) -> None:
    """The handler knows of the deadline."""
    c.doing = "the call"
    response = await c.interop.Unary(pb.Request(script=pb.Script(observe=True)), timeout=20)
    if not response.observed.deadline:
        raise Mismatch("the handler: expected a deadline, got none")
    left = response.observed.deadline_ms
    if not 0 < left <= 20_000:
        raise Mismatch(f"the handler: expected a deadline at most 20000 ms away, got {left} ms")
