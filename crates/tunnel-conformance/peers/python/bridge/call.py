"""Callers that make plain calls again through tunnels."""

import argparse
import asyncio
import contextvars

import grpc
from grpctunnel import (
    PendingChannel,
    TunnelOptions,
    TunnelServiceHandler,
    TunnelServiceHandlerOptions,
)
from grpctunnel.proto.v1 import TunnelServiceStub, add_TunnelServiceServicer_to_server

from bridge.hop import BIDI, CLIENT, METHODS, SERVER, TUNNEL_KEY, dial, listen, listen_plain
from bridge.hop import named, onward, timeout_of

# The number of seconds that a tunnel may take to open, and a call to end after its
# only response.
_OPEN_TIMEOUT = 10
_END_TIMEOUT = 2

# The streams that the library opens for the calls of a task.
_opened: contextvars.ContextVar[asyncio.Future | None] = contextvars.ContextVar(
    "opened", default=None
)


async def call_forward(options: argparse.Namespace, _lines) -> None:
    """Makes calls through the forward tunnel that a call names by "ADDRESS NAME".

    The first call with a name opens its tunnel.
    """
    tunnels: dict[str, asyncio.Task] = {}

    async def handle(method: str, context: grpc.aio.ServicerContext) -> None:
        name = named(context.invocation_metadata(), TUNNEL_KEY) or options.tunnel
        if name not in tunnels:
            tunnels[name] = asyncio.create_task(_open(name, options.revision))
        try:
            tunnel = await asyncio.shield(tunnels[name])
        except Exception as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"no tunnel: {error!r}")
        await _call(tunnel, method, context)

    server, port = await listen_plain(handle)
    print("LISTENING", port, flush=True)
    await server.wait_for_termination()


async def _open(name: str, revision: str):
    address = name.partition(" ")[0]
    wanted = TunnelOptions(disable_flow_control=revision == "zero")
    connection = dial(address)
    tunnel = await PendingChannel(TunnelServiceStub(connection), wanted).start()
    await asyncio.wait_for(tunnel.channel_ready(), _OPEN_TIMEOUT)
    # The channel is closed when nothing refers to it.
    tunnel.connection = connection
    _reveal(tunnel)
    return tunnel


async def call_reverse(options: argparse.Namespace, _lines) -> None:
    """Makes calls through the reverse tunnel that was opened with the name of a call."""
    tunnels: dict[str | None, object] = {}
    changed = asyncio.Condition()

    def opened(tunnel) -> None:
        _reveal(tunnel)
        asyncio.create_task(add(tunnel))

    async def add(tunnel) -> None:
        async with changed:
            name = named(tunnel._adapter.invocation_metadata(), TUNNEL_KEY)
            tunnels[name] = tunnels[None] = tunnel
            changed.notify_all()

    async def handle(method: str, context: grpc.aio.ServicerContext) -> None:
        name = named(context.invocation_metadata(), TUNNEL_KEY)
        async with changed:
            await changed.wait_for(lambda: name in tunnels)
        await _call(tunnels[name], method, context)

    handler = TunnelServiceHandler(
        TunnelServiceHandlerOptions(
            on_reverse_tunnel_open=opened, disable_flow_control=options.revision == "zero"
        )
    )
    tunnel_server, tunnel_port = await listen()
    add_TunnelServiceServicer_to_server(handler.service(), tunnel_server)
    server, port = await listen_plain(handle)
    print("LISTENING", port, tunnel_port, flush=True)
    await server.wait_for_termination()


def _reveal(tunnel) -> None:
    """Makes a tunnel tell which streams it opens: its calls show no headers or trailers."""
    allocate = tunnel._allocate_stream

    async def allocate_and_tell(*arguments, **named_arguments):
        stream = await allocate(*arguments, **named_arguments)
        opened = _opened.get()
        if opened is not None and not opened.done():
            opened.set_result(stream)
        return stream

    tunnel._allocate_stream = allocate_and_tell


async def _call(tunnel, method: str, context: grpc.aio.ServicerContext) -> None:
    """Makes a plain call again through a tunnel."""
    opened = asyncio.get_running_loop().create_future()
    _opened.set(opened)
    metadata = onward(context.invocation_metadata(), TUNNEL_KEY)
    timeout = timeout_of(context.invocation_metadata())
    headers = asyncio.create_task(_send_headers(opened, context))
    error = None
    try:
        await _exchange(tunnel, method, metadata, timeout, context, headers)
    except grpc.RpcError as failed:
        error = failed
    except BaseException:
        headers.cancel()
        raise
    if opened.done():
        stream = opened.result()
        if error is None:
            # The library returns before the trailers of a success have come.
            await asyncio.wait_for(stream._done_event.wait(), _END_TIMEOUT)
        if stream._headers_event.is_set():
            await headers
        context.set_trailing_metadata(onward(stream._trailers, TUNNEL_KEY))
    headers.cancel()
    if error is not None:
        trailers = onward(error.trailing_metadata(), TUNNEL_KEY)
        await context.abort(error.code(), error.details() or "", tuple(trailers))


async def _send_headers(opened: asyncio.Future, context: grpc.aio.ServicerContext) -> None:
    """Passes the headers on when they come."""
    stream = await asyncio.shield(opened)
    await stream._headers_event.wait()
    await context.send_initial_metadata(onward(stream._headers, TUNNEL_KEY))


async def _requests(context: grpc.aio.ServicerContext):
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


async def _exchange(tunnel, method, metadata, timeout, context, headers) -> None:
    async def write(response: bytes) -> None:
        # Headers come before every response.
        await headers
        await context.write(response)

    kind = METHODS.get(method, BIDI)
    name = f"/{method}"
    same = {"request_serializer": bytes, "response_deserializer": bytes}
    given = {"metadata": metadata, "timeout": timeout}
    if kind == CLIENT:
        await write(await tunnel.stream_unary(name, **same)(_requests(context), **given))
    elif kind == BIDI:
        responses = await tunnel.stream_stream(name, **same)(_requests(context), **given)
        async for response in responses:
            await write(response)
    else:
        request = await context.read()
        if request is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INTERNAL, "a call without a request")
        if kind == SERVER:
            responses = await tunnel.unary_stream(name, **same)(request, **given)
            async for response in responses:
                await write(response)
        else:
            await write(await tunnel.unary_unary(name, **same)(request, **given))
