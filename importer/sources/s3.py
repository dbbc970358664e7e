"""An object in S3: boto3 finds the credentials and signs, HttpSource brings the bytes.

The only module that speaks to boto3; it costs 0.2 s and 27 MB, so it is imported by the first signature.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from importer.api.failure import Failure
from importer.api.request import Access, S3Access
from importer.sources import s3_answers, s3_place
from importer.sources.answers import Answer
from importer.sources.client import Client, HttpPolicy
from importer.sources.http import HttpSource
from importer.sources.origin import normalise, redact, secrets_in
from importer.sources.protocol import Basin, Interrupted, SourceFacts
from importer.sources.s3_place import Place

LIFETIME = "SLIPSTREAM_S3_PRESIGN_SECONDS"
DEFAULT_LIFETIME = 900
"""Seconds. boto3 renews temporary credentials 10 minutes before their end at the latest, so renewing at 10 minutes is in time."""
FALLBACK_REGION = "us-east-1"
"""What servers without regions expect."""
_MOVES = 3
"""Most attempts to find the region of a bucket."""
_EXPLAINED = frozenset({"denied", "not-found", "http-status", "redirects"})
"""Failures of HTTP about which S3 has more to say."""


class Signer:
    """Makes URLs that one object can be read by for a while."""

    def __init__(self, place: Place, settings: S3Access, lifetime: float, *, ours: bool = False, unencoded: bool = False) -> None:
        """`ours`: the settings' endpoint alone counts, also if it is None. `unencoded`: ask for no Content-Encoding."""
        self._place = place
        self._settings = settings
        self._lifetime = lifetime
        self._ours = ours
        self._unencoded = unencoded
        self._client: Any = None
        self._renew_at = 0.0
        self.base = ""
        """The last URL as HTTP sources show it, without its query."""
        self.signed = False
        self.credentials = "none"
        """Where they were found, in boto3's words."""

    @property
    def region(self) -> str:
        """The region that is signed for, "" before the first URL."""
        return str(self._client.meta.region_name) if self._client is not None else self._settings.region or ""

    @property
    def endpoint(self) -> str:
        """The service's URL, fit for logs, "" before the first URL."""
        return redact(str(self._client.meta.endpoint_url)) if self._client is not None else ""

    @property
    def due(self) -> bool:
        """True once the last URL should be replaced, well before it expires."""
        return self.signed and time.monotonic() >= self._renew_at

    async def url(self) -> str:
        """Return a URL good for the lifetime. Raises Failure for credentials and settings that cannot be used."""
        return await asyncio.to_thread(self._url)  # boto3 reads files and may ask a token service

    def _url(self) -> str:
        try:
            # A URL that was refused before its time: its credentials may have been replaced where they came from.
            if self._client is None or (self.signed and not self.due):
                self._client = self._connect()
            wanted = {"Bucket": self._place.bucket, "Key": self._place.key}
            if self.signed and self._unencoded:
                wanted["ResponseContentEncoding"] = "identity"
            url = self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=max(1, round(self._lifetime)))
        except Failure:
            raise
        except Exception as error:  # boto3's own kinds, and whatever a credential plug-in raises
            raise _trouble(error) from None
        self._renew_at = time.monotonic() + self._lifetime * 2 / 3
        try:
            plain = normalise(str(url))
        except ValueError as error:
            raise Failure("usage", f"the S3 endpoint is no URL: {error}", endpoint=redact(str(url))) from None
        self.base = redact(plain).partition("?")[0]
        return plain

    def _connect(self) -> Any:
        import boto3

        settings = self._settings
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)  # which boto3 itself ignores
        found = None if settings.anonymous else session.get_credentials()
        self.signed, self.credentials = found is not None, str(found.method) if found is not None else "none"
        client = self._client_of(session, settings.style)
        undecided = settings.style == "auto" and "addressing_style" not in (client.meta.config.s3 or {})
        # Left to itself boto3 presigns for AWS's global host, which redirects to regions and so breaks the signature.
        return self._client_of(session, "virtual") if undecided and s3_place.is_aws(client.meta.endpoint_url) else client

    def _client_of(self, session: Any, style: str) -> Any:
        from botocore import UNSIGNED
        from botocore.config import Config

        settings = self._settings
        options: dict[str, Any] = {"signature_version": "s3v4" if self.signed else UNSIGNED}
        if style != "auto":
            options["s3"] = {"addressing_style": style}
        if self._ours:
            options["ignore_configured_endpoint_urls"] = True
        region = settings.region or session.region_name or s3_place.region_named(settings.endpoint) or FALLBACK_REGION
        return session.client("s3", region_name=region, endpoint_url=settings.endpoint, config=Config(**options))

    def of_region(self, region: str) -> "Signer":
        """Return a signer for the same object in another region: at the same endpoint, or at AWS at that region's own."""
        own = s3_place.is_aws(self.endpoint)
        settings = replace(self._settings, region=region, endpoint=None if own else self._settings.endpoint)
        return Signer(self._place, settings, self._lifetime, ours=own or self._ours, unencoded=self._unencoded)

    def without_encoding(self) -> "Signer":
        """Return a signer that asks for the stored bytes as such, whatever Content-Encoding was stored with them."""
        return Signer(self._place, self._settings, self._lifetime, ours=self._ours, unencoded=True)

    def next_for(self, failure: Failure, told: s3_answers.Complaint | None) -> "Signer | None":
        """Return the signer to try instead after a failure to open, None if there is none."""
        region = s3_answers.elsewhere(told, self.region) if told is not None else None
        if region is not None:
            return self.of_region(region)
        if "content_encoding" in failure.evidence and self.signed and not self._unencoded:
            return self.without_encoding()
        return None


