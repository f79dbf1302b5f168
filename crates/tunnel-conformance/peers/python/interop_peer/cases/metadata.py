"""Headers and trailers."""

import grpc
import interop_pb2 as pb

from interop_peer import entry
from interop_peer.cases.caller import KINDS, UNARY, Caller, requests
from interop_peer.cases.expect import expect_metadata, expect_ok, expect_status


async def headers_and_trailers(c: Caller) -> None:
    """Both from every kind, whether it succeeds or fails."""
    headers = entry.pairs("x-header", "first", "x-header", "second", "x-other-header", "yes")
    trailers = entry.pairs("x-trailer", "first", "x-trailer", "second", "x-other-trailer", "yes")
    failure = pb.Failure(code=9, message="asked for", moment=pb.Failure.AFTER_HEADERS)
    for kind in KINDS:
        for fails in (False, True):
            script = pb.Script(headers=headers, trailers=trailers, responses=2, response_bytes=10)
            what = kind
            if fails:
                what = f"{kind} that fails"
                script.failure.CopyFrom(failure)
            got = await c.call(kind, requests(script, 1, 10))
            if fails:
                expect_status(what, grpc.StatusCode.FAILED_PRECONDITION, "asked for", got.error)
            else:
                expect_ok(what, got.error)
            expect_metadata(f"{what}: headers", headers, entry.from_metadata(got.headers))
            expect_metadata(f"{what}: trailers", trailers, entry.from_metadata(got.trailers))


async def metadata_text(c: Caller) -> None:
    """Text of all kinds, both ways."""
    entries = entry.pairs(
        *("x-text", "some text"),
        *("x-printable", "".join(map(chr, range(ord("!"), ord("~") + 1)))),
        *("x-several", "one", "x-several", "two", "x-several", "three"),
        *("x-commas", "a, b,c"),
        *("x-nothing", ""),
        *("x-punctuation.in_key-1", "yes"),
    )
    await _there(c, entries)
    await _back(c, entries)


# The two ways of binary metadata are separate cases: where a value cannot be sent, a
# peer may take the whole tunnel down.
async def metadata_bin(c: Caller) -> None:
    """Any bytes in a request."""
    await _there(c, _binary())


async def metadata_bin_response(c: Caller) -> None:
    """Any bytes in a response."""
    await _back(c, _binary())


def _binary() -> list[pb.Entry]:
    return entry.pairs(
        *("x-all-bin", bytes(range(256))),
        *("x-several-bin", b"\xff"),
        *("x-several-bin", b"\x00\xfe"),
    )


async def metadata_bin_ascii(c: Caller) -> None:
    """What every peer can do."""
    entries = entry.pairs("x-ascii-bin", bytes(range(128)))
    await _there(c, entries)
    await _back(c, entries)


async def _there(c: Caller, entries: list[pb.Entry]) -> None:
    """Sends entries with a request."""
    c.doing = "a call with metadata"
    request = pb.Request(script=pb.Script(observe=True))
    response = await c.interop.Unary(request, metadata=entry.to_metadata(entries))
    expect_metadata("metadata that the handler read", entries, response.observed.metadata)


async def _back(c: Caller, entries: list[pb.Entry]) -> None:
    """Wants entries in the headers and in the trailers of a response."""
    script = pb.Script(headers=entries, trailers=entries, response_bytes=10)
    got = await c.call(UNARY, requests(script, 1, 10))
    expect_ok("a call with metadata in its response", got.error)
    expect_metadata("headers", entries, entry.from_metadata(got.headers))
    expect_metadata("trailers", entries, entry.from_metadata(got.trailers))
