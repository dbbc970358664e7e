"""What an HTTP answer means for an import. Pure: status and headers in, a value or an error out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from importer.api.failure import Failure
from importer.sources.protocol import Interrupted

REDIRECTS = frozenset({301, 302, 303, 307, 308})
STALE_ROUTE = frozenset({401, 403, 410}) | REDIRECTS
"""Answers after which a redirected object is looked for again at its first URL: a signed URL expired, a mirror moved."""


class Broken(Interrupted):
    """An attempt that broke off, together with the failure to report if it keeps doing so.

    `hopeless`: an opening probe need not try again.
    """

    def __init__(
        self,
        reason: str,
        failure: Failure,
        *,
        crowded: bool = False,
        retry_after: float | None = None,
        hopeless: bool = False,
    ) -> None:
        """Say why it broke off and what that amounts to."""
        super().__init__(reason, crowded=crowded, retry_after=retry_after)
        self.failure = failure
        self.hopeless = hopeless


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and headers (names in lower case) of one answer. `now`: seconds since the epoch, for Retry-After."""

    status: int
    headers: Mapping[str, str]
    now: float
    url: str
    """Redacted."""

    def header(self, name: str) -> str:
        """Return a header's value, "" if it is missing."""
        return self.headers.get(name, "").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRange:
    """Bytes start..end (end excluded) of total; total None if the server does not know it."""

    start: int
    end: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What tells one version of an object from another."""

    length: int | None
    etag: str = ""
    last_modified: str = ""
    date: str = ""

    def validators(self) -> dict[str, str]:
        """Return those that are known, for facts and receipts."""
        known = {"etag": self.etag, "last-modified": self.last_modified}
        return {name: value for name, value in known.items() if value}

    def if_range(self) -> str | None:
        """Return the validator that may go into If-Range, None if there is no strong one (RFC 9110, 8.8)."""
        if self.etag:
            return None if self.etag.startswith("W/") else self.etag
        modified, answered = _http_date(self.last_modified), _http_date(self.date)
        if modified is not None and answered is not None and answered - modified >= 60:
            return self.last_modified
        return None

    def contradicts(self, other: "Version") -> str | None:
        """Return the name of a property that both know and that differs, else None."""
        if self.length is not None and other.length is not None and self.length != other.length:
            return "length"
        if self.etag and other.etag and _opaque(self.etag) != _opaque(other.etag):
            return "etag"
        if self.last_modified and other.last_modified and self.last_modified != other.last_modified:
            return "last-modified"
        return None

    def proves(self, other: "Version") -> bool:
        """Tell whether `other`, found by another way, is certainly the same version."""
        if self.length is None or self.length != other.length or self.contradicts(other):
            return False
        return bool((self.etag and other.etag) or (self.last_modified and other.last_modified))


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")


def _http_date(text: str) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def retry_after(text: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for, None if it says nothing sensible."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    when = _http_date(text) if text else None
    return None if when is None else max(0.0, when - now)


def content_range(text: str) -> ContentRange | None:
    """Parse `bytes FIRST-LAST/TOTAL` strictly; None if it is anything else."""
    found = re.fullmatch(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", text.strip(), re.ASCII | re.IGNORECASE)
    if not found:
        return None
    start, end = int(found[1]), int(found[2]) + 1
    total = None if found[3] == "*" else int(found[3])
    if end <= start or (total is not None and end > total):
        return None
    return ContentRange(start=start, end=end, total=total)


def content_length(answer: Answer) -> int | None:
    """Return the length of the body, None if it is not told before its end."""
    text = answer.header("content-length")
    if answer.header("transfer-encoding") or not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
        return None
    return int(text)


def version(answer: Answer, length: int | None) -> Version:
    """Return the version that an answer describes."""
    return Version(
        length=length,
        etag=answer.header("etag"),
        last_modified=answer.header("last-modified"),
        date=answer.header("date"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a successful probe told. `again` asks to repeat it without a Range header, and says why."""

    length: int | None = None
    ranges: bool = False
    size: int | None = None
    """Bytes of this answer's body, None if it goes on to its end."""
    again: str = ""


