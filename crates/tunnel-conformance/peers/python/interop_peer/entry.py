"""Translates between metadata and its form in messages."""

from collections.abc import Iterable

import grpc
import interop_pb2 as pb


def pairs(*keys_and_values: str | bytes) -> list[pb.Entry]:
    """Makes entries of keys and values that alternate."""
    return [
        pb.Entry(key=key, value=_to_bytes(value))
        for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True)
    ]


def to_metadata(entries: Iterable[pb.Entry]) -> grpc.aio.Metadata:
    """Returns the metadata that entries stand for: bytes for binary keys, text for others."""
    return grpc.aio.Metadata(
        *(
            (entry.key, entry.value if entry.key.endswith("-bin") else entry.value.decode())
            for entry in entries
        )
    )


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[pb.Entry]:
    """Returns the entries that metadata consists of."""
    return [pb.Entry(key=key, value=_to_bytes(value)) for key, value in metadata or ()]


def by_key(entries: Iterable[pb.Entry]) -> dict[str, list[bytes]]:
    """Returns the values of each key, in their order."""
    values: dict[str, list[bytes]] = {}
    for entry in entries:
        values.setdefault(entry.key, []).append(entry.value)
    return values


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
