"""Where a buffer holds zeroes: what need not be written.

Granules are 4 KiB, as qemu-img's, so that a disk written by us allocates no more than one written by it. The
comparison `bytearray == memoryview` is a memcmp; which granules deserve one is told by their first bytes.
"""

from collections.abc import Iterator

GRANULE = 4096
_STEPS = (1 << 20, 64 << 10, GRANULE)
_ZERO = {size: bytearray(size) for size in _STEPS}


def runs(buffer: memoryview | bytes | bytearray, granule: int = GRANULE) -> Iterator[tuple[int, int, bool]]:
    """Yield (offset, length, is_zero) of runs that cover `buffer` in order; neighbours differ in is_zero.

    Runs begin at multiples of `granule`, which is a multiple of 4096; the last may be shorter. A granule is a
    run of zeroes only if all of it is zero.
    """
    view = memoryview(buffer).cast("B")
    total = len(view)
    firsts = bytes(view[::granule])
    start = at = 0
    while (candidate := firsts.find(0, at)) >= 0:
        begin = candidate * granule
        end = _zero_until(view, begin, total)
        if end < total:
            end -= (end - begin) % granule
        if end == begin:
            at = candidate + 1
            continue
        if start < begin:
            yield start, begin - start, False
        yield begin, end - begin, True
        start = end
        at = -(-end // granule)
    if start < total:
        yield start, total - start, False


def _zero_until(view: memoryview, begin: int, total: int) -> int:
    """Return the end of the whole 4 KiB blocks (and a shorter last one) that are zero from `begin` on."""
    at = begin
    zeroes = _ZERO[GRANULE]
    if at + GRANULE <= total and zeroes != view[at : at + GRANULE]:
        return at  # by far the most frequent way out: a granule that only begins with a zero
    for size in _STEPS:
        zeroes = _ZERO[size]
        while at + size <= total and zeroes == view[at : at + size]:
            at += size
    rest = total - at
    if 0 < rest < GRANULE and bytearray(rest) == view[at:total]:
        return total
    return at
