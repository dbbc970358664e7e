"""Container images as sources: what their names lead to, over mirrors or from this machine."""

from dataclasses import replace

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources import manifest, registries_conf, registry_auth, registry_files
from importer.sources.blob import BlobSource
from importer.sources.client import HttpPolicy
from importer.sources.docker_archive import open_archive
from importer.sources.layers import Blob, Layers, notes_on, resolve
from importer.sources.layout import open_layout
from importer.sources.protocol import Source
from importer.sources.reference import Archive, Layout, Reference, parse
from importer.sources.registries_conf import Place
from importer.sources.registry import Known, Registry, base_url

_ELSEWHERE = frozenset(
    {"unreachable", "not-found", "http-status", "protocol", "redirects", "tls", "stalled", "overloaded", "denied", "credentials",
     "checksum-mismatch", "source-changed"}
)  # fmt: skip
"""Failures of one place after which the next is asked."""
_NO_TLS = frozenset({"tls", "unreachable", "protocol", "stalled"})
"""Failures over https after which an insecure registry is asked over http."""


async def open_image(source: str, access: Access, policy: HttpPolicy | None = None) -> Layers:
    """Resolve a container image: docker://, oci-layout: or docker-archive:. Its layers are opened one by one.

    Raises Failure: "wrong-platform", "not-found", "denied", "credentials", "checksum-mismatch", "unsupported" and the like.
    """
    match parse(source):
        case Layout() as name:
            return await open_layout(name, access.registry)
        case Archive() as name:
            return await open_archive(name, access.registry)
        case Reference() as name:
            return await _from_registries(name, access, policy or HttpPolicy())


async def _from_registries(name: Reference, access: Access, policy: HttpPolicy) -> Layers:
    """Ask every place that registries.conf knows for an image, the registry itself last."""
    tried: list[str] = []
    places = registries_conf.places(name, registry_files.registry_rules(access.registry))
    for place in places:
        try:
            return await _from_place(name, place, access, policy, tuple(tried))
        except Failure as failure:
            if failure.code not in _ELSEWHERE or place is places[-1]:
                failure.evidence.update({f"mirror_{count}": one for count, one in enumerate(tried, 1)})
                raise
            tried.append(f"{place.reference.name}: {failure.cause}")
    raise AssertionError("there is always the registry itself")


async def _from_place(name: Reference, place: Place, access: Access, policy: HttpPolicy, tried: tuple[str, ...]) -> Layers:
    own = not place.mirror and place.reference.host == name.host
    settings, known = _settings(place, access, own=own), _known(place, access, own=own)
    try:
        return await _from_url("https", name, place, settings, known, policy, tried)
    except Failure as failure:
        if not settings.insecure or failure.code not in _NO_TLS:
            raise
        over_tls = failure
    try:
        return await _from_url("http", name, place, settings, known, policy, tried)
    except Failure as failure:
        failure.evidence.setdefault("over_https", over_tls.cause)
        raise


def _settings(place: Place, access: Access, *, own: bool) -> Access:
    """Return how a place is reached. The user's own headers are for the registry that the user named, not for its mirrors."""
    insecure = access.insecure or place.insecure
    headers = tuple(one for one in access.headers if own and one[0].lower() != "authorization")
    return replace(access, insecure=insecure, ca_file=None if insecure else access.ca_file, headers=headers)


def _known(place: Place, access: Access, *, own: bool) -> Known:
    """Return what there is to log in with at a place: what the user gave is for the host that the user named alone."""
    given = next((value for name, value in access.headers if name.lower() == "authorization"), None)
    if given is not None:
        return Known(login=registry_auth.login_of_header(given) if own else None)
    files = registry_files.auth_files(access.registry)
    login = registry_auth.find_login(place.reference.name, files)
    return Known(login=login, helper=registry_auth.helper_of(place.reference.host, files))


async def _from_url(
    scheme: str, name: Reference, place: Place, access: Access, known: Known, policy: HttpPolicy, tried: tuple[str, ...]
) -> Layers:
    # Where http may follow, https gets one try: a server that speaks no TLS is not busy.
    hasty = replace(policy, probe_tries=1) if access.insecure and scheme == "https" else policy
    registry = Registry(base_url(scheme, place.reference), place.reference, access, known, hasty)
    try:
        data, digest, content_type = await registry.by_pointer()
        registry.policy = policy
        found = await resolve(manifest.parse(data, content_type), digest, registry.document, access.registry)
    except BaseException:
        await registry.close()
        raise
    notes = [*notes_on(found), *(f"asked before, in vain: {one}" for one in tried)]
    if place.reference != name:
        notes.append(f"found at {place.reference.name}, as registries.conf says")
    if scheme == "http":
        notes.append("the registry was asked without TLS")
    elif access.insecure:
        notes.append("the registry's certificate was not verified")
    return Layers(
        shown=name.shown,
        digest=found.digest,
        platform=found.config.platform,
        blobs=found.blobs,
        notes=tuple(notes),
        store=_Store(registry, access.connections),
    )


class _Store:
    """Opens the blobs of an image where its manifest was found."""

    def __init__(self, registry: Registry, connections: int) -> None:
        self._registry = registry
        self._connections = connections

    async def open(self, blob: Blob) -> Source:
        """Return a blob of the registry."""
        return await BlobSource.open(self._registry, blob, self._connections)

    async def close(self) -> None:
        """Close the registry's connections."""
        await self._registry.close()
