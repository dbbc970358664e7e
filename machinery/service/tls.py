"""TLS as a client: whom to trust, and a plain account of why a handshake failed."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name.
_NO_CHECK_TIME = 0x200000
_AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_VERIFY_ADVICE = {
    9: "the certificate is not valid yet: check this machine's clock",
    10: "the certificate expired: the server's operator must renew it; check this machine's clock",
    18: "the certificate is self-signed: name it with --ca-file if you know it to be genuine",
    19: "its authority is not trusted here: name the authority's certificate with --ca-file",
    20: "its authority is not known here: name the authority's certificate with --ca-file",
    21: "the server did not send its whole chain: name the authority's certificate with --ca-file",
    62: "the certificate is for another host: use the name it was made for",
    64: "the certificate is not for this address: use the name it was made for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a handshake failed: one sentence, the facts behind it, what to do ("" if nothing special)."""

    cause: str
    evidence: dict[str, str] = field(default_factory=dict)
    advice: str = ""


def client_context(ca_file: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and those in `ca_file`, TLS 1.2 at least.

    Raises OSError (ssl.SSLError is one) if `ca_file` cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """Let default contexts made in here trust nobody, which spares 20 ms each: for libraries that make some when imported.

    Not to be left to another task or thread half-way: OpenSSL is told by the environment.
    """
    kept = {name: os.environ.get(name) for name in _AUTHORITY_VARIABLES}
    os.environ.update(dict.fromkeys(kept, os.devnull))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def authorities(ca_file: str | None = None) -> str:
    """Name the sets of authorities that `client_context` trusts."""
    paths = ssl.get_default_verify_paths()
    files = [path for path in (paths.cafile, paths.capath) if path and _holds_anything(path)]
    system = f"the system's ({', '.join(files)})" if files else "none of the system's: the package ca-certificates is missing"
    return f"{system} and {ca_file}" if ca_file else system


def _holds_anything(path: str) -> bool:
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path) > 0
    except OSError:
        return False


def explain(error: BaseException, ca_file: str | None = None) -> Trouble:
    """Say what a failed handshake means. `error` is an ssl.SSLError or was caused by one."""
    found = _ssl_error(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        code, message = found.verify_code, found.verify_message
        evidence = {"verification": f"{message} ({code})", "authorities": authorities(ca_file)}
        return Trouble(cause=f"the certificate is not trusted: {message}", evidence=evidence, advice=_VERIFY_ADVICE.get(code, ""))
    reason = (found.reason if isinstance(found, ssl.SSLError) else None) or type(error).__name__
    advice = ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        advice = "this port seems not to speak TLS: try http://, or another port"
    elif reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        advice = "the server is too old to speak TLS 1.2"
    return Trouble(cause="the TLS handshake failed", evidence={"reason": str(reason)}, advice=advice)


def _ssl_error(error: BaseException | None) -> BaseException | None:
    """Find what OpenSSL itself said, on the chain of causes: libraries wrap it in look-alikes without its fields."""
    best: BaseException | None = None
    for _ in range(8):
        if error is None or getattr(error, "verify_code", None):
            return error or best
        if isinstance(error, ssl.SSLError) and (best is None or error.reason):
            best = error
        error = error.__cause__ or error.__context__
    return best


async def peer_certificate(address: str, port: int, server_name: str, seconds: float = 5.0) -> dict[str, str]:
    """Ask a server for its certificate without trusting it, and return what it says of itself; {} if that fails.

    Keys: subject, names, issuer, valid_from, valid_until. Two handshakes: the ssl module shows the fields
    of a verified certificate only, so the certificate of the first becomes the sole authority of the second.
    """
    with contextlib.suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(seconds):
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname = False
            blind.verify_mode = ssl.CERT_NONE
            _, der = await _shake(address, port, server_name, blind)
            if not der:
                return {}
            itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            itself.check_hostname = False
            itself.load_verify_locations(cadata=der)
            itself.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
            fields, _ = await _shake(address, port, server_name, itself)
            return _described(fields)
    return {}


async def _shake(address: str, port: int, name: str, context: ssl.SSLContext) -> tuple[dict[str, object], bytes | None]:
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    try:
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return dict(shown.getpeercert() or {}), shown.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()


def _described(fields: dict[str, object]) -> dict[str, str]:
    told = {
        "subject": _name(fields.get("subject")),
        "names": ", ".join(str(value) for _, value in _pairs(fields.get("subjectAltName"))),
        "issuer": _name(fields.get("issuer")),
        "valid_from": str(fields.get("notBefore", "")),
        "valid_until": str(fields.get("notAfter", "")),
    }
    return {key: value[:300] for key, value in told.items() if value}


def _name(parts: object) -> str:
    sets = parts if isinstance(parts, tuple) else ()
    return ", ".join(f"{key}={value}" for one in sets for key, value in _pairs(one))


def _pairs(parts: object) -> list[tuple[object, object]]:
    found = parts if isinstance(parts, tuple) else ()
    return [(pair[0], pair[1]) for pair in found if isinstance(pair, tuple) and len(pair) == 2]
