"""Where an S3 object is: bucket and key, from s3:// URLs and from http(s) URLs of an endpoint. Pure."""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from importer.api.failure import Failure
from importer.api.request import S3Access
from importer.sources.origin import normalise, redact

LONGEST_KEY = 1024
"""Bytes of UTF-8, as S3 counts them."""
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_AWS = re.compile(
    r"(?:(?P<bucket>[a-z0-9._-]+)\.)?"
    r"(?P<service>s3(?:-fips)?(?:\.dualstack)?(?:[.-](?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+))?\.amazonaws\.com(?:\.cn)?)"
)
_NAMED_REGION = re.compile(r"s3[.-](?P<region>[a-z0-9][a-z0-9-]*)\.[a-z0-9-]+\.[a-z0-9.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One object. The key is as S3 knows it: nothing in it is escaped."""

    bucket: str
    key: str

    @property
    def shown(self) -> str:
        """The URL for people, receipts and journals: no endpoint, no signature."""
        return "".join(mark if mark.isprintable() else "?" for mark in f"s3://{self.bucket}/{self.key}")

    @property
    def name(self) -> str:
        """Last part of the key: what a SHA256SUMS file would call it."""
        return self.key.rpartition("/")[2]


def parse(url: str) -> Place:
    """Return the object of an s3://bucket/key URL, whose key is taken as it stands. Raises Failure("usage")."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return _checked(bucket, key, url)


def _checked(bucket: str, key: str, url: str) -> Place:
    if not _BUCKET.fullmatch(bucket):
        raise Failure("usage", "no bucket can have this name", hint="write s3://BUCKET/KEY", bucket=redact(bucket))
    if not key or key.endswith("/"):
        raise Failure("usage", "the URL names a bucket or a folder, not an object", hint="write s3://BUCKET/KEY", url=redact(url))
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Failure("usage", "the key is not UTF-8 text", bucket=bucket) from None
    if size > LONGEST_KEY:
        raise Failure("usage", "the key is longer than S3 allows", bucket=bucket, bytes=size, limit=LONGEST_KEY)
    return Place(bucket=bucket, key=key)


def endpoint_url(text: str) -> str:
    """Return the one spelling of an endpoint's URL. Raises Failure("usage")."""
    try:
        plain = normalise(text)
    except ValueError as error:
        raise Failure("usage", f"the S3 endpoint is no URL: {error}", endpoint=redact(text)) from None
    if urlsplit(plain).query:
        raise Failure("usage", "an S3 endpoint has no query", endpoint=redact(text))
    return plain.rstrip("/")


def of_endpoint(url: str, settings: S3Access) -> tuple[str, S3Access]:
    """Take an http(s) URL of an object apart: return its s3:// URL, and the settings by which it is found.

    The hosts of AWS tell by themselves whether the bucket is in the host or in the path. Elsewhere it is the
    first part of the path, or the first label of the host where `settings.style` is virtual. Raises Failure("usage").
    """
    try:
        parts = urlsplit(normalise(url))
    except ValueError as error:
        raise Failure("usage", f"the URL cannot be asked for: {error}", url=redact(url)) from None
    if parts.query:
        hint = "a presigned URL needs no --s3: give it in a file, as @FILE"
        raise Failure("usage", "an S3 object's URL has no query", url=redact(url), hint=hint)
    if settings.endpoint is not None:
        raise Failure(
            "usage", "the http(s) URL names the endpoint already", hint="leave --s3-endpoint out, or write s3://BUCKET/KEY"
        )
    bucket, host, region = _split_host(parts.hostname or "", settings.style)
    path = unquote(parts.path).removeprefix("/")
    style = settings.style if bucket is None else "virtual"
    if bucket is None:
        bucket, _, path = path.partition("/")
        style = "path"
    port = f":{parts.port}" if parts.port else ""
    place = _checked(bucket, path, url)
    found = replace(settings, endpoint=f"{parts.scheme}://{host}{port}", region=region or settings.region, style=style)
    return f"s3://{place.bucket}/{place.key}", found


def _split_host(host: str, style: str) -> tuple[str | None, str, str | None]:
    """Return the bucket that a host names (None: the path does), the rest of the host, and the region if it is AWS's."""
    aws = _AWS.fullmatch(host)
    if aws:
        return aws["bucket"], aws["service"], aws["region"]
    shown = f"[{host}]" if ":" in host else host
    if style != "virtual":
        return None, shown, None
    bucket, _, rest = host.partition(".")
    return bucket, rest, None


def is_aws(endpoint: str) -> bool:
    """Tell whether an endpoint is AWS's own, so that another region has another endpoint."""
    return _AWS.fullmatch(urlsplit(endpoint).hostname or "") is not None


def region_named(endpoint: str | None) -> str | None:
    """Return the region that the host s3.REGION.some.domain names, None if it names none."""
    host = (urlsplit(endpoint).hostname or "") if endpoint else ""
    found = _AWS.fullmatch(host) or _NAMED_REGION.fullmatch(host)
    return found["region"] if found else None
