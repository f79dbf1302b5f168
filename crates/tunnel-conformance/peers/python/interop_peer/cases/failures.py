"""Calls that fail, each in its own way."""

import grpc
import interop_pb2 as pb
from google.protobuf import any_pb2
from google.rpc import status_pb2

from interop_peer import entry, pattern
from interop_peer.cases.caller import BIDI, KINDS, SERVER, UNARY, Caller, each, requests
from interop_peer.cases.expect import (
    Mismatch,
    expect,
    expect_metadata,
    expect_pattern,
    expect_status,
    within,
)
from interop_peer.script import status_code

_Code = grpc.StatusCode


async def failure_code(c: Caller) -> None:
    """Every code with every kind; tells of all that go wrong."""
    wrong = []
    for kind in KINDS:
        for number in range(1, 17):
            try:
                await _expect_failure(c, kind, status_code(number), f"failure number {number}")
            except Mismatch as mismatch:
                wrong.append(str(mismatch))
    if wrong:
        raise Mismatch("\n".join(wrong))


async def _expect_failure(c: Caller, kind: str, code: grpc.StatusCode, message: str) -> None:
    """Asks for a failure before anything else."""
    failure = pb.Failure(code=code.value[0], message=message)
    got = await c.call(kind, requests(pb.Script(responses=1, failure=failure), 1, 10))
    expect_status(kind, code, message, got.error)
    expect(f"{kind}: responses", 0, len(got.responses))


async def unicode_status_message(c: Caller) -> None:
    """Status messages that no HTTP header could carry as they are."""
    for message in (
        "naïve café",
        "日本語 🦀",
        "100% of\nthree\tlines\r\n",
        " spaces around ",
        "",
        "%41",
    ):
        await _expect_failure(c, UNARY, _Code.ABORTED, message)


async def failure_details(c: Caller) -> None:
    """Details of a known type and of an unknown one."""
    first = any_pb2.Any()
    first.Pack(pb.Entry(key="detail", value=bytes(range(256))))
    details = [first, any_pb2.Any(type_url="type.example/unknown.to.All", value=b"\1\2\3")]
    for kind in KINDS:
        failure = pb.Failure(
            code=_Code.FAILED_PRECONDITION.value[0], message="with details", details=details
        )
        got = await c.call(kind, requests(pb.Script(failure=failure), 1, 10))
        expect_status(kind, _Code.FAILED_PRECONDITION, "with details", got.error)
        came = _details(got.error)
        expect(f"{kind}: status details", len(details), len(came))
        for number, detail in enumerate(details):
            expect(f"{kind}: status detail {number}", detail, came[number])


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    """Returns the details from where gRPC's own library for them looks."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return list(status_pb2.Status.FromString(value).details)
    return []


async def failure_after_headers(c: Caller) -> None:
    """Headers, and then a failure."""
    headers = entry.pairs("x-before", "yes")
    failure = pb.Failure(
        code=_Code.DATA_LOSS.value[0], message="after headers", moment=pb.Failure.AFTER_HEADERS
    )
    for kind in KINDS:
        script = pb.Script(headers=headers, failure=failure, responses=1)
        got = await c.call(kind, requests(script, 1, 10))
        expect_status(kind, _Code.DATA_LOSS, "after headers", got.error)
        expect_metadata(f"{kind}: headers", headers, entry.from_metadata(got.headers))
        expect(f"{kind}: responses", 0, len(got.responses))


async def failure_after_messages(c: Caller) -> None:
    """What came before the failure, and then the failure."""
    failure = pb.Failure(
        code=_Code.OUT_OF_RANGE.value[0],
        message="after three",
        moment=pb.Failure.AFTER_RESPONSES,
        after_responses=3,
    )
    script = pb.Script(responses=5, response_bytes=1000, failure=failure)
    got = await c.call(SERVER, requests(script, 1, 10))
    expect_status("server stream", _Code.OUT_OF_RANGE, "after three", got.error)
    expect("server stream: responses", 3, len(got.responses))

    c.doing = "opening the bidi stream"
    stream = await c.interop.Bidi()
    for number, request in enumerate(requests(script, 3, 1000)):
        c.doing = f"bidi: response {number}"
        await stream.write(request)
        response = await stream.read()
        expect(f"bidi: whether the stream ended before response {number}", False, response is None)
        expect_pattern(c.doing, number, 1000, response.payload)
    # Not half-closed: the handler ends it alone.
    c.doing = "bidi: the failure"
    error = None
    try:
        await stream.read()
    except grpc.RpcError as failed:
        error = failed
    expect_status("bidi", _Code.OUT_OF_RANGE, "after three", error)


async def failure_during_upload(c: Caller) -> None:
    """A failure while far more than a window is still to be sent."""
    failure = pb.Failure(code=_Code.PERMISSION_DENIED.value[0], message="no more")
    uploading = c.interop.ClientStream(each(requests(pb.Script(failure=failure), 64, 65536)))
    error = None
    try:
        await within(5, uploading, "the upload: expected PERMISSION_DENIED")
    except grpc.RpcError as failed:
        error = failed
    expect_status("the upload", _Code.PERMISSION_DENIED, "no more", error)
    await c.usable()


async def unimplemented_method(c: Caller) -> None:
    """A method that does not exist."""
    await _unimplemented(c, "/tunnel.interop.v1.InteropService/Missing")


async def unimplemented_service(c: Caller) -> None:
    """A service that does not exist."""
    await _unimplemented(c, "/tunnel.interop.v1.MissingService/Unary")


async def _unimplemented(c: Caller, method: str) -> None:
    """Calls it, once alone and once with a stream of requests."""
    got = await c.call(UNARY, [pb.Request(payload=pattern.of(0, 10))], method)
    expect_status("unary", _Code.UNIMPLEMENTED, None, got.error)
    got = await c.call(BIDI, requests(pb.Script(), 10, 1000), method)
    expect_status("bidi", _Code.UNIMPLEMENTED, None, got.error)
    await c.usable()
