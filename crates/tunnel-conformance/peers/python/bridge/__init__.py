"""The Python peer: a bridge between plain gRPC and the tunnels of grpctunnel-py."""
