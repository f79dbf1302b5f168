"""Handlers that pass the calls of tunnels on to plain gRPC backends."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable

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

from bridge.hop import (
    BACKEND_KEY,
    BIDI,
    CLIENT,
    METHODS,
    SERVER,
    UNARY,
    dial,
    listen,
    listen_plain,
    named,
    onward,
    timeout_of,
)


class Backends:
    """The channels to the backends so far."""

    def __init__(self, default: str | None) -> None:
        self._default = default
        self._channels: dict[str, grpc.aio.Channel] = {}

    def call(self, method: str, metadata, timeout: float | None) -> grpc.aio.StreamStreamCall:
        """Begins a call of a method at the backend that its metadata names."""
        address = named(metadata, BACKEND_KEY) or self._default
        if address is None:
            raise ValueError("the call names no backend")
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = dial(address)
        begin = channel.stream_stream(f"/{method}")
        return begin(metadata=onward(metadata, BACKEND_KEY), timeout=timeout)

    def register(self, register_method: Callable) -> None:
        """Registers a handler of every method with a server of tunnels."""
        for method, kind in METHODS.items():
            register_method(method, self._handler(method, kind), *kind)

    def _handler(self, method: str, kind: tuple[bool, bool]) -> Callable:
        """Returns a handler in the form that the library wants for its kind.

        Contexts lead to streams by a private name only, without which a unary call
        could not send headers.
        """

        async def unary(request: bytes, context) -> bytes:
            return await Passing(self, method, context, context._stream).single([request])

        async def client(stream, context) -> bytes:
            return await Passing(self, method, context, stream).single(None)

        async def server(request: bytes, stream, context) -> None:
            await Passing(self, method, context, stream).several([request])

        async def bidi(stream, context) -> None:
            await Passing(self, method, context, stream).several(None)

        return {UNARY: unary, CLIENT: client, SERVER: server, BIDI: bidi}[kind]


class Passing:
    """One call that comes through a tunnel and is made again at a backend."""

    def __init__(self, backends: Backends, method: str, context, stream) -> None:
        metadata = context.invocation_metadata()
        self._context = context
        self._stream = stream
        self._call = backends.call(method, metadata, timeout_of(metadata))

    async def single(self, requests: list[bytes] | None) -> bytes:
        """Passes on a call with one response."""
        async with self._requests(requests):
            await self._headers()
            response = await self._call.read()
            await self._end()
            return b"" if response is grpc.aio.EOF else response

    async def several(self, requests: list[bytes] | None) -> None:
        """Passes on a call with a stream of responses."""
        async with self._requests(requests):
            await self._headers()
            while (response := await self._call.read()) is not grpc.aio.EOF:
                await self._stream.send_message(response)
            await self._end()

    @contextlib.asynccontextmanager
    async def _requests(self, requests: list[bytes] | None):
        """Sends the requests meanwhile, and cancels the call if it is left early."""
        tasks = [
            asyncio.create_task(self._send(requests)),
            asyncio.create_task(self._cancelled()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            self._call.cancel()

    async def _send(self, requests: list[bytes] | None) -> None:
        try:
            if requests is None:
                with contextlib.suppress(StopAsyncIteration):
                    while True:
                        await self._call.write(await self._stream.recv_message())
            else:
                for request in requests:
                    await self._call.write(request)
            await self._call.done_writing()
        except (asyncio.InvalidStateError, grpc.RpcError):
            pass  # Receiving tells why.
        except Exception:
            # This is how the library tells of a call that was cancelled.
            self._call.cancel()

    async def _cancelled(self) -> None:
        await self._context.wait_for_cancellation()
        self._call.cancel()

    async def _headers(self) -> None:
        try:
            headers = await self._call.initial_metadata()
        except grpc.RpcError:
            return  # The end tells why.
        # A call without headers of its own has empty ones here.
        if headers:
            await self._stream.send_response_headers(onward(headers, BACKEND_KEY))

    async def _end(self) -> None:
        code = await self._call.code()
        # A tunnel has a place of its own for status details.
        details = () if isinstance(self._context, PlainContext) else ("grpc-status-details-bin",)
        trailers = onward(await self._call.trailing_metadata(), BACKEND_KEY, *details)
        await self._context.set_trailing_metadata(trailers)
        if code != grpc.StatusCode.OK:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, nothing, nothing, await self._call.details())


class OneHandlerEach(TunnelServiceServicer):
    """Gives each tunnel a handler of its own.

    Tunnels that share a handler also share its table of streams, so that all but the
    first end at their first call: their stream ids have been seen.
    """

    def __init__(self, options: TunnelServiceHandlerOptions, backends: Backends) -> None:
        self._options = options
        self._backends = backends

    async def OpenTunnel(self, request_iterator, context):
        """Serves one tunnel."""
        handler = TunnelServiceHandler(self._options)
        self._backends.register(handler.register_method)
        async for message in handler.service().OpenTunnel(request_iterator, context):
            yield message


async def serve_forward(options: argparse.Namespace, _lines) -> None:
    """Serves forward tunnels."""
    wanted = TunnelServiceHandlerOptions(
        no_reverse_tunnels=True, disable_flow_control=options.revision == "zero"
    )
    server, port = await listen()
    add_TunnelServiceServicer_to_server(OneHandlerEach(wanted, Backends(options.backend)), server)
    print("LISTENING", port, flush=True)
    await server.wait_for_termination()


async def serve_reverse(options: argparse.Namespace, lines: asyncio.Queue) -> None:
    """Opens a reverse tunnel for each line, and serves it to its end."""
    backends = Backends(options.backend)
    tunnels = set()
    print("READY", flush=True)
    while True:
        address, _, name = (await lines.get()).partition(" ")
        tunnel = asyncio.create_task(_serve_tunnel(options, backends, address, name))
        tunnels.add(tunnel)
        tunnel.add_done_callback(tunnels.discard)


async def _serve_tunnel(
    options: argparse.Namespace, backends: Backends, address: str, name: str
) -> None:
    async with dial(address) as channel:
        wanted = TunnelOptions(disable_flow_control=options.revision == "zero")
        # A server of its own, for the reason given above.
        server = ReverseTunnelServer(TunnelServiceStub(channel), wanted)
        backends.register(server.register_method)
        try:
            await server.serve(metadata=grpc.aio.Metadata(("x-tunnel", name)))
        except Exception as error:
            print("peer: the reverse tunnel:", repr(error), file=sys.stderr)


async def relay(options: argparse.Namespace, _lines) -> None:
    """Passes plain calls on to backends, without a tunnel."""
    backends = Backends(options.backend)

    async def handle(method: str, context: grpc.aio.ServicerContext) -> None:
        plain = PlainContext(context)
        try:
            await Passing(backends, method, plain, PlainStream(context)).several(None)
        except grpc.RpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(plain.trailers))

    server, port = await listen_plain(handle)
    print("LISTENING", port, flush=True)
    await server.wait_for_termination()


class PlainStream:
    """A plain call in the form of a stream of the library."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context

    async def recv_message(self) -> bytes:
        """Reads a request."""
        if (request := await self._context.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return request

    async def send_message(self, response: bytes) -> None:
        """Sends a response."""
        await self._context.write(response)

    async def send_response_headers(self, headers: grpc.aio.Metadata) -> None:
        """Sends the headers."""
        await self._context.send_initial_metadata(headers)


class PlainContext:
    """The context of a plain call in the form of the library's."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context
        self.trailers = grpc.aio.Metadata()

    def invocation_metadata(self):
        """Returns the metadata of the request."""
        return self._context.invocation_metadata()

    async def set_trailing_metadata(self, trailers: grpc.aio.Metadata) -> None:
        """Sets the trailers."""
        self.trailers = trailers
        self._context.set_trailing_metadata(trailers)

    async def wait_for_cancellation(self) -> None:
        """Never ends: a cancelled call ends its handler."""
        await asyncio.Event().wait()
