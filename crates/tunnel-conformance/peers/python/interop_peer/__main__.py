"""Runs the peer."""

import sys

from interop_peer.cli import main

sys.exit(main())
