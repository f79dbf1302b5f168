"""Runs the peer."""

import argparse
import asyncio
import os
import sys

from bridge import call, serve

_COMMANDS = {
    "serve-forward": (
        serve.serve_forward,
        "accept forward tunnels, and pass their calls on to backends",
    ),
    "serve-reverse": (
        serve.serve_reverse,
        'open a reverse tunnel for each line "ADDRESS NAME" of standard input',
    ),
    "call-forward": (
        call.call_forward,
        "accept plain calls, and make them through forward tunnels",
    ),
    "call-reverse": (
        call.call_reverse,
        "accept reverse tunnels and plain calls, and make these calls through the tunnels",
    ),
    "relay": (serve.relay, "accept plain calls, and pass them on to backends without a tunnel"),
}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="peer", description="It runs until its standard input ends."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument(
            "--revision",
            choices=["zero", "one"],
            default="one",
            help="the highest revision to offer",
        )
        command.add_argument(
            "--backend", metavar="ADDRESS", help="the backend of calls that name none"
        )
        command.add_argument(
            "--tunnel", metavar="ADDRESS", help="the tunnel server for calls that name none"
        )
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, _read_lines, loop, lines)
    serving = asyncio.create_task(_COMMANDS[options.command][0](options, lines))
    await asyncio.wait({serving, reading}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(lines.put_nowait, line.strip())


asyncio.run(_run(_parse()))
# Calls still in flight must not keep the process.
os._exit(0)
