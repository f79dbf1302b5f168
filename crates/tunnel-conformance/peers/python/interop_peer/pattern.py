"""Payloads that show when they were damaged or mixed up."""

_PERIOD = 251  # prime, so that no power of two hides a shift
_PREPARED = 4 << 20
_TABLE = bytes(range(_PERIOD)) * (_PREPARED // _PERIOD + 2)


def of(number: int, size: int) -> bytes:
    """Returns so many bytes of the pattern with a number."""
    start = number % _PERIOD
    if size > _PREPARED:
        return (bytes(range(_PERIOD)) * (size // _PERIOD + 2))[start : start + size]
    return _TABLE[start : start + size]


def matches(number: int, payload: bytes) -> bool:
    """Tells whether a payload is the pattern with a number."""
    return payload == of(number, len(payload))