class S3Source:
    """One version of one S3 object, read through presigned URLs that are renewed before they expire."""

    def __init__(self, place: Place, access: Access, signer: Signer, http: HttpSource) -> None:
        """Take over an opened source; use `open` instead."""
        self._place = place
        self._access = access
        self._signer = signer
        self._http = http

    @classmethod
    async def open(cls, url: str, access: Access) -> "S3Source":
        """Find and probe the object of an s3://bucket/key URL. Raises Failure."""
        place = s3_place.parse(url)
        access = _suited(access)
        signer = Signer(place, access.s3, _lifetime())
        for _ in range(_MOVES):
            try:
                return cls(place, access, signer, await HttpSource.open(await signer.url(), access, fresh=signer.url))
            except Failure as failure:
                told = await _complaint(failure, signer, access)
                better = signer.next_for(failure, told)
                if better is None:
                    raise _explained(failure, told, place, signer) from None
                signer = better
        raise Failure("redirects", "the regions send each other the request", url=place.shown, last_region=signer.region)

    @property
    def facts(self) -> SourceFacts:
        """What the probe's answer told, under the object's s3:// URL."""
        signer, facts = self._signer, self._http.facts
        who = f"signed with credentials of {signer.credentials}" if signer.signed else "without credentials"
        note = f"asked {signer.endpoint} (region {signer.region}) {who}"
        return replace(facts, url=self._place.shown, name=self._place.name, notes=(note, *facts.notes))

    @property
    def head(self) -> bytes:
        """The first bytes; see HttpSource.head."""
        return self._http.head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end in one attempt; see Source.fetch."""
        try:
            await self._renew()
            async with aclosing(self._http.fetch(start, end)) as pieces:  # type: ignore[type-var] # an async generator
                async for piece in pieces:
                    yield piece
        except Failure as failure:
            raise await self._told(failure) from None

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring the bytes start..end into a basin in one attempt; see Source.pour."""
        try:
            await self._renew()
            await self._http.pour(start, end, basin)
        except Failure as failure:
            raise await self._told(failure) from None

    async def settle(self) -> None:
        """Check once more that the object did not change; see Source.settle."""
        try:
            await self._http.settle()
        except Failure as failure:
            raise await self._told(failure) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def _renew(self) -> None:
        if self._signer.due and self._http.facts.ranges:
            await self._http.renew()

    async def _told(self, failure: Failure) -> Failure:
        told = await _complaint(failure, self._signer, self._access)
        return _explained(failure, told, self._place, self._signer)


