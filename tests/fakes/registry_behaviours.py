"""Ways for a registry to misbehave. For fakes.badhttp: an image of our own, served honestly save where a test says otherwise."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fakes.badhttp import BadServer, Behaviour, Request, Wire
from fakes.behaviours import send_part

REPOSITORY = "golden/disk"
_OCI = "application/vnd.oci.image."
MANIFEST, INDEX = f"{_OCI}manifest.v1+json", f"{_OCI}index.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(disk: bytes, name: str = "disk/disk.img") -> bytes:
    """Return a gzipped layer with one file in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(disk)
        tar.addfile(info, io.BytesIO(disk))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@dataclass(frozen=True, kw_only=True)
class FakeImage:
    """Documents and one layer that belong together."""

    manifest: bytes
    config: bytes
    layer: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def blobs(self) -> Mapping[str, bytes]:
        return {digest_of(one): one for one in (self.manifest, self.config, self.layer)}


def image(data: bytes, promised: bytes | None = None, urls: tuple[str, ...] = (), **config: Any) -> FakeImage:
    """Return an image with a layer; `promised` is the layer that the manifest describes, if it is another one."""
    held = json.dumps({"os": "linux", "architecture": "amd64", **config}).encode()
    told = data if promised is None else promised
    described = {"mediaType": f"{_OCI}layer.v1.tar+gzip", "digest": digest_of(told), "size": len(told)}
    if urls:
        described |= {"urls": list(urls), "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": f"{_OCI}config.v1+json", "digest": digest_of(held), "size": len(held)},
        "layers": [described],
    }
    return FakeImage(manifest=json.dumps(manifest).encode(), config=held, layer=data)


def index_of(*documents: bytes, media_type: str = MANIFEST) -> bytes:
    """Return an index whose entries are for this and that platform, all the same to a chooser."""
    entries = [
        {"mediaType": media_type, "digest": digest_of(one), "size": len(one), "platform": {"os": "linux", "architecture": arch}}
        for one in documents
        for arch in ("amd64", "arm64")
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def document(data: bytes, content_type: str = MANIFEST, *headers: tuple[str, object], status: int = 200) -> Behaviour:
    """Answer with a document."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(status, data, ("Content-Type", content_type), *headers)

    return behave


def whole(data: bytes) -> Behaviour:
    """Answer ranges as it should be."""

    async def behave(request: Request, wire: Wire) -> None:
        await send_part(wire, request, data, etag=f'"{digest_of(data)}"')

    return behave


def redirecting(location: str) -> Behaviour:
    """Send everybody elsewhere."""

    async def behave(_: Request, wire: Wire) -> None:
        await wire.answer(307, b"", ("Location", location))

    return behave


def busy(then: Behaviour, times: int, retry_after: int) -> Behaviour:
    """Answer 429 `times` times, then do better."""
    left = times

    async def behave(request: Request, wire: Wire) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}'
            await wire.answer(429, body, ("Retry-After", retry_after))
        else:
            await then(request, wire)

    return behave


def challenging(then: Behaviour, challenge: str, fits: Callable[[str], bool]) -> Behaviour:
    """Answer 401 with a challenge until Authorization fits."""

    async def behave(request: Request, wire: Wire) -> None:
        given = request.headers.get("authorization", "")
        if fits(given):
            await then(request, wire)
        else:
            body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": f"you said {given}"}]}).encode()
            await wire.answer(401, body, ("WWW-Authenticate", challenge))

    return behave


def serving(
    held: FakeImage, *, tag: Behaviour | None = None, config: Behaviour | None = None, layer: Behaviour | None = None
) -> Behaviour:
    """Serve an image; each part may be served otherwise."""
    blobs = {
        digest_of(held.config): config or whole(held.config),
        json.loads(held.manifest)["layers"][0]["digest"]: layer or whole(held.layer),
    }

    async def behave(request: Request, wire: Wire) -> None:
        _, version, *repository, kind, pointer = request.path.split("/")
        assert (version, "/".join(repository), request.method) == ("v2", REPOSITORY, "GET")
        if kind == "manifests":
            own = pointer == held.digest and tag is None
            await (document(held.manifest) if own else tag or document(held.manifest))(request, wire)
        elif pointer in blobs:
            await blobs[pointer](request, wire)
        else:
            await wire.answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"none"}]}')

    return behave


def name(server: BadServer, pointer: str = ":latest") -> str:
    """Return the image's name at a server."""
    return f"docker://127.0.0.1:{server.port}/{REPOSITORY}{pointer}"
