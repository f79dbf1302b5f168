"""The command line, which is that of the Go peer."""

import argparse
import asyncio

from interop_peer import call, serve
from interop_peer.cases import CASES


def main() -> int:
    """Returns the exit code: 0 for success, 1 for failure; misuse exits with 2."""
    options = _parse()
    if options.command == "cases":
        print("\n".join(CASES))
        return 0
    commands = {
        "serve-forward": serve.serve_forward,
        "serve-reverse": serve.serve_reverse,
        "call-forward": call.call_forward,
        "call-reverse": call.call_reverse,
    }
    try:
        asyncio.run(commands[options.command](options))
        return 0
    except Exception as error:
        print("FAIL", call.one_line(error), flush=True)
        return 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peer")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("cases", help="list what can be tried")
    for name, text in (
        ("serve-forward", "serve through forward tunnels"),
        ("call-forward", "call through forward tunnels"),
        ("serve-reverse", "serve through a reverse tunnel"),
        ("call-reverse", "call through reverse tunnels"),
    ):
        _add_options(commands.add_parser(name, help=text, allow_abbrev=False), name)
    return parser.parse_args()


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    command.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="where to listen, or whom to dial"
    )
    command.add_argument(
        "--revision", choices=["zero", "one"], default="one", help="the highest revision to offer"
    )
    if name in ("call-forward", "serve-reverse"):
        command.add_argument(
            "--key",
            type=_pair,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="metadata to open tunnels with",
        )
    if name.startswith("call"):
        command.add_argument(
            "--case", type=_cases, required=True, metavar="NAME[,NAME...]|all", help="what to try"
        )
        command.add_argument(
            "--timeout",
            type=float,
            default=30,
            metavar="SECONDS",
            help="how long one case may take",
        )
        command.add_argument(
            "--one-tunnel", action="store_true", help="run all cases through one tunnel"
        )
    if name == "serve-reverse":
        command.add_argument(
            "--again", action="store_true", help="dial again when the tunnel has ended"
        )


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return key, value


def _cases(text: str) -> list[str]:
    names = list(CASES) if text == "all" else text.split(",")
    for name in names:
        if name not in CASES:
            raise argparse.ArgumentTypeError(f"there is no case {name!r}")
    return names
