"""Binary units, and division that rounds up."""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient of two non-negative integers, rounded up."""
    return -(-dividend // divisor)
