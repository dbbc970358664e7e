"""What registries say about images: manifests, indexes and configurations. Pure: bytes in, values or a Failure out.

Nothing but the document itself is believed: its digest covers it, and covers no header of the answer that brought it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from importer.api.failure import Failure
from importer.sources.platform import Platform, choose
from importer.sources.reference import is_digest

MOST_BYTES = 4 << 20
"""Longest document; registries themselves take no longer manifest."""
MOST_DEPTH = 3
"""Indexes in indexes."""
MOST_ENTRIES = 1000
MOST_LAYERS = 500
LARGEST_LAYER = 1 << 50

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution."
INDEX_TYPES = (f"{_OCI}index.v1+json", f"{_DOCKER}manifest.list.v2+json")
MANIFEST_TYPES = (f"{_OCI}manifest.v1+json", f"{_DOCKER}manifest.v2+json")
# Those that cannot be used are asked for too: what comes then is refused by its name.
ACCEPT = ", ".join(
    (
        *MANIFEST_TYPES,
        *INDEX_TYPES,
        "application/vnd.oci.artifact.manifest.v1+json;q=0.2",
        f"{_DOCKER}manifest.v1+prettyjws;q=0.1",
    )
)

_CONFIG_TYPES = ("", f"{_OCI}config.v1+json", "application/vnd.docker.container.image.v1+json")
_LAYER_TYPES: Mapping[str, str] = {
    f"{_OCI}layer.v1.tar": "",
    f"{_OCI}layer.v1.tar+gzip": "gzip",
    f"{_OCI}layer.v1.tar+zstd": "zstd",
    f"{_OCI}layer.nondistributable.v1.tar": "",
    f"{_OCI}layer.nondistributable.v1.tar+gzip": "gzip",
    f"{_OCI}layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}
_BOOTABLE = {"containers.bootc": "bootc", "ostree.bootable": "OSTree"}
_BUILD = "build an image whose only file is the disk: FROM scratch, ADD disk.qcow2 /disk/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A document or layer by its digest. Size in bytes."""

    digest: str
    size: int
    media_type: str
    platform: Platform | None = None
    name: str = ""
    """org.opencontainers.image.ref.name, in the index of a layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: a tar, perhaps compressed. `compression` is "", gzip or zstd, as the manifest says."""

    digest: str
    size: int
    compression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A choice of manifests."""

    entries: tuple[Descriptor, ...]

    def chosen(self, wanted: Platform) -> Descriptor:
        """Return the entry for a platform. Raises Failure("wrong-platform") with those that there are."""
        return self.entries[choose(tuple(entry.platform for entry in self.entries), wanted)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image. Layers as the document has them: lowest first."""

    config: Descriptor
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an image says about itself."""

    platform: Platform | None
    diff_ids: tuple[str, ...]
    """Digests of the decoded layers, lowest first; empty where it tells none that can be verified."""


Document: TypeAlias = Index | Manifest


def verified(data: bytes, digest: str, size: int | None = None) -> bytes:
    """Return `data` if they are what a digest (and a size, if one was told) promises. Raises Failure("checksum-mismatch")."""
    algorithm = digest.partition(":")[0]
    found = digest_of(data, algorithm)
    if found != digest or (size is not None and size != len(data)):
        raise Failure(
            "checksum-mismatch",
            "the registry sends another document than the digest names",
            hint="try again; if it stays so, the registry or what lies between is broken or hostile",
            promised=digest,
            found=found,
            bytes=len(data),
        )
    return data


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of a document; `algorithm` is sha256 or sha512."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def parse(data: bytes, content_type: str = "") -> Document:
    """Return the index or manifest that a document is. Raises Failure: "protocol", "corrupt", "unsupported".

    `content_type` is only shown in failures.
    """
    fields = _fields(data, content_type)
    media_type = _text(fields, "mediaType")
    if fields.get("schemaVersion") == 1:
        hint = "push the image again with a tool of this decade, such as skopeo copy"
        raise Failure("unsupported", "the registry has a manifest of schema 1 only", hint=hint, media_type=media_type)
    _refuse_artifacts(fields, media_type)
    # A document that is both would mean one thing here and another elsewhere (CVE-2021-41190).
    kinds = [name for name in ("manifests", "layers") if fields.get(name) is not None]
    if len(kinds) != 1:
        raise _corrupt(
            "the document is neither an image nor an index" if not kinds else "the document is image and index at once"
        )
    expected = INDEX_TYPES if kinds == ["manifests"] else MANIFEST_TYPES
    if media_type and media_type not in expected:
        raise _corrupt("the document is of another kind than it says", media_type=media_type)
    return _index(fields) if kinds == ["manifests"] else _manifest(fields)


def _refuse_artifacts(fields: Mapping[str, Any], media_type: str) -> None:
    kind = _text(fields, "artifactType")
    config = fields.get("config")
    held = _text(config, "mediaType") if isinstance(config, dict) else ""
    if "artifact" in media_type or kind or (held not in _CONFIG_TYPES):
        shown = kind or held or media_type
        raise Failure("unsupported", "the registry has an artifact there, no container image", hint=_BUILD, artifact=shown)


def _index(fields: Mapping[str, Any]) -> Index:
    entries = _list(fields, "manifests", MOST_ENTRIES)
    return Index(entries=tuple(_entry(one) for one in entries))


def _entry(value: object) -> Descriptor:
    fields = _object(value, "manifests")
    named = _annotations(fields).get("org.opencontainers.image.ref.name")
    found = _descriptor(fields, name=named if isinstance(named, str) else "")
    told = fields.get("platform")
    if told is None:
        return found
    platform = _object(told, "platform")
    spelled = Platform(os=_text(platform, "os"), architecture=_text(platform, "architecture"), variant=_text(platform, "variant"))
    return Descriptor(digest=found.digest, size=found.size, media_type=found.media_type, name=found.name, platform=spelled)


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    config = _descriptor(_object(fields.get("config"), "config"))
    layers = tuple(_layer(one) for one in _list(fields, "layers", MOST_LAYERS))
    bootable(_annotations(fields))
    return Manifest(config=config, layers=layers)


def _layer(value: object) -> Layer:
    """Read one layer. Its `urls` are never looked at: they lead wherever its author likes (CVE-2020-15157)."""
    found = _descriptor(_object(value, "layers"))
    if found.media_type not in _LAYER_TYPES:
        raise Failure(
            "unsupported", "a layer of the image is of a kind that is not read here", hint=_BUILD, media_type=found.media_type
        )
    return Layer(digest=found.digest, size=found.size, compression=_LAYER_TYPES[found.media_type])


def config(data: bytes) -> Config:
    """Return what an image's configuration tells. Raises Failure; "unsupported" for a bootable container."""
    fields = _fields(data, "")
    inner = fields.get("config")
    bootable(inner.get("Labels") if isinstance(inner, dict) else None)
    system, architecture = _text(fields, "os"), _text(fields, "architecture")
    rootfs = fields.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    known = isinstance(ids, list) and len(ids) <= MOST_LAYERS and all(is_digest(one) for one in ids)
    return Config(
        platform=Platform(os=system, architecture=architecture, variant=_text(fields, "variant")) if architecture else None,
        diff_ids=tuple(ids) if known and isinstance(ids, list) else (),
    )


