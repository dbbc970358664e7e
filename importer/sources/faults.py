"""What aiohttp and our own wires raise, in our words: Broken where another attempt may do better, Failure where not."""

import asyncio
import errno
import socket
import ssl

import aiohttp

from importer.api.failure import Failure
from importer.sources.answers import Broken
from importer.sources.dial import Hop
from importer.sources.origin import origin, redact
from importer.sources.wire import NotHttp
from machinery.service import tls

CERTIFICATE_ERRORS = (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)


def of_request(error: Exception, url: str, hop: Hop, ca_file: str | None) -> Failure | Broken:
    """Translate what a request for `url` raised before its answer's headers were there."""
    place = _place(url)
    if hop.refused is not None and isinstance(error, aiohttp.ClientConnectorError):
        return _of_refusal(hop.refused, url)
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
        return _too_late(place)
    if isinstance(error, TimeoutError):
        return _unanswered(place)
    if isinstance(error, aiohttp.InvalidURL):
        return Failure("usage", "the URL cannot be asked for", url=redact(url))
    if isinstance(error, aiohttp.ClientResponseError):
        return _not_http(error.message, place)
    return _cut(error, place)


def of_wire(error: Exception, url: str) -> Broken:
    """Translate what a wire of ours raised before its answer's head was there."""
    if isinstance(error, TimeoutError):
        return _unanswered(_place(url))
    if isinstance(error, NotHttp):
        return _not_http(str(error), _place(url))
    return _cut(error, _place(url))


def of_dial(error: OSError, url: str, hop: Hop) -> Failure | Broken:
    """Translate what a connection of our own to the server of `url` failed with."""
    if hop.refused is not None:
        return _of_refusal(hop.refused, url)
    if isinstance(error, TimeoutError):
        return _too_late(_place(url))
    if isinstance(error, socket.gaierror):
        return _of_name(error, origin(url).host, _place(url))
    return _of_socket(error, _place(url))


def of_body(error: Exception, url: str) -> Broken:
    """Translate what broke off a connection that was open already."""
    place = _place(url)
    if isinstance(error, asyncio.TimeoutError):
        return Broken("no bytes in time", Failure("stalled", "the server stopped sending", **place))
    if isinstance(error, aiohttp.ClientPayloadError | EOFError):
        failure = Failure("protocol", "the server ends its answers early", **place)
        return Broken("the answer ended early", failure, crowded=_was_reset(error))
    return _cut(error, place)


def _place(url: str) -> dict[str, str]:
    return {"host": origin(url).host, "port": str(origin(url).port)}


def _of_refusal(refused: tuple[str, str], url: str) -> Failure:
    address, reason = refused
    return Failure("address-refused", reason, address=address, url=redact(url))


def _too_late(place: dict[str, str]) -> Broken:
    return Broken("no connection in time", Failure("unreachable", "no connection in time", **place), hopeless=True)


def _unanswered(place: dict[str, str]) -> Broken:
    return Broken("no answer in time", Failure("stalled", "the server does not answer", **place))


def _not_http(problem: str, place: dict[str, str]) -> Broken:
    failure = Failure("protocol", "the answer is not HTTP", **place, problem=" ".join(problem.split())[:200])
    return Broken("the answer is not HTTP", failure, hopeless=True)


def _cut(error: Exception, place: dict[str, str]) -> Broken:
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
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _of_name(cause, error.host, place)  # which may be the proxy's
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        proxy = f"{error.host}:{error.port}"
        failure = Failure("unreachable", f"no connection to the proxy: {cause.strerror or cause}", **place, proxy=proxy)
        return Broken("no connection to the proxy", failure, hopeless=True)
    return _of_socket(cause, place)


def _of_name(cause: OSError, name: str, place: dict[str, str]) -> Broken:
    for_now = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
    problem = cause.strerror or str(cause)
    failure = Failure("unreachable", "the host's name cannot be resolved", **place | {"name": name, "problem": problem})
    return Broken("name not resolved", failure, hopeless=not for_now)


def _of_socket(cause: OSError, place: dict[str, str]) -> Broken:
    problem = cause.strerror or str(cause)
    refused = cause.errno in (errno.ECONNREFUSED, errno.ECONNRESET, None)
    failure = Failure("unreachable", f"no connection: {problem}", **place)
    return Broken(
        "connection refused" if refused else problem, failure, crowded=refused, hopeless=cause.errno != errno.ECONNRESET
    )
