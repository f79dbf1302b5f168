"""The Python peer: serves the test services through tunnels, and calls them."""
