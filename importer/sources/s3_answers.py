"""What an S3 server says when it serves no object: its error documents, and the failures they amount to. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from types import MappingProxyType

from importer.api.failure import Failure
from importer.sources.answers import Answer, printable
from importer.sources.s3_place import Place

MOST_BYTES = 64 << 10
"""No error document is longer."""
_FIELD = re.compile(r"<(Code|Message|Region|Endpoint|StorageClass|ServerTime|RequestId)>([^<]{0,1000})</")
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "Redirect",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An answer without an object. Texts are "" where the server does not tell; they hold no secret."""

    status: int
    code: str
    """Such as NoSuchKey."""
    message: str
    region: str
    """Where the bucket is, if that is another place than was asked."""
    endpoint: str
    """The host to ask instead, as the server has it. Told to people, never followed."""
    request: str
    """The request's number, which the operator can look up."""
    server_clock: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a code means: a failure's code, its cause and its hint."""

    failure: str
    cause: str
    hint: str


KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_CLOCK = Remedy("denied", "this machine's clock and the server's are too far apart", "set the clock: timedatectl status")
_TOKEN = Remedy(
    "denied",
    "the session token has expired or is not valid",
    "get new temporary credentials (aws sso login, aws sts), then start again",
)
_DENIED = Remedy(
    "denied",
    "these credentials may not read the object",
    "allow them s3:GetObject on it (and kms:Decrypt where it is encrypted by KMS), or give others: " + KEYS,
)
_NOT_PUBLIC = Remedy("denied", "the object is not public, and was asked for without credentials", KEYS)

REMEDIES: Mapping[str, Remedy] = MappingProxyType(
    {
        "NoSuchKey": Remedy("not-found", "the bucket has no object of this key", "check the key: upper and lower case differ"),
        "NoSuchVersion": Remedy("not-found", "the object has no such version", "check the key"),
        "NoSuchBucket": Remedy("not-found", "the endpoint has no bucket of this name", "check the bucket and --s3-endpoint"),
        "AccessDenied": _DENIED,
        "AllAccessDisabled": _DENIED,
        "AccountProblem": Remedy("denied", "the account of this bucket is blocked", "ask the bucket's owner"),
        "ExpiredToken": _TOKEN,
        "InvalidToken": _TOKEN,
        "TokenRefreshRequired": _TOKEN,
        "InvalidAccessKeyId": Remedy(
            "denied", "the access key is not known at this endpoint", KEYS + "; a temporary key needs AWS_SESSION_TOKEN too"
        ),
        "SignatureDoesNotMatch": Remedy(
            "denied", "the secret key does not belong to the access key", "check AWS_SECRET_ACCESS_KEY or the profile"
        ),
        "RequestTimeTooSkewed": _CLOCK,
        "RequestExpired": _CLOCK,
        "InvalidObjectState": Remedy(
            "archived", "the object is archived and cannot be read as it is", "restore it first: aws s3api restore-object"
        ),
    }
)  # fmt: skip


def complaint(answer: Answer, body: bytes, secrets: tuple[str, ...]) -> Complaint:
    """Read an error document, or what headers tell where there is none."""
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(body[:MOST_BYTES].decode("utf-8", "replace")):
        fields.setdefault(name, printable(unescape(value).encode(), secrets))
    region = answer.header("x-amz-bucket-region") or fields.get("Region", "")
    return Complaint(
        status=answer.status,
        code=re.sub(r"[^A-Za-z0-9.]", "", fields.get("Code", ""))[:80],
        message=fields.get("Message", ""),
        region=region if _REGION.fullmatch(region) else "",
        endpoint=fields.get("Endpoint", ""),
        request=fields.get("RequestId", "") or printable(answer.header("x-amz-request-id").encode(), secrets),
        server_clock=printable(answer.header("date").encode()),
    )


def elsewhere(told: Complaint, asked: str) -> str | None:
    """Return the region to sign for instead of the one `asked`, None if that is not the trouble."""
    misplaced = told.code in _ELSEWHERE or told.status in (301, 307, 308)
    return told.region if misplaced and told.region and told.region != asked else None


def failure(told: Complaint, place: Place, *, endpoint: str, region: str, signed: bool) -> Failure | None:
    """Return the failure that a complaint amounts to, None if it says nothing of its own. `endpoint` is shown."""
    evidence = {
        "url": place.shown, "endpoint": endpoint, "status": str(told.status), "s3_code": told.code,
        "message": told.message, "request": told.request,
    }  # fmt: skip
    evidence = {name: value for name, value in evidence.items() if value}
    if told.code in _ELSEWHERE:
        return _misplaced(told, evidence, region)
    remedy = _remedy(told, signed=signed)
    if remedy is None:
        hint = "compare with: aws s3api get-object"
        return Failure("http-status", f"the endpoint refuses: {told.code}", hint=hint, **evidence) if told.code else None
    if remedy is _CLOCK:
        evidence["server_clock"] = told.server_clock
    return Failure(remedy.failure, remedy.cause, hint=remedy.hint, **evidence)


def _remedy(told: Complaint, *, signed: bool) -> Remedy | None:
    if told.code == "AccessDenied" or (not told.code and told.status in (401, 403)):
        if "expired" in told.message.lower():  # of a URL that was signed just now
            return _CLOCK
        return _DENIED if signed else _NOT_PUBLIC
    return REMEDIES.get(told.code)


def _misplaced(told: Complaint, evidence: dict[str, str], region: str) -> Failure:
    evidence["asked_region"] = region
    if told.region and told.region != region:
        return Failure("http-status", "the bucket is in another region", hint=f"set AWS_REGION={told.region}", **evidence)
    if told.endpoint:
        evidence["served_at"] = told.endpoint
        hint = "if you trust it, name the endpoint of the evidence with --s3-endpoint"
        return Failure("http-status", "the bucket is served at another endpoint", hint=hint, **evidence)
    return Failure("http-status", "the endpoint expects another region", hint="set AWS_REGION as its operator says", **evidence)
