"""What is asked for: the one value that every front door hands to the pipeline."""

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["sha256", "sha512", "sha1", "md5"]
Content = Literal["disk", "archive"]
"""What the source holds: one disk, or an archive of files for a directory."""
Preallocate = Literal["falloc", "full"]
"""How the whole disk's blocks are had: reserved, or reserved and then written, with zeroes where there is no data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """A promise about the bytes as the source serves them."""

    algorithm: str
    hex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How S3 objects are found. No secret: credentials come from where the AWS tools look for them."""

    endpoint: str | None = None
    """URL of the service; None: the AWS tools' settings decide, at last AWS itself."""
    region: str | None = None
    """None: the AWS tools' settings decide, else what the endpoint's name or its answers tell."""
    style: str = "auto"
    """Where the bucket's name goes: into the path, or the host (virtual). auto: the path, except at AWS."""
    anonymous: bool = False
    """Sign nothing, whatever credentials there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """How container images are found. No secret: files of credentials are named here, and read where they are needed."""

    auth_file: str | None = None
    """A dockerconfigjson file; None: those of podman and docker."""
    registries_conf: str | None = None
    """None: the user's, else the machine's."""
    platform: str | None = None
    """os/architecture[/variant]; None: linux and what this machine is, and an image that offers no choice is taken as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a source is reached. Secrets live in `headers` only and never leave it."""

    headers: tuple[tuple[str, str], ...] = ()
    """Extra request headers, among them Authorization from --auth-file; sent to the first origin only."""
    ca_file: str | None = None
    insecure: bool = False
    proxy: str | None = None
    """None: the usual environment variables decide."""
    allow_addresses: tuple[str, ...] = ()
    """Networks (CIDR) that may be reached though they would be refused."""
    connections: int = 8
    """Most at a time; how many there are follows what they bring."""
    s3: S3Access = S3Access()
    registry: RegistryAccess = RegistryAccess()

    def __repr__(self) -> str:
        """Hide header values: reprs reach logs."""
        return f"Access(headers={[name for name, _ in self.headers]}, ca_file={self.ca_file!r}, insecure={self.insecure})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """One disk to be: where from, where to, and the limits on the way. Sizes in bytes."""

    source: str
    target: str
    content: Content = "disk"
    format: str | None = None
    """A value of disk.image.Format that overrides recognition by content."""
    size: int | None = None
    max_size: int = 1 << 40
    checksum: Checksum | None = None
    checksum_url: str | None = None
    digest: str | None = None
    """Algorithm to compute for the receipt even if nothing is promised."""
    access: Access = Access()
    preallocate: Preallocate | None = None
    decoder_memory: int = 256 << 20
    scratch_dir: str | None = None
    reserve: int | None = None
    """Bytes to leave free on the target's file system; None: 1 GiB or 5 %, whichever is less."""
    force: bool = False
    restart: bool = False
    """Begin anew though an earlier import left something to go on from."""
