"""Names of container images: docker://, oci-layout: and docker-archive:. Pure."""

import re
from dataclasses import dataclass
from typing import TypeAlias

from importer.api.failure import Failure
from importer.sources.addresses import literal
from importer.sources.origin import has_userinfo, redact

REGISTRY, LAYOUT, ARCHIVE = "docker://", "oci-layout:", "docker-archive:"
DOCKER_HUB = "docker.io"
_DOCKER_HUB_TOO = frozenset({"index.docker.io", "registry-1.docker.io"})
_DOCKER_HUB_SERVER = "registry-1.docker.io"

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
LONGEST_REPOSITORY = 255


def is_digest(text: object) -> bool:
    """Tell whether this spells a digest that can be verified here: sha256 or sha512, in lower case."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image in a registry, in its full spelling."""

    host: str
    """host[:port] as people write it; docker.io for all of Docker Hub's names."""
    repository: str
    tag: str | None = None
    digest: str | None = None
    """If there is one it decides alone."""

    @property
    def name(self) -> str:
        """host/repository, which credentials and registries.conf are looked up by."""
        return f"{self.host}/{self.repository}"

    @property
    def pointer(self) -> str:
        """The digest, else the tag: the last part of a manifest's URL."""
        return self.digest or self.tag or "latest"

    @property
    def shown(self) -> str:
        """The spelling for people, receipts and journals."""
        return f"{REGISTRY}{self.name}{'@' if self.digest else ':'}{self.pointer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An image in a directory of the OCI image layout."""

    directory: str
    pointer: str | None = None
    """Its org.opencontainers.image.ref.name, or its digest; None: there is only one image."""

    @property
    def shown(self) -> str:
        """The spelling for people, receipts and journals."""
        mark = "@" if is_digest(self.pointer) else ":"
        return f"{LAYOUT}{self.directory}{mark + self.pointer if self.pointer else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An image in a file as `docker save` writes it."""

    path: str
    pointer: str | None = None
    """Its name and tag; None: there is only one image."""

    @property
    def shown(self) -> str:
        """The spelling for people, receipts and journals."""
        return f"{ARCHIVE}{self.path}{':' + self.pointer if self.pointer else ''}"


ImageName: TypeAlias = Reference | Layout | Archive


def is_image(source: str) -> bool:
    """Tell whether a source is a container image, by how it begins."""
    return source.startswith((REGISTRY, LAYOUT, ARCHIVE))


def parse(source: str) -> ImageName:
    """Return what a source names. Raises Failure: "usage", or "secret-in-argv" for user information."""
    if source.startswith(REGISTRY):
        return in_registry(source.removeprefix(REGISTRY))
    if source.startswith(LAYOUT):
        directory, pointer = _local(source.removeprefix(LAYOUT), "oci-layout:DIRECTORY[:TAG|@DIGEST]")
        return Layout(directory=directory, pointer=pointer)
    if source.startswith(ARCHIVE):
        path, pointer = _local(source.removeprefix(ARCHIVE), "docker-archive:FILE[:NAME:TAG]")
        return Archive(path=path, pointer=pointer)
    raise Failure("usage", "this is not the name of a container image", source=redact(source))


def _local(text: str, form: str) -> tuple[str, str | None]:
    """Split at the first colon, as skopeo does: a path that holds one cannot be written."""
    found = re.fullmatch(r"(?P<path>[^:]*)@(?P<digest>sha(?:256|512):[0-9a-f]+)", text)
    if found is not None and is_digest(found["digest"]):
        path, pointer = found["path"], found["digest"]
    else:
        path, _, pointer = text.partition(":")
    if not path or "\0" in text:
        raise Failure("usage", "the source names no path", hint=f"write {form}")
    return path, pointer or None


def in_registry(text: str) -> Reference:
    """Return the image that a name without its docker:// means. Raises Failure: "usage", or "secret-in-argv"."""
    if has_userinfo(REGISTRY + text):
        raise Failure(
            "secret-in-argv", "the image's name carries user information", hint="put user:password in a file for --auth-file"
        )
    tag: str | None
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _wrong("its digest is none of sha256 or sha512", text)
    before, colon, tag = rest.rpartition(":")
    if "/" in tag or not colon:  # the colon of a port, or of an address
        before, tag = rest, None
    elif not _TAG.fullmatch(tag):
        raise _wrong("its tag is none", text)
    host, repository = _split_host(before, text)
    if not _REPOSITORY.fullmatch(repository) or len(repository) > LONGEST_REPOSITORY:
        raise _wrong("its repository may hold lower-case letters, digits and single separators", text)
    return Reference(host=host, repository=repository, tag=tag or (None if digest else "latest"), digest=digest or None)


def _split_host(rest: str, text: str) -> tuple[str, str]:
    first, slash, repository = rest.partition("/")
    if not slash or not (re.search(r"[.:A-Z\[]", first) or first == "localhost"):
        return DOCKER_HUB, rest if slash else f"library/{rest}"
    host = plain_host(first)
    if host is None:
        raise _wrong("its host is none", text)
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository


def plain_host(text: str) -> str | None:
    """Return the one spelling of host[:port], None if it is none. All of Docker Hub's names become docker.io."""
    found = re.fullmatch(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", text, re.ASCII)
    if found is None or (found["port"] is not None and not 0 < int(found["port"]) < 65536):
        return None
    host = found["host"].lower()
    if host.startswith("["):
        address = literal(host)
        if address is None or address.version != 6:
            return None
        host = f"[{address}]"
    elif not re.fullmatch(r"(?![.-])[a-z0-9._-]+", host):
        return None
    host = DOCKER_HUB if host in _DOCKER_HUB_TOO else host
    return f"{host}:{int(found['port'])}" if found["port"] else host


def server(host: str) -> str:
    """Return the host[:port] that is asked for images of a registry."""
    return _DOCKER_HUB_SERVER if host == DOCKER_HUB else host


def _wrong(problem: str, text: str) -> Failure:
    shown = "".join(mark if mark.isprintable() else "?" for mark in text)[:300]
    hint = "write docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]"
    return Failure("usage", f"this is not the name of an image: {problem}", hint=hint, image=shown)