def _lifetime() -> float:
    return min(max(float(os.environ.get(LIFETIME, DEFAULT_LIFETIME)), 1.0), 7 * 86400.0)


def _suited(access: Access) -> Access:
    """Return the access as it serves S3. Raises Failure("usage") for a second way to log in."""
    if any(name.lower() == "authorization" for name, _ in access.headers):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, instead of --auth-file"
        raise Failure("usage", "S3 does not take an Authorization header beside a signature", hint=hint)
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return access if access.ca_file or access.insecure or not bundle else replace(access, ca_file=bundle)


async def _complaint(failure: Failure, signer: Signer, access: Access) -> s3_answers.Complaint | None:
    """Ask once more and read what S3 itself says of a refusal; None if it is no refusal or does not repeat itself."""
    if failure.code not in _EXPLAINED:
        return None
    client = Client(replace(access, connections=1), HttpPolicy(answer=15.0))
    try:
        url = await signer.url()
        async with asyncio.timeout(20):
            response = await client.ask((url,), {"Range": "bytes=0-0"})
            try:
                body = b""
                while response.status >= 300 and len(body) < s3_answers.MOST_BYTES and (piece := await client.read(response)):
                    body += piece
                answer: Answer = client.answer(response)
                return s3_answers.complaint(answer, body, _secrets(url)) if answer.status >= 300 else None
            finally:
                response.close()
    except (Failure, Interrupted, TimeoutError):
        return None
    finally:
        await client.close()


def _secrets(url: str) -> tuple[str, ...]:
    """Return the values of a presigned URL that a server may echo, the access key by itself too."""
    values = secrets_in(url)
    return (*values, *(value.partition("/")[0] for value in values if value.endswith("/aws4_request")))


def _explained(failure: Failure, told: s3_answers.Complaint | None, place: Place, signer: Signer) -> Failure:
    """Return the failure in S3's words where there are any, else under the object's s3:// URL."""
    better = None
    if told is not None:
        better = s3_answers.failure(told, place, endpoint=signer.endpoint, region=signer.region, signed=signer.signed)
    if better is not None:
        return better
    if failure.evidence.get("url", "").partition("?")[0] == signer.base:
        failure.evidence["url"] = place.shown
    return failure


def _trouble(error: Exception) -> Failure:
    """Say what boto3 could not do. Its texts are not repeated: they may quote files and programs that hold secrets."""
    from botocore import exceptions

    kind = type(error).__name__
    if isinstance(error, exceptions.ProfileNotFound):
        profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "unknown"
        hint = "correct AWS_PROFILE, or add the profile to ~/.aws/config"
        return Failure("credentials", "there is no AWS profile of this name", hint=hint, profile=profile)
    if isinstance(error, exceptions.PartialCredentialsError):
        return Failure("credentials", "one half of the access key pair is missing", hint=s3_answers.KEYS)
    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", "unknown"))[:80]
        hint = "check the role and the token that the AWS settings name"
        return Failure("credentials", "the token service gives no credentials", hint=hint, said=code, asked=error.operation_name)
    if isinstance(error, exceptions.HTTPClientError):
        return Failure("unreachable", "no connection to the service that gives the credentials", problem=kind)
    settings = (
        exceptions.ParamValidationError,
        exceptions.InvalidRegionError,
        exceptions.EndpointProviderError,
        exceptions.ConfigParseError,
    )
    if isinstance(error, settings) or str(error).startswith("Invalid endpoint"):
        return Failure("usage", "the AWS settings cannot be used", hint="check AWS_* variables and ~/.aws", problem=kind)
    return Failure("credentials", "boto3 finds no usable credentials", problem=kind)
