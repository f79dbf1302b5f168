"""A gRPC client that knows nothing of tunnels. It names the device by metadata."""

import sys

import grpc

messages, services = grpc.protos_and_services("test/echo.proto")

address, key = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    stub = services.EchoServiceStub(channel)
    request = messages.EchoRequest(message="Hello")
    response = stub.Echo(request, metadata=[("tunnel-key", key)], timeout=30)
    print(response.message)
