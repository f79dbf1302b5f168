"""Calling through tunnels, in both directions."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable

import grpc
from grpctunnel import (
    PendingChannel,
    TunnelOptions,
    TunnelServiceHandler,
    TunnelServiceHandlerOptions,
)
from grpctunnel.proto.v1 import TunnelServiceStub

from interop_peer import cases
from interop_peer.serve import listen

# How many seconds a tunnel may take to come about.
_PATIENCE = 10
# And how many to end.
_FAREWELL = 2


class Failed(Exception):
    """Says what did not work."""


def one_line(error: Exception) -> str:
    """Tells an error in one line."""
    return "; ".join(line for line in (str(error) or repr(error)).splitlines() if line)


async def call_forward(options: argparse.Namespace) -> None:
    """Opens forward tunnels and runs cases through them."""
    wanted = TunnelOptions(disable_flow_control=options.revision == "zero")
    async with grpc.aio.insecure_channel(options.address) as connection:
        stub = TunnelServiceStub(connection)

        async def open_tunnel():
            tunnel = await PendingChannel(stub, wanted).start(
                metadata=grpc.aio.Metadata(*options.key)
            )
            await tunnel.channel_ready()
            # The library takes a call that has failed for one of an old handler.
            if (outer := tunnel.context()["stream"]).done():
                raise Failed(f"no tunnel: {(await outer.code()).name} {await outer.details()}")
            return tunnel

        await _try(options, open_tunnel, lambda tunnel: tunnel.close_async())


async def call_reverse(options: argparse.Namespace) -> None:
    """Accepts reverse tunnels and runs cases through them."""
    opened: asyncio.Queue = asyncio.Queue()
    handler = TunnelServiceHandler(
        TunnelServiceHandlerOptions(
            on_reverse_tunnel_open=opened.put_nowait,
            disable_flow_control=options.revision == "zero",
        )
    )
    server = await listen(options.address, handler.service())

    async def accept():
        while True:
            tunnel = await opened.get()
            if not tunnel._closed:
                return tunnel

    async def close(tunnel) -> None:
        # The library has no other way to end a reverse tunnel at this end.
        tunnel._adapter.close()

    try:
        await _try(options, accept, close)
    finally:
        # Devices that dial again are let go too.
        closing = asyncio.create_task(_close_each(opened, close))
        await server.stop(grace=_FAREWELL)
        closing.cancel()


async def _close_each(opened: asyncio.Queue, close: Callable[[object], Awaitable[None]]) -> None:
    while True:
        await close(await opened.get())


async def _try(
    options: argparse.Namespace,
    next_tunnel: Callable[[], Awaitable],
    close: Callable[[object], Awaitable[None]],
) -> None:
    """Runs cases, prints what came of them, and raises the failure to print last."""
    failed: dict[str, Exception] = {}
    tunnel = None
    for name in options.case:
        verdict = "PASS"
        try:
            if tunnel is None:
                tunnel = await _in_time(next_tunnel())
            await cases.run(name, tunnel, options.timeout)
        except Exception as error:
            failed[name] = error
            verdict = f"FAIL {one_line(error)}"
        if tunnel is not None and not options.one_tunnel:
            await close(tunnel)
            tunnel = None
        if len(options.case) > 1:
            print("CASE", name, verdict, flush=True)
    if tunnel is not None:
        await close(tunnel)
    if not failed:
        print("PASS", flush=True)
    elif len(options.case) == 1:
        raise failed[options.case[0]]
    else:
        raise Failed(f"{len(failed)} of {len(options.case)} cases: {', '.join(failed)}")


async def _in_time(opening: Awaitable):
    try:
        return await asyncio.wait_for(opening, _PATIENCE)
    except TimeoutError:
        raise Failed(f"no tunnel: none within {_PATIENCE} s") from None
    except grpc.RpcError as error:
        raise Failed(f"no tunnel: {error}") from error