def opening(answer: Answer, *, asked: int | None) -> Opening:
    """Judge the answer to a probe for the first `asked` bytes (None: for the whole object).

    Raises Failure or Broken for everything that is not an object.
    """
    if answer.status == 416 and asked:
        if re.fullmatch(r"bytes +\*/0", answer.header("content-range"), re.IGNORECASE):
            return Opening(length=0, ranges=False, size=0)
        return Opening(again="the server refused the range")
    if answer.status not in (200, 206):
        raise refusal(answer)
    encoding = answer.header("content-encoding").lower()
    if encoding not in ("", "identity"):
        if asked:
            return Opening(again=f"the server encodes its answers ({encoding})")
        raise Failure(
            "protocol",
            "the server encodes the object though it was asked not to",
            hint="turn off Content-Encoding for this object on the server, or use another mirror",
            url=answer.url,
            content_encoding=encoding,
        )
    if answer.status == 200:
        length = content_length(answer)
        return Opening(length=length, ranges=False, size=length)
    return _first_part(answer, asked)


def _first_part(answer: Answer, asked: int | None) -> Opening:
    part = content_range(answer.header("content-range"))
    if asked is None or part is None or part.start != 0 or part.end > asked:
        raise _odd("the server sent a part that was not asked for", answer)
    if part.total is None:
        return Opening(again="the server does not tell the length")
    _check_length(answer, part)
    return Opening(length=part.total, ranges=True, size=part.end)


def part_end(answer: Answer, *, start: int, end: int, known: Version) -> int:
    """Judge the answer to a request for bytes start..end (end excluded) of the version `known`.

    Returns where its body ends: `end`, or less if the server gave less. Raises Failure, Broken or Interrupted.
    """
    if answer.status == 416:
        raise _changed("length", answer)
    if answer.status == 200:
        differs = known.contradicts(version(answer, content_length(answer)))
        if differs:
            raise _changed(differs, answer)
        raise Interrupted("the server no longer serves ranges")
    if answer.status != 206:
        raise refusal(answer)
    part = content_range(answer.header("content-range"))
    if part is None or part.start != start or part.end > end:
        raise _odd("the server sent another range than was asked for", answer, asked=f"bytes={start}-{end - 1}")
    differs = known.contradicts(version(answer, part.total))
    if differs:
        raise _changed(differs, answer)
    if answer.header("content-encoding").lower() not in ("", "identity"):
        raise _odd("the server encoded a range", answer)
    _check_length(answer, part)
    return part.end


def same_whole(answer: Answer, known: Version) -> None:
    """Judge the answer to a repeated request for the whole object. Raises Failure, Broken or Interrupted."""
    if answer.status != 200:
        raise refusal(answer)
    if answer.header("content-encoding").lower() not in ("", "identity"):
        raise _odd("the server encoded the object though it was asked not to", answer)
    differs = known.contradicts(version(answer, content_length(answer)))
    if differs:
        raise _changed(differs, answer)


def _check_length(answer: Answer, part: ContentRange) -> None:
    length = content_length(answer)
    if length is not None and length != part.end - part.start:
        raise _odd("Content-Length contradicts Content-Range", answer)


def _odd(cause: str, answer: Answer, **evidence: str) -> Failure:
    shown = {name: answer.header(name)[:200] for name in ("content-range", "content-length", "content-type")}
    told = {name.replace("-", "_"): value for name, value in shown.items() if value}
    return Failure("protocol", cause, **{"url": answer.url, "status": str(answer.status)} | told | evidence)


def _changed(what: str, answer: Answer) -> Failure:
    return Failure(
        "source-changed", f"the object changed while it was read: another {what}", url=answer.url, status=answer.status
    )


def refusal(answer: Answer, excerpt: str = "") -> Failure | Broken:
    """Return what a status other than success amounts to. `excerpt`: the first printable text of the body."""
    evidence = {"url": answer.url, "status": str(answer.status)}
    if excerpt:
        evidence["body"] = excerpt
    status = answer.status
    if status == 407:
        return Failure("denied", "the proxy asks for credentials", hint="put them into the proxy variable", **evidence)
    if status in (401, 403):
        return Failure("denied", f"the server denies access (HTTP {status})", **evidence)
    if status in (404, 410):
        return Failure("not-found", f"the server does not have it (HTTP {status})", **evidence)
    if status in (429, 503):
        after = retry_after(answer.header("retry-after"), answer.now)
        if after is not None:
            evidence["retry_after"] = f"{after:.0f} s"
        failure = Failure("overloaded", f"the server is too busy (HTTP {status})", **evidence)
        return Broken(f"HTTP {status}", failure, crowded=True, retry_after=after)
    failure = Failure("http-status", f"the server answered HTTP {status}", **evidence)
    if status >= 500 or status == 408:
        return Broken(f"HTTP {status}", failure)
    return failure


def printable(data: bytes, secrets: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return the first `limit` characters of a body that a terminal can show, without any of `secrets`."""
    text = data.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())[:limit]
