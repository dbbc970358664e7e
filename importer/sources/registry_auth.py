"""Logging in to registries: credential files, WWW-Authenticate, and who may be told what. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from importer.api.failure import Failure
from importer.sources.origin import normalise, origin, redact
from importer.sources.reference import plain_host

LOG_IN = "give credentials with --auth-file, or log in with podman login or docker login"
SHORTEST_LIFE, LONGEST_LIFE = 60.0, 3600.0
"""Seconds. A token that tells no life lives for the shortest, as the protocol says."""
LONGEST_TOKEN = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What to prove oneself with: user and password, or a token made elsewhere."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """For the registry itself, where there is no user."""

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be repeated though a server may echo it."""
        return tuple(one for one in (self.password, self.token, self.basic.partition(" ")[2]) if len(one) >= 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFile:
    """One file of credentials: keys are host[:port][/namespace...]."""

    name: str
    logins: Mapping[str, Login] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    """Host to the name of the program that keeps its credentials; "" is for every host."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Key to what is wrong with its entry."""

    def login(self, name: str) -> Login | None:
        """Return what is known for an image's full name, the nearest namespace first. Raises Failure("credentials")."""
        parts = name.split("/")
        for count in range(len(parts), 0, -1):
            key = "/".join(parts[:count])
            if key in self.unreadable:
                raise Failure("credentials", f"an entry of the credential file {self.unreadable[key]}", file=self.name, entry=key)
            if key in self.logins:
                return self.logins[key]
        return None

    def helper(self, host: str) -> str | None:
        """Return the program that would know credentials for a host, None if no program is named."""
        return self.helpers.get(host) or self.helpers.get("")


def parse_auth_file(text: str, name: str) -> AuthFile:
    """Read a dockerconfigjson file, or one of the older form without "auths". Raises Failure("credentials").

    No failure repeats what the file holds, save its keys.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Failure("credentials", "the credential file is not JSON", hint="see containers-auth.json(5)", file=name)
    old = "auths" not in document and document and all(isinstance(one, dict) and "auth" in one for one in document.values())
    entries = document if old else document.get("auths") or {}
    if not isinstance(entries, dict):
        raise Failure("credentials", "the credential file's auths is no object", file=name)
    logins, unreadable = dict[str, Login](), dict[str, str]()
    for key, entry in entries.items():
        try:
            found = _login(entry)
        except ValueError as error:
            unreadable[plain_key(key)] = str(error)
            continue
        if found is not None:
            logins[plain_key(key)] = found
    return AuthFile(name=name, logins=logins, helpers={} if old else _helpers(document), unreadable=unreadable)


def _login(entry: object) -> Login | None:
    """Return what an entry holds, None if nothing. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("is no object")
    if entry.get("identitytoken"):
        raise ValueError("holds an identity token, which is not supported: use a user name and a password or access key")
    if entry.get("registrytoken"):
        return Login(token=_checked_token(entry["registrytoken"]))
    if entry.get("auth"):
        user, colon, password = _decoded(entry["auth"]).partition(":")
        if not colon:
            raise ValueError("does not hold user:password in base64")
        return Login(user=user, password=password.rstrip("\0"))
    if isinstance(entry.get("username"), str) and entry["username"]:
        return Login(user=entry["username"], password=str(entry.get("password", "")))
    return None


def _decoded(text: object) -> str:
    try:
        return base64.b64decode(str(text), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise ValueError("does not hold user:password in base64") from None


def _helpers(document: Mapping[str, Any]) -> dict[str, str]:
    named = document.get("credHelpers")
    found = {plain_key(key): str(value) for key, value in named.items()} if isinstance(named, dict) else {}
    if isinstance(document.get("credsStore"), str) and document["credsStore"]:
        found[""] = document["credsStore"]
    return found


def plain_key(key: str) -> str:
    """Return a key of a credential file as it is looked up: no scheme, one spelling of the host, no API version."""
    bare = re.sub(r"^https?://", "", key)
    host, _, path = bare.partition("/")
    path = re.sub(r"^v[12](/|$)", "", path) if bare != key else path
    plain = plain_host(host) or host
    return f"{plain}/{path.rstrip('/')}" if path.rstrip("/") else plain


def find_login(name: str, files: Iterable[AuthFile]) -> Login | None:
    """Return what the first file that knows an image's full name (host/repository) holds. Raises Failure."""
    return next((found for one in files if (found := one.login(name)) is not None), None)


def helper_of(host: str, files: Iterable[AuthFile]) -> str | None:
    """Return the program that files name for a host's credentials and that is never run here, None if there is none."""
    found = next((helper for one in files if (helper := one.helper(host))), None)
    return f"docker-credential-{found}" if found else None


def login_of_header(value: str) -> Login | None:
    """Return the login that an Authorization header's value amounts to, None for schemes that registries do not know."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return Login(token=rest.strip())
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = _decoded(rest.strip()).partition(":")
    except ValueError:
        return None
    return Login(user=user, password=password)


# -- what registries ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way to log in that a registry offers. Scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


_CHALLENGE = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|(?=[ \t]*(?:,|$)))")
_PARAMETER = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]*))[ \t]*(?=,|$)")
MOST_CHALLENGES = 16


def challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Return what WWW-Authenticate headers offer (RFC 9110, 11.6.1); what cannot be read ends the header it is in."""
    found: list[Challenge] = []
    for value in values:
        text, at = value[: 8 << 10], 0
        while len(found) < MOST_CHALLENGES and (named := _CHALLENGE.match(text, at)):
            at, parameters = named.end(), dict[str, str]()
            while given := _PARAMETER.match(text, at):
                quoted = given[2]
                plain = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else given[3]
                parameters.setdefault(given[1].lower(), plain)
                at = given.end()
            found.append(Challenge(scheme=named[1].lower(), parameters=parameters))
    return tuple(found)


def best(offers: tuple[Challenge, ...]) -> Challenge | None:
    """Return the offer to take up: a token before a password, which then only the token service sees."""
    for scheme in ("bearer", "basic"):
        for offer in offers:
            if offer.scheme == scheme and (scheme == "basic" or offer.parameters.get("realm")):
                return offer
    return None


def token_url(offer: Challenge, repository: str, registry: str, *, login: bool) -> str:
    """Return where to fetch the token for pulling from a repository of the registry at URL `registry`.

    Raises Failure("credentials") for a token service to which nothing may be told: one without TLS, unless the
    registry has none either and, where there is a login, it is the registry's very own origin.
    """
    realm = offer.parameters["realm"]
    try:
        url = normalise(realm)
    except ValueError as error:
        raise Failure("protocol", f"the registry names a token service that is none: {error}", realm=redact(realm)) from None
    if url.startswith("http:") and (registry.startswith("https:") or (login and origin(url) != origin(registry))):
        hint = "have the registry name a token service that speaks https"
        cause = "the registry sends credentials to a token service without TLS" if login else "the token service has no TLS"
        raise Failure("credentials", cause, hint=hint, registry=redact(registry), realm=redact(url))
    query = {"service": offer.parameters["service"]} if offer.parameters.get("service") else {}
    query["scope"] = f"repository:{repository}:pull"
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query, quote_via=quote, safe='/:')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token service gave. Life in seconds."""

    text: str = field(repr=False)
    life: float


def token(data: bytes) -> Token:
    """Read a token service's answer. Raises Failure("protocol")."""
    try:
        document = json.loads(data)
        text = _checked_token(document.get("token") or document.get("access_token"))
    except (ValueError, AttributeError, RecursionError):
        raise Failure("protocol", "the token service answers with no token") from None
    life = document.get("expires_in")
    told = life if type(life) in (int, float) else SHORTEST_LIFE
    # A NaN fails every comparison: then max keeps the limit.
    return Token(text=text, life=float(min(LONGEST_LIFE, max(SHORTEST_LIFE, told))))


def _checked_token(value: object) -> str:
    """Return what may go into a header. Raises ValueError."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("holds a token that is none")
    return value
