"""Ways for a server to misbehave, for fakes.badhttp. Each is made from the object's bytes and a few numbers."""

import asyncio
import gzip
from collections.abc import Callable

from fakes.badhttp import Behaviour, HangUp, Request, Wire

ETAG = '"version-1"'
BIG = 8 << 20
"""Objects of the tests are larger than the head that a probe asks for."""


def span_of(request: Request, length: int) -> tuple[int, int] | None:
    """Return the span asked for, end excluded and within the object."""
    if request.range is None:
        return None
    first, last = request.range
    return first, min(last + 1, length)


async def send_part(
    wire: Wire, request: Request, data: bytes, *, etag: str = ETAG, body: bytes | None = None, length: int | None = None
) -> None:
    """Answer as RFC 9110 wants it; `body` and `length` replace what is really sent and announced."""
    span = span_of(request, len(data))
    headers: list[tuple[str, object]] = [("Accept-Ranges", "bytes")]
    if etag:
        headers.append(("ETag", etag))
    if span is None:
        sent = data if body is None else body
        await wire.head(200, (("Content-Length", length or len(sent)), *headers))
    else:
        start, end = span
        if start >= len(data):
            await wire.answer(416, b"", ("Content-Range", f"bytes */{len(data)}"))
            return
        sent = data[start:end] if body is None else body
        told = ("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        await wire.head(206, (("Content-Length", length or len(sent)), told, *headers))
    if request.method != "HEAD":
        await wire.send(sent)


def honest(data: bytes, etag: str = ETAG) -> Behaviour:
    """Serve ranges as it should be."""

    async def behave(request: Request, wire: Wire) -> None:
        await send_part(wire, request, data, etag=etag)

    return behave


def truncating(data: bytes, after: int, times: int | None = None) -> Behaviour:
    """Close each body after `after` bytes, though more were announced: the first `times` times, or always."""
    done = 0

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal done
        start, end = span_of(request, len(data)) or (0, len(data))
        if end - start > after and (times is None or done < times):
            done += 1
            await send_part(wire, request, data, body=data[start : start + after], length=end - start)
            raise HangUp
        await send_part(wire, request, data)

    return behave


def lying_total(data: bytes, told: int) -> Behaviour:
    """Announce an object of `told` bytes that ends at its true length."""

    async def behave(request: Request, wire: Wire) -> None:
        start, end = span_of(request, told) or (0, told)
        body = data[start:end]
        await wire.head(
            206, (("Content-Length", end - start), ("Content-Range", f"bytes {start}-{end - 1}/{told}"), ("ETag", ETAG))
        )
        await wire.send(body)
        if len(body) < end - start:
            raise HangUp

    return behave


def ignoring_range(data: bytes, first: int = 0) -> Behaviour:
    """Answer 200 with everything, from request number `first` on."""

    async def behave(request: Request, wire: Wire) -> None:
        if request.number < first:
            await send_part(wire, request, data)
        else:
            await wire.answer(200, data, ("ETag", ETAG))

    return behave


def chunked(data: bytes, cut: int | None = None) -> Behaviour:
    """Tell no length and serve no ranges; cut the connection after `cut` bytes, without the last chunk."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.head(200, (("Transfer-Encoding", "chunked"),))
        for at in range(0, len(data), 100_000):
            if cut is not None and at >= cut:
                raise HangUp
            piece = data[at : at + 100_000]
            await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await wire.send(b"0\r\n\r\n")

    return behave


def until_closed(data: bytes) -> Behaviour:
    """Tell no length at all: the end of the connection is the end of the object (HTTP/1.0)."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.head(200, (("Connection", "close"),))
        await wire.send(data)
        raise HangUp

    return behave


def encoding(data: bytes, *, always: bool) -> Behaviour:
    """Answer with Content-Encoding: gzip, though identity was asked for: to ranges only, or always."""
    packed = gzip.compress(data, 1)

    async def behave(request: Request, wire: Wire) -> None:
        if request.range is None and not always:
            await wire.answer(200, data)
        else:
            await wire.answer(200, packed, ("Content-Encoding", "gzip"), ("ETag", ETAG))

    return behave


def shifted(data: bytes, told: Callable[[int, int], str], first: int = 1) -> Behaviour:
    """Put something else into Content-Range, made by `told` from start and end, from request number `first` on."""

    async def behave(request: Request, wire: Wire) -> None:
        span = span_of(request, len(data))
        if span is None or request.number < first:
            await send_part(wire, request, data)
            return
        start, end = span
        headers = (("Content-Length", end - start), ("Content-Range", told(start, end)), ("ETag", ETAG))
        await wire.head(206, headers)
        await wire.send(data[start:end])

    return behave


def changing(before: bytes, after: bytes, *, at: int, etags: tuple[str, str], if_range: bool = True) -> Behaviour:
    """Serve another object from request number `at` on; a good server answers If-Range with 200 then."""

    async def behave(request: Request, wire: Wire) -> None:
        old = request.number < at
        data, etag = (before, etags[0]) if old else (after, etags[1])
        condition = request.headers.get("if-range", "")
        if if_range and condition and condition != etag:
            await wire.answer(200, data, ("ETag", etag))
            return
        if request.headers.get("if-match", etag) != etag:
            await wire.answer(412)
            return
        await send_part(wire, request, data, etag=etag)

    return behave


def stalling(data: bytes, after: int, *, first: int, times: int | None = None) -> Behaviour:
    """From request number `first` on, send `after` bytes and then nothing for ever, `times` times."""
    done = 0

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal done
        start, end = span_of(request, len(data)) or (0, len(data))
        if request.number >= first and end - start > after and (times is None or done < times):
            done += 1
            await send_part(wire, request, data, body=data[start : start + after], length=end - start)
            await asyncio.Event().wait()
        await send_part(wire, request, data)

    return behave


def dripping(data: bytes, *, first: int) -> Behaviour:
    """From request number `first` on, send a byte every tenth of a second (slow-loris)."""

    async def behave(request: Request, wire: Wire) -> None:
        if request.number < first:
            await send_part(wire, request, data)
            return
        start, end = span_of(request, len(data)) or (0, len(data))
        await send_part(wire, request, data, body=b"", length=end - start)
        for at in range(start, end):
            await wire.send(data[at : at + 1])
            await asyncio.sleep(0.1)

    return behave


def resetting(data: bytes, times: int | None, *, first: int = 0, after: int = 5000) -> Behaviour:
    """Reset the connection after `after` bytes of a body, `times` times or always, from request number `first` on."""
    done = 0

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal done
        if request.number >= first and (times is None or done < times):
            done += 1
            start, end = span_of(request, len(data)) or (0, len(data))
            await send_part(wire, request, data, body=data[start : start + after], length=end - start)
            wire.reset()
        await send_part(wire, request, data)

    return behave


def crowded(data: bytes, most: int, *, reset: bool) -> Behaviour:
    """Serve at most `most` requests at a time; reset the others or answer them 503 with Retry-After."""
    busy = 0

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal busy
        if busy >= most:
            if reset:
                wire.reset()
            await wire.answer(503, b"too many connections", ("Retry-After", 1))
            return
        busy += 1
        try:
            await asyncio.sleep(0.05)
            await send_part(wire, request, data)
        finally:
            busy -= 1

    return behave


def refusing(data: bytes, status: int, times: int | None, *headers: tuple[str, object], first: int = 0) -> Behaviour:
    """Answer with `status` from request number `first` on, `times` times or always."""
    done = 0

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal done
        if request.number >= first and (times is None or done < times):
            done += 1
            await wire.answer(status, b"<html><body>no</body></html>", ("Content-Type", "text/html"), *headers)
            return
        await send_part(wire, request, data)

    return behave


def no_head(data: bytes) -> Behaviour:
    """Answer 403 to HEAD, as presigned URLs do."""

    async def behave(request: Request, wire: Wire) -> None:
        if request.method == "HEAD":
            await wire.answer(403)
            return
        await send_part(wire, request, data)

    return behave


def redirecting(where: Callable[[Request], str], then: Behaviour, prefix: str = "/final") -> Behaviour:
    """Redirect what is not below `prefix` to where `where` says; serve the rest by `then`."""

    async def behave(request: Request, wire: Wire) -> None:
        if request.path.startswith(prefix):
            await then(request, wire)
        else:
            await wire.answer(302, b"", ("Location", where(request)))

    return behave


def presigned(data: bytes, uses: int) -> Behaviour:
    """Redirect to a URL that is good for `uses` requests and answers 403 after them; a fresh redirect gives a fresh one."""
    issued, used = 0, dict[str, int]()

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal issued
        if not request.path.startswith("/signed"):
            issued += 1
            await wire.answer(302, b"", ("Location", f"/signed/{issued}?signature=secret-{issued}"))
            return
        used[request.path] = used.get(request.path, 0) + 1
        if used[request.path] > uses:
            await wire.answer(403, b"<Error>expired</Error>")
            return
        await send_part(wire, request, data)

    return behave


def talkative(data: bytes, extra: bytes) -> Behaviour:
    """Send more bytes after each body than were announced."""

    async def behave(request: Request, wire: Wire) -> None:
        span = span_of(request, len(data)) or (0, len(data))
        await send_part(wire, request, data, body=data[slice(*span)] + extra, length=span[1] - span[0])

    return behave


def oversized(data: bytes, extra: bytes) -> Behaviour:
    """Announce and send more bytes than Content-Range says."""

    async def behave(request: Request, wire: Wire) -> None:
        span = span_of(request, len(data)) or (0, len(data))
        await send_part(wire, request, data, body=data[slice(*span)] + extra)

    return behave


def forgetful(data: bytes, evil: bytes) -> Behaviour:
    """Serve each byte truthfully once; whatever is asked for again comes from `evil`."""
    given = bytearray(len(data))

    async def behave(request: Request, wire: Wire) -> None:
        start, end = span_of(request, len(data)) or (0, len(data))
        if any(given[start:end]):
            body = bytes(
                new if seen else old for seen, old, new in zip(given[start:end], data[start:end], evil[start:end], strict=True)
            )
        else:
            body = data[start:end]
        given[start:end] = b"\x01" * (end - start)
        await send_part(wire, request, data, body=body)

    return behave


def endless() -> Behaviour:
    """Send zeroes for ever, in chunks."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.head(200, (("Transfer-Encoding", "chunked"),))
        chunk = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
        while True:
            await wire.send(chunk)

    return behave


def gibberish() -> Behaviour:
    """Speak another protocol."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        raise HangUp

    return behave


def page(text: bytes) -> Behaviour:
    """Answer 200 with an HTML page, whatever is asked for."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(200, text, ("Content-Type", "text/html; charset=utf-8"))

    return behave