def bootable(labels: object) -> None:
    """Raise Failure("unsupported") for labels of an image that is itself an operating system, with no disk in it."""
    for label, what in _BOOTABLE.items():
        if isinstance(labels, dict) and labels.get(label) in ("1", "true"):
            hint = "make a disk image of it first, with bootc-image-builder"
            raise Failure("unsupported", f"this is a bootable container ({what}), which holds no disk", hint=hint, label=label)


def layout_version(data: bytes) -> str:
    """Return what the file oci-layout says, "" if nothing. Raises Failure."""
    return _text(_fields(data, ""), "imageLayoutVersion")


def complaint(data: bytes) -> str:
    """Return the errors that a registry's answer lists, "" if it lists none."""
    try:
        errors = json.loads(data).get("errors")
        said = [f"{one.get('code', '')}: {one.get('message', '')}" for one in errors[:3]]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""
    return "; ".join(said)


def compression_of(head: bytes) -> str:
    """Return what a layer that begins with `head` is compressed with: gzip, zstd or ""; labels may be wrong."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") or head[1:4] == b"\x2a\x4d\x18" else ""


def _fields(data: bytes, content_type: str) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise Failure("unsafe", "a manifest is longer than the limit", bytes=len(data), limit=MOST_BYTES)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        start = " ".join(data[:300].decode("utf-8", "replace").split())
        shown = "".join(mark if mark.isprintable() else "?" for mark in start)[:80]
        page = "html" in content_type.lower() or start.lower().startswith(("<!doctype html", "<html"))
        cause = "the registry answers with an HTML page instead of a manifest" if page else "the manifest is not JSON"
        hint = "check host and port: a portal, a proxy or a web page answers there" if page else None
        raise Failure("protocol", cause, hint=hint, content_type=content_type[:100], begins=shown) from None
    return _object(value, "the document")


def _descriptor(fields: Mapping[str, Any], name: str = "") -> Descriptor:
    digest, size = fields.get("digest"), fields.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _corrupt("a digest is none of sha256 or sha512", digest=str(digest)[:100])
    if type(size) is not int or not 0 <= size <= LARGEST_LAYER:
        raise _corrupt("a size is none", size=str(size)[:30], digest=digest)
    return Descriptor(digest=digest, size=size, media_type=_text(fields, "mediaType"), name=name)


def _annotations(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    found = fields.get("annotations")
    return found if isinstance(found, dict) else {}


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _corrupt(f"{where}: no object where one belongs")
    return value


def _list(fields: Mapping[str, Any], name: str, most: int) -> Sequence[object]:
    found = fields.get(name)
    if not isinstance(found, list) or not found:
        raise _corrupt(f"{name}: no list, or an empty one")
    if len(found) > most:
        raise Failure("unsafe", f"the manifest has more {name} than the limit", found=len(found), limit=most)
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    found = fields.get(name)
    return "".join(mark if mark.isprintable() else "?" for mark in found)[:200] if isinstance(found, str) else ""


def _corrupt(cause: str, **evidence: str) -> Failure:
    return Failure("corrupt", f"the manifest contradicts its format: {cause}", **evidence)
