"""The service of the examples."""

import echo_pb2
import grpc

from interop_peer.cases.caller import Caller
from interop_peer.cases.expect import expect, expect_status


async def echo(c: Caller) -> None:
    """It repeats what it is told."""
    for message in ("Hello", "naïve 🦀"):
        c.doing = "echo"
        response = await c.echo.Echo(echo_pb2.EchoRequest(message=message))
        expect("echo", f"Echo: {message}", response.message)


async def echo_error(c: Caller) -> None:
    """It fails as it is told."""
    c.doing = "echo error"
    error = None
    try:
        await c.echo.EchoError(echo_pb2.EchoErrorRequest(code=5, message="nothing here"))
    except grpc.RpcError as failed:
        error = failed
    expect_status("echo error", grpc.StatusCode.NOT_FOUND, "nothing here", error)
