"""Compares what should be with what is."""

import asyncio
import json
from collections.abc import Awaitable, Iterable
from typing import TypeVar

import grpc
import interop_pb2 as pb

from interop_peer import entry, pattern

_T = TypeVar("_T")


class Mismatch(Exception):
    """Something was not as expected."""


def quote(text: str | None) -> str:
    """Writes a text so that it fits in one line."""
    return json.dumps(text, ensure_ascii=False)


def describe(error: BaseException | None) -> str:
    """Tells a status in one line."""
    if error is None:
        return "OK"
    if not isinstance(error, grpc.aio.AioRpcError):
        return f"an error without a status: {error!r}"
    return f"{error.code().name} {quote(error.details())}"


async def within(seconds: float, call: Awaitable[_T], what: str) -> _T:
    """Awaits a call for so long only, and then lets go of it.

    It runs in a task of its own: the library may swallow a cancellation, and so make of
    it an error of the call.
    """
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        raise Mismatch(f"{what}, got nothing within {seconds:g} s")
    return task.result()


def expect(what: str, want: object, got: object) -> None:
    """Compares two values."""
    if want != got:
        raise Mismatch(f"{what}: expected {want}, got {got}")


def expect_ok(what: str, error: BaseException | None) -> None:
    """Wants a call to have succeeded."""
    if error is not None:
        raise Mismatch(f"{what}: expected OK, got {describe(error)}") from error


def expect_status(
    what: str, code: grpc.StatusCode, message: str | None, error: BaseException | None
) -> None:
    """Wants a failure; any message will do where None is wanted."""
    right = isinstance(error, grpc.aio.AioRpcError) and error.code() == code
    if not right or (message is not None and error.details() != message):
        wanted = code.name if message is None else f"{code.name} {quote(message)}"
        raise Mismatch(f"{what}: expected {wanted}, got {describe(error)}") from error


def expect_pattern(what: str, number: int, size: int, payload: bytes) -> None:
    """Wants a payload of a size to be the pattern with a number."""
    if len(payload) != size:
        raise Mismatch(f"{what}: expected {size} bytes, got {len(payload)}")
    if not pattern.matches(number, payload):
        raise Mismatch(f"{what}: expected pattern {number % 251}, got other bytes")


def expect_observed(what: str, requests: int, size: int, response: pb.Response) -> None:
    """Wants the handler to have read so much."""
    if not response.HasField("observed"):
        raise Mismatch(f"{what}: expected to be told what the handler observed, got nothing")
    got = response.observed
    expect(f"{what}: requests that the handler read", requests, got.requests)
    expect(f"{what}: bytes that the handler read", size, got.request_bytes)
    expect(f"{what}: requests damaged on the way", 0, got.damaged)


def expect_metadata(what: str, want: Iterable[pb.Entry], got: Iterable[pb.Entry]) -> None:
    """Wants all values of each key, and allows other keys beside them."""
    came = entry.by_key(got)
    for key, values in entry.by_key(want).items():
        if came.get(key, []) != values:
            raise Mismatch(
                f"{what}: expected {key} to be {_show(values)}, got {_show(came.get(key, []))}"
            )


def _show(values: list[bytes]) -> str:
    """Shows values, and of long ones the part where they are likely to differ."""
    shown = (
        f"{len(value)} bytes that end in {value[-4:]!r}" if len(value) > 100 else repr(value)[1:]
        for value in values
    )
    return f"[{', '.join(shown)}]"
