"""What both directions of the bridge share: kinds of methods, metadata, plain gRPC."""

import re
from collections.abc import Awaitable, Callable, Iterable

import grpc

# The metadata with which a call names its tunnel and its backend. The bridge that
# acts on an entry removes it.
TUNNEL_KEY = "x-tunnel"
BACKEND_KEY = "x-backend"

# The timeout of a plain call, in the form of grpc-timeout. Under that name the plain hop
# would enforce it, and not the tunnel.
_TIMEOUT_KEY = "x-timeout"

# Whether a method of a kind has a stream of requests, and one of responses.
Kind = tuple[bool, bool]
UNARY: Kind = (False, False)
CLIENT: Kind = (True, False)
SERVER: Kind = (False, True)
BIDI: Kind = (True, True)

# The methods of all services that are called through the bridge.
METHODS: dict[str, Kind] = {
    "tunnel.conformance.v1.TestService/Unary": UNARY,
    "tunnel.conformance.v1.TestService/ClientStream": CLIENT,
    "tunnel.conformance.v1.TestService/ServerStream": SERVER,
    "tunnel.conformance.v1.TestService/Bidi": BIDI,
    "grpc.testing.TestService/EmptyCall": UNARY,
    "grpc.testing.TestService/UnaryCall": UNARY,
    "grpc.testing.TestService/StreamingOutputCall": SERVER,
    "grpc.testing.TestService/StreamingInputCall": CLIENT,
    "grpc.testing.TestService/FullDuplexCall": BIDI,
    "grpc.testing.TestService/HalfDuplexCall": BIDI,
    "grpchantesting.TestService/Unary": UNARY,
    "grpchantesting.TestService/ClientStream": CLIENT,
    "grpchantesting.TestService/ServerStream": SERVER,
    "grpchantesting.TestService/BidiStream": BIDI,
    "test.EchoService/Echo": UNARY,
    "test.EchoService/EchoError": UNARY,
}

# What gRPC itself adds at each hop.
_OWN = (_TIMEOUT_KEY, "content-type", "user-agent", "te", "grpc-timeout", "grpc-accept-encoding")

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

# Ten years, in seconds.
_LONGEST_TIMEOUT = 315e6

# Large messages and much metadata are for the tunnel to refuse.
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 1 << 24),
    ("grpc.absolute_max_metadata_size", 1 << 24),
)


def onward(metadata: Iterable | None, *drop: str) -> grpc.aio.Metadata:
    """Returns the metadata that the next hop is to get."""
    left_out = (*drop, *_OWN)
    return grpc.aio.Metadata(
        *((key, value) for key, value in metadata or () if key not in left_out)
    )


def named(metadata: Iterable | None, key: str) -> str | None:
    """Returns the value with which a call names its next hop."""
    return next((value for name, value in metadata or () if name == key), None)


def timeout_of(metadata: Iterable | None) -> float | None:
    """Returns the timeout of a call in seconds. The library leaves it to its users."""
    text = named(metadata, _TIMEOUT_KEY) or named(metadata, "grpc-timeout") or ""
    found = re.fullmatch(r"(\d{1,8})([HMSmun])", text)
    timeout = int(found[1]) * _UNITS[found[2]] if found else None
    # Longer ones overflow in grpcio.
    return timeout if timeout is not None and timeout < _LONGEST_TIMEOUT else None


def dial(address: str) -> grpc.aio.Channel:
    """Makes a channel, which connects when it is first used."""
    # Without this, channels of one process share a connection.
    return grpc.aio.insecure_channel(
        address, options=(*_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    )


class _AnyMethod(grpc.GenericRpcHandler):
    """Gives every method the same handler."""

    def __init__(self, handler: Callable[[str, grpc.aio.ServicerContext], Awaitable[None]]):
        self._handler = handler

    def service(self, handler_call_details):
        """Returns the handler of a method; streams both ways carry calls of any kind."""
        method = handler_call_details.method.removeprefix("/")

        async def handle(_requests, context: grpc.aio.ServicerContext) -> None:
            await self._handler(method, context)

        return grpc.stream_stream_rpc_method_handler(handle)


async def listen(*handlers: grpc.GenericRpcHandler) -> tuple[grpc.aio.Server, int]:
    """Starts a server on a free port."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def listen_plain(
    handler: Callable[[str, grpc.aio.ServicerContext], Awaitable[None]],
) -> tuple[grpc.aio.Server, int]:
    """Starts a server that handles calls of any method in one way."""
    return await listen(_AnyMethod(handler))
