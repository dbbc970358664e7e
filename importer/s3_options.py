"""The options about S3, and the settings they mean."""

import argparse

from importer import credentials
from importer.api.failure import Failure
from importer.api.request import S3Access
from importer.sources import s3_place

STYLES = ("auto", "path", "virtual")


def add(group: argparse._ArgumentGroup) -> None:
    """Give a group of options those about S3."""
    group.add_argument("--s3", action="store_true", help="SOURCE is the http(s) URL of an object at an S3 endpoint")
    group.add_argument("--s3-endpoint", metavar="URL", help="where s3:// objects are, instead of the AWS tools' settings")
    group.add_argument(
        "--s3-style", metavar="STYLE", choices=STYLES, default="auto", help="the bucket is in the path, or virtual"
    )
    group.add_argument("--s3-anonymous", action="store_true", help="sign nothing: the bucket is public")


def _scheme(source: str) -> str:
    # Not schemes.scheme_of: that module loads asyncio, which a help page need not pay.
    return source.partition("://")[0].lower() if "://" in source else ""


def located(chosen: argparse.Namespace, source: str) -> tuple[str, S3Access]:
    """Return the source and how S3 is reached: an http(s) URL with --s3 becomes s3:// with its endpoint. Raises Failure."""
    endpoint = chosen.s3_endpoint
    if endpoint is not None:
        credentials.refuse_userinfo("--s3-endpoint", endpoint)
        endpoint = s3_place.endpoint_url(endpoint)
    settings = S3Access(endpoint=endpoint, style=chosen.s3_style, anonymous=chosen.s3_anonymous)
    scheme = _scheme(source)
    if chosen.s3 and scheme in ("http", "https"):
        return s3_place.of_endpoint(source, settings)
    if chosen.s3 and scheme != "s3":
        raise Failure("usage", "--s3 says that SOURCE is an S3 object, but it is none", hint="leave --s3 out")
    if settings != S3Access() and "s3" not in (scheme, _scheme(getattr(chosen, "checksum_url", None) or "")):
        raise Failure(
            "usage", "--s3-endpoint, --s3-style and --s3-anonymous need an S3 source", hint="write s3://BUCKET/KEY, or --s3"
        )
    return source, settings
