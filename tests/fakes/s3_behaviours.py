"""Ways for an S3 endpoint to misbehave, or to do what the real server of the tests does not. For fakes.badhttp."""

import asyncio
import time
from calendar import timegm
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from fakes.badhttp import Behaviour, Request, Wire
from fakes.behaviours import send_part


def query(request: Request) -> dict[str, str]:
    """Return what a presigned URL says: X-Amz-Credential and so on; empty for an unsigned one."""
    return dict(parse_qsl(urlsplit(request.path).query))


def key_id(request: Request) -> str:
    """Return the access key a request was signed with, "" if with none."""
    return query(request).get("X-Amz-Credential", "").partition("/")[0]


def region(request: Request) -> str:
    """Return the region a request was signed for."""
    return query(request).get("X-Amz-Credential", "////").split("/")[2]


def place(request: Request) -> str:
    """Return the path, decoded, without the query."""
    return unquote(urlsplit(request.path).path)


async def complain(wire: Wire, status: int, code: str, message: str, *headers: tuple[str, object], **fields: str) -> None:
    """Answer with an error document as S3 writes it."""
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in {"Code": code, "Message": message, **fields}.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}<RequestId>4442587FB7D0A2F9</RequestId></Error>'.encode()
    await wire.answer(status, body, ("Content-Type", "application/xml"), ("Connection", "close"), *headers)


def refusing(status: int, code: str, message: str = "No.", *headers: tuple[str, object], **fields: str) -> Behaviour:
    """Complain about everything."""

    async def behave(_: Request, wire: Wire) -> None:
        await complain(wire, status, code, message, *headers, **fields)

    return behave


def echoing(status: int, code: str) -> Behaviour:
    """Complain, and repeat in the message all that was sent."""

    async def behave(request: Request, wire: Wire) -> None:
        said = " ".join([key_id(request), *query(request).values()])
        await complain(wire, status, code, said, AWSAccessKeyId=key_id(request), StringToSign=said)

    return behave


def of_region(data: bytes, home: str, *, redirects: bool, **fields: str) -> Behaviour:
    """Serve requests signed for one region; answer the others by 301 without a Location, or by 400."""

    async def behave(request: Request, wire: Wire) -> None:
        if region(request) == home:
            await send_part(wire, request, data)
        elif redirects:
            await complain(wire, 301, "PermanentRedirect", "Ask elsewhere.", ("x-amz-bucket-region", home), **fields)
        else:
            said = f"the region '{region(request)}' is wrong; expecting '{home}'"
            await complain(wire, 400, "AuthorizationHeaderMalformed", said, Region=home, **fields)

    return behave


def slowing_down(data: bytes, times: int, beyond: int) -> Behaviour:
    """Answer the first `times` requests for bytes beyond an offset by 503 SlowDown, but not for the tail, which is read ahead."""
    left = times

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal left
        if left and request.range is not None and beyond <= request.range[0] < len(data) - (1 << 20):
            left -= 1
            await complain(wire, 503, "SlowDown", "Please reduce your request rate.", ("Retry-After", 1))
        else:
            await send_part(wire, request, data)

    return behave


def expiring(data: bytes, pause: float = 0.0) -> Behaviour:
    """Refuse URLs that have expired, as S3 does; serve the others after `pause` seconds."""

    async def behave(request: Request, wire: Wire) -> None:
        told = query(request)
        end = timegm(time.strptime(told["X-Amz-Date"], "%Y%m%dT%H%M%SZ")) + int(told["X-Amz-Expires"])
        if time.time() > end:
            await complain(wire, 403, "AccessDenied", "Request has expired")
            return
        await asyncio.sleep(pause)  # a slow server, not a synchronisation
        await send_part(wire, request, data)

    return behave


def wanting_token(data: bytes, good: Callable[[], str]) -> Behaviour:
    """Serve requests that carry the session token which is good just now."""

    async def behave(request: Request, wire: Wire) -> None:
        if query(request).get("X-Amz-Security-Token") == good():
            await send_part(wire, request, data)
        else:
            await complain(wire, 400, "ExpiredToken", "The provided token has expired.")

    return behave


def redirecting(location: str) -> Behaviour:
    """Send everybody elsewhere."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(307, b"", ("Location", location))

    return behave


def refusing_tokens(code: str) -> Behaviour:
    """Refuse as a token service does, whose error documents have another shape."""
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>No.</Message></Error></ErrorResponse>".encode()

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(403, body, ("Content-Type", "text/xml"), ("Connection", "close"))

    return behave


def token_service(key: tuple[str, str], token: str) -> Behaviour:
    """Answer AssumeRoleWithWebIdentity with temporary credentials."""
    body = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>'
        f"<Credentials><AccessKeyId>{key[0]}</AccessKeyId><SecretAccessKey>{key[1]}</SecretAccessKey>"
        f"<SessionToken>{token}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
        "<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/images/x</Arn><AssumedRoleId>a:x</AssumedRoleId></AssumedRoleUser>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    ).encode()

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(200, body, ("Content-Type", "text/xml"), ("Connection", "close"))

    return behave
