"""What is known of the calls that have a name."""

import asyncio
from collections.abc import Callable

import interop_pb2 as pb


class Records:
    """Keeps a record of each call, and wakes whoever waits for one to change."""

    def __init__(self) -> None:
        self._calls: dict[str, pb.WatchResponse] = {}
        self._changed = asyncio.Event()

    def update(self, call: str, change: Callable[[pb.WatchResponse], None]) -> None:
        """Changes the record of a call; those without a name have none."""
        if not call:
            return
        change(self._calls.setdefault(call, pb.WatchResponse()))
        # Whoever waits holds the old event and is woken by it.
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, request: pb.WatchRequest) -> pb.WatchResponse:
        """Waits until a call has come as far as the request says."""
        try:
            async with asyncio.timeout(request.wait_ms / 1000):
                while not self._reached(request):
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._calls.get(request.call, pb.WatchResponse())

    def _reached(self, request: pb.WatchRequest) -> bool:
        state = self._calls.get(request.call, pb.WatchResponse()).state
        if state == pb.WatchResponse.RUNNING:
            return request.until == pb.WatchRequest.BEGUN
        return state != pb.WatchResponse.UNKNOWN
