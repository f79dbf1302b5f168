"""The test services, in the form in which the library wants them.

Of streaming methods the library makes no iterators: they read and write the
stream themselves, and a single request comes to them as bytes.
"""

import echo_pb2
import echo_pb2_grpc
import grpc
import interop_pb2 as pb
import interop_pb2_grpc

from interop_peer.script import Call, status_code
from interop_peer.watch import Records


class Interop(interop_pb2_grpc.InteropServiceServicer):
    """Does what the scripts of its calls say."""

    def __init__(self) -> None:
        self._records = Records()

    async def Unary(self, request: pb.Request, context) -> pb.Response:
        """Answers once."""
        call = Call(self._records, context, request)

        async def body() -> pb.Response:
            response = call.response(0)
            call.answered()
            return response

        return await call.follow(body)

    async def ServerStream(self, request: bytes, stream, context) -> None:
        """Answers as often as the script says."""
        call = Call(self._records, context, pb.Request.FromString(request))
        await call.follow(call.respond)

    async def ClientStream(self, stream, context) -> pb.Response:
        """Reads everything, and answers once."""
        first = await _first(stream)
        call = Call(self._records, context, first)

        async def body() -> pb.Response:
            if first is not None:
                await call.wait(call.script.read_delay_ms)
                async for _ in call.requests():
                    pass
            response = call.response(0)
            response.observed.CopyFrom(call.observed())
            call.answered()
            return response

        return await call.follow(body)

    async def Bidi(self, stream, context) -> None:
        """Repeats each request, and then answers as often as the script says."""
        first = await _first(stream)
        if first is None:
            return
        call = Call(self._records, context, first)

        async def body() -> None:
            await call.send(call.complete(pb.Response(payload=first.payload)))
            await call.wait(call.script.read_delay_ms)
            async for request in call.requests():
                await call.send(pb.Response(payload=request.payload))
            await call.respond()

        await call.follow(body)

    async def Watch(self, request: pb.WatchRequest, context) -> pb.WatchResponse:
        """Tells what has become of another call."""
        return await self._records.watch(request)


class Echo(echo_pb2_grpc.EchoServiceServicer):
    """The service of the examples."""

    async def Echo(self, request: echo_pb2.EchoRequest, context) -> echo_pb2.EchoResponse:
        """Repeats what it is told."""
        return echo_pb2.EchoResponse(message=f"Echo: {request.message}")

    async def EchoError(self, request: echo_pb2.EchoErrorRequest, context) -> echo_pb2.EchoResponse:
        """Fails as it is told."""
        if request.code == 0:
            return echo_pb2.EchoResponse(message=request.message)
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(status_code(request.code), nothing, nothing, request.message)


async def _first(stream) -> pb.Request | None:
    try:
        return await stream.recv_message(pb.Request.FromString)
    except StopAsyncIteration:
        return None
