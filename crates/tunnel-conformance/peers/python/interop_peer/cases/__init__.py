"""What a caller tries through a tunnel."""

import asyncio
from collections.abc import Awaitable, Callable

from interop_peer.cases import cancellation, concurrency, echo, failures, kinds, metadata, sizes
from interop_peer.cases.caller import Caller
from interop_peer.cases.expect import Mismatch, describe

# Every case, in the order in which they run.
CASES: dict[str, Callable[[Caller], Awaitable[None]]] = {
    "unary": kinds.unary,
    "unary-empty-message": kinds.unary_empty_message,
    "unary-large": sizes.unary_large,
    "server-stream": kinds.server_stream,
    "server-stream-large": sizes.server_stream_large,
    "client-stream": kinds.client_stream,
    "client-stream-large": sizes.client_stream_large,
    "bidi-ping-pong": kinds.bidi_ping_pong,
    "bidi-half-close": kinds.bidi_half_close,
    "empty-stream": kinds.empty_stream,
    "stream-empty-messages": kinds.stream_empty_messages,
    "headers-and-trailers": metadata.headers_and_trailers,
    "metadata-text": metadata.metadata_text,
    "metadata-bin": metadata.metadata_bin,
    "metadata-bin-response": metadata.metadata_bin_response,
    "metadata-bin-ascii": metadata.metadata_bin_ascii,
    "failure-code": failures.failure_code,
    "failure-details": failures.failure_details,
    "failure-after-headers": failures.failure_after_headers,
    "failure-after-messages": failures.failure_after_messages,
    "failure-during-upload": failures.failure_during_upload,
    "unimplemented-method": failures.unimplemented_method,
    "unimplemented-service": failures.unimplemented_service,
    "unicode-status-message": failures.unicode_status_message,
    "concurrent-calls": concurrency.concurrent_calls,
    "slow-reader": concurrency.slow_reader,
    "many-calls-in-a-row": concurrency.many_calls_in_a_row,
    "cancel-unary": cancellation.cancel_unary,
    "cancel-server-stream": cancellation.cancel_server_stream,
    "cancel-bidi": cancellation.cancel_bidi,
    "deadline": cancellation.deadline,
    "deadline-travels": cancellation.deadline_travels,
    "echo": echo.echo,
    "echo-error": echo.echo_error,
}


async def run(name: str, tunnel, limit: float) -> None:
    """Tries a case through a tunnel, for no longer than it may take.

    It fails with a sentence that says what was expected and what came.
    """
    caller = Caller(name, tunnel)
    case = asyncio.create_task(CASES[name](caller))
    await asyncio.wait({case}, timeout=limit)
    if not case.done():
        case.cancel()
        # The library may not let go of a call that is cancelled.
        await asyncio.wait({case}, timeout=1)
        raise Mismatch(f"timed out after {limit:g} s: {caller.doing}")
    error = case.exception()
    if isinstance(error, Mismatch):
        raise error
    if error is not None:
        raise Mismatch(f"{caller.doing}: {describe(error)}") from error
