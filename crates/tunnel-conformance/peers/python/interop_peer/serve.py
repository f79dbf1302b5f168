"""Serving through tunnels, in both directions."""

import argparse
import asyncio
import os
import signal
import sys
import threading

import grpc
from grpctunnel import (
    ReverseTunnelServer,
    TunnelOptions,
    TunnelServiceHandler,
    TunnelServiceHandlerOptions,
)
from grpctunnel.proto.v1 import (
    TunnelServiceServicer,
    TunnelServiceStub,
    add_TunnelServiceServicer_to_server,
)

from interop_peer.handler import Echo, Interop


class OneHandlerEach(TunnelServiceServicer):
    """Gives each tunnel a handler of its own.

    Tunnels that share one also share its table of streams, so that all but the first are
    ended at their first call: their stream ids have been seen.
    """

    def __init__(self, options: TunnelServiceHandlerOptions) -> None:
        self._options = options
        self._services = (Interop(), Echo())

    async def OpenTunnel(self, request_iterator, context):
        """Serves one tunnel."""
        handler = TunnelServiceHandler(self._options)
        for service in self._services:
            handler.register_service(service)
        async for message in handler.service().OpenTunnel(request_iterator, context):
            yield message


async def listen(address: str, servicer: TunnelServiceServicer) -> grpc.aio.Server:
    """Serves tunnels, and says where."""
    server = grpc.aio.server()
    add_TunnelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    await server.start()
    print("LISTENING", port, flush=True)
    return server


async def serve_forward(options: argparse.Namespace) -> None:
    """Serves forward tunnels."""
    stopped = _stopped()
    wanted = TunnelServiceHandlerOptions(
        no_reverse_tunnels=True, disable_flow_control=options.revision == "zero"
    )
    server = await listen(options.address, OneHandlerEach(wanted))
    await stopped.wait()
    await server.stop(grace=None)


async def serve_reverse(options: argparse.Namespace) -> None:
    """Opens a reverse tunnel and serves through it."""
    services = (Interop(), Echo())
    stopped = asyncio.create_task(_stopped().wait())
    async with grpc.aio.insecure_channel(options.address) as channel:
        while not stopped.done():
            tunnel = asyncio.create_task(
                _serve_tunnel(options, TunnelServiceStub(channel), services)
            )
            await asyncio.wait({tunnel, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                tunnel.cancel()
            elif not options.again:
                return tunnel.result()
            elif (error := tunnel.exception()) is not None:
                print("peer:", error, file=sys.stderr)
                await asyncio.sleep(0.1)


async def _serve_tunnel(options: argparse.Namespace, stub: TunnelServiceStub, services) -> None:
    """Serves one tunnel to its end, with a server of its own for the reason given above."""
    watched = WatchedStub(stub)
    wanted = TunnelOptions(disable_flow_control=options.revision == "zero")
    server = ReverseTunnelServer(watched, wanted)
    for service in services:
        server.register_service(service)
    _, error = await server.serve(metadata=grpc.aio.Metadata(*options.key))
    # The library either trips over the end of a tunnel or passes over it, whether it was
    # a good one or not. The call knows.
    if error is not None and not isinstance(error, AttributeError):
        raise error
    code = await watched.tunnel.code()
    if code != grpc.StatusCode.OK:
        raise ConnectionError(f"the tunnel: {code.name} {await watched.tunnel.details()}")


class WatchedStub:
    """A stub that tells when a tunnel has been accepted, which the library keeps to itself."""

    def __init__(self, stub: TunnelServiceStub) -> None:
        self.tunnel: grpc.aio.StreamStreamCall | None = None
        self._stub = stub
        self._telling: asyncio.Task | None = None

    def OpenReverseTunnel(self, **arguments):
        """Opens a tunnel as the stub does."""
        self.tunnel = self._stub.OpenReverseTunnel(**arguments)
        self._telling = asyncio.create_task(self._tell())
        return self.tunnel

    async def _tell(self) -> None:
        await self.tunnel.initial_metadata()
        if not self.tunnel.done():
            print("CONNECTED", flush=True)


def _stopped() -> asyncio.Event:
    """Returns what is set once standard input ends or a signal comes."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)

    def read_to_end() -> None:
        # Not through sys.stdin, whose lock a reader would hold when the program ends.
        while os.read(0, 65536):
            pass
        loop.call_soon_threadsafe(stopped.set)

    # A daemon, as nothing else ends a read that waits.
    threading.Thread(target=read_to_end, daemon=True).start()
    return stopped
