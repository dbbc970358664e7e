"""Which proxy a URL is asked through: --proxy, else the usual environment variables in both cases."""

from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

from importer.api.failure import Failure
from importer.sources.origin import has_userinfo, redact


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy without its credentials, which stand apart so that the URL may be shown."""

    url: str
    authorization: str = ""
    """Value of Proxy-Authorization, "" if there are no credentials."""

    def __repr__(self) -> str:
        """Hide the credentials."""
        return f"Proxy({self.url!r})"


def proxy_for(url: str, chosen: str | None) -> Proxy | None:
    """Return the proxy for a normalised URL, None to connect directly.

    `chosen` (from --proxy) serves every host; the environment's choice respects no_proxy.
    Raises Failure for proxies that are not http or https, and for credentials in `chosen`, which was in argv.
    """
    if chosen:
        if has_userinfo(chosen if "://" in chosen else f"http://{chosen}"):
            raise Failure(
                "secret-in-argv",
                "--proxy carries user information",
                hint="leave --proxy out and set https_proxy in the environment",
            )
        return _parse(chosen)
    parts = urlsplit(url)
    # The standard library lets lower case win over upper case, and ignores HTTP_PROXY under CGI (httpoxy).
    known = getproxies_environment()
    found = known.get(parts.scheme) or known.get("all")
    if not found or proxy_bypass_environment(parts.netloc, known):
        return None
    return _parse(found)


def _parse(text: str) -> Proxy:
    full = text if "://" in text else f"http://{text}"
    parts = urlsplit(full)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure("usage", "only http and https proxies can be used", proxy=redact(full), hint="unset it or choose another")
    authorization = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    return Proxy(url=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", authorization=authorization)
