"""What aiohttp raises, in this project's words: Broken where another attempt may do better, Failure where not."""

import asyncio
import errno
import socket
import ssl

import aiohttp

from importer.api.failure import Failure
from importer.sources.answers import Broken
from importer.sources.dial import Hop
from importer.sources.origin import origin, redact
from machinery.service import tls

CERTIFICATE_ERRORS = (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)


def of_request(error: Exception, url: str, hop: Hop, ca_file: str | None) -> Failure | Broken:
    """Translate what a request for `url` raised before its answer's headers were there."""
    place = {"host": origin(url).host, "port": str(origin(url).port)}
    if hop.refused is not None and isinstance(error, aiohttp.ClientConnectorError):
        address, reason = hop.refused
        return Failure("address-refused", reason, address=address, url=redact(url))
    if isinstance(error, (*CERTIFICATE_ERRORS, aiohttp.ClientSSLError)):
        trouble = tls.explain(error, ca_file)
        failure = Failure("tls", trouble.cause, hint=trouble.advice or None, **place | trouble.evidence)
        if isinstance(error, CERTIFICATE_ERRORS):
            return failure
        # A server that has enough connections may also hang up during the handshake.
        return Broken("the TLS handshake failed", failure, crowded=True, hopeless=bool(trouble.advice))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _of_proxy(error, place)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _of_connect(error, place)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Broken("no connection in time", Failure("unreachable", "no connection in time", **place), hopeless=True)
    if isinstance(error, TimeoutError):
        return Broken("no answer in time", Failure("stalled", "the server does not answer", **place))
    if isinstance(error, aiohttp.InvalidURL):
        return Failure("usage", "the URL cannot be asked for", url=redact(url))
    if isinstance(error, aiohttp.ClientResponseError):
        text = " ".join(error.message.split())[:200]
        failure = Failure("protocol", "the answer is not HTTP", **place, problem=text)
        return Broken("the answer is not HTTP", failure, hopeless=True)
    return of_body(error, url)


def of_body(error: Exception, url: str) -> Broken:
    """Translate what broke off a connection that was open already."""
    place = {"host": origin(url).host, "port": str(origin(url).port)}
    if isinstance(error, asyncio.TimeoutError):
        return Broken("no bytes in time", Failure("stalled", "the server stopped sending", **place))
    if isinstance(error, aiohttp.ClientPayloadError):
        failure = Failure("protocol", "the server ends its answers early", **place)
        return Broken("the answer ended early", failure, crowded=_was_reset(error))
    failure = Failure("unreachable", "the server closes its connections", **place, problem=type(error).__name__)
    return Broken("connection lost", failure, crowded=True)


def _was_reset(error: BaseException) -> bool:
    return "ConnectionResetError" in str(error)


def _of_proxy(error: aiohttp.ClientHttpProxyError, place: dict[str, str]) -> Failure | Broken:
    if error.status == 407:
        return Failure("denied", "the proxy asks for credentials", hint="put them into the proxy variable", **place)
    failure = Failure("unreachable", f"the proxy refused the tunnel (HTTP {error.status})", **place)
    return Broken(f"proxy: HTTP {error.status}", failure, hopeless=error.status < 500)


def _of_connect(error: aiohttp.ClientConnectorError, place: dict[str, str]) -> Broken:
    cause = error.os_error
    problem = cause.strerror or str(cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        for_now = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
        # The name that did not resolve may be the proxy's.
        failure = Failure("unreachable", "the host's name cannot be resolved", **place | {"name": error.host, "problem": problem})
        return Broken("name not resolved", failure, hopeless=not for_now)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        proxy = f"{error.host}:{error.port}"
        failure = Failure("unreachable", f"no connection to the proxy: {problem}", **place, proxy=proxy)
        return Broken("no connection to the proxy", failure, hopeless=True)
    refused = cause.errno in (errno.ECONNREFUSED, errno.ECONNRESET, None)
    failure = Failure("unreachable", f"no connection: {problem}", **place)
    return Broken(
        "connection refused" if refused else problem, failure, crowded=refused, hopeless=cause.errno != errno.ECONNRESET
    )
