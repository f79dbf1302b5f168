"""Many calls, and calls that wait beside others."""

import asyncio

import interop_pb2 as pb

from interop_peer.cases.caller import BIDI, CLIENT, KINDS, UNARY, Caller
from interop_peer.cases.expect import Mismatch, describe, within
from interop_peer.cases.sizes import read_scripted, upload


async def concurrent_calls(c: Caller) -> None:
    """Many calls of all kinds at once, each of which takes a moment."""
    calls = 200

    async def one(number: int) -> None:
        kind = KINDS[number % 4]
        script = pb.Script(seed=number, delay_ms=50, responses=5, response_bytes=100 + number)
        try:
            await c.exchange(kind, script, 5 if kind in (CLIENT, BIDI) else 1, 200 + number)
        except Mismatch as mismatch:
            raise Mismatch(f"call {number}: {mismatch}") from mismatch

    ended = await asyncio.gather(*(one(number) for number in range(calls)), return_exceptions=True)
    failures = [error for error in ended if error is not None]
    if failures:
        first = failures[0] if isinstance(failures[0], Mismatch) else describe(failures[0])
        raise Mismatch(
            f"expected {calls} calls to succeed, but {len(failures)} failed, among them {first}"
        )


async def slow_reader(c: Caller) -> None:
    """Streams far larger than a window wait, each way, while other calls go on."""
    script = pb.Script(seed=8, responses=64, response_bytes=65536)
    c.doing = "opening the stream"
    responses = await c.interop.ServerStream(pb.Request(script=script))
    await _beside(c, "a response stream that nobody reads")
    await read_scripted(c, responses, script)

    uploaded = asyncio.create_task(upload(c, pb.Script(seed=9, read_delay_ms=500), 64, 65536))
    await _beside(c, "a request stream that nobody reads")
    c.doing = "the upload"
    await uploaded


async def _beside(c: Caller, what: str) -> None:
    """Makes some calls, which have less time than the case."""
    for number in range(20):
        calling = c.exchange(UNARY, pb.Script(response_bytes=1000), 1, 1000)
        try:
            await within(5, calling, f"{UNARY}: expected OK")
        except Mismatch as mismatch:
            raise Mismatch(f"call {number} beside {what}: {mismatch}") from mismatch


async def many_calls_in_a_row(c: Caller) -> None:
    """One call after the other."""
    for number in range(1000):
        script = pb.Script(seed=number, response_bytes=number % 100)
        try:
            await c.exchange(UNARY, script, 1, 100 - number % 100)
        except Mismatch as mismatch:
            raise Mismatch(f"call {number}: {mismatch}") from mismatch
