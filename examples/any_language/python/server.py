"""A gRPC server that knows nothing of tunnels: the echo service, with reflection."""

import sys
from concurrent import futures

import grpc
from grpc_reflection.v1alpha import reflection

messages, services = grpc.protos_and_services("test/echo.proto")


class Echo(services.EchoServiceServicer):
    def Echo(self, request, context):
        return messages.EchoResponse(message=f"Python echoes: {request.message}")


def main():
    server = grpc.server(futures.ThreadPoolExecutor())
    services.add_EchoServiceServicer_to_server(Echo(), server)
    names = [messages.DESCRIPTOR.services_by_name["EchoService"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0"
    port = server.add_insecure_port(address)
    server.start()
    print(f"server: listening at 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(grace=None)


main()
