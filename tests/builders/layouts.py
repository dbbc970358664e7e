"""OCI layouts written by code of our own, so that they can be wrong in any way."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

_TYPE = "application/vnd.oci.image."
_PACK = {"": bytes, "gzip": lambda data: gzip.compress(data, 1), "zstd": lambda data: zstandard.ZstdCompressor().compress(data)}


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write(folder: Path, *layers: bytes, compression: str = "gzip", spoil: str = "") -> str:
    """Write an image of these tars, lowest first; return its name. `spoil`: "flip" or "cut" the last layer as it is stored."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, stored: bytes | None = None) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data if stored is None else stored)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    said: list[dict[str, object]] = []
    for index, layer in enumerate(layers):
        data = stored = _PACK[compression](layer)
        if spoil and index == len(layers) - 1:
            stored = data[: len(data) // 2] if spoil == "cut" else data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
        said.append({"mediaType": f"{_TYPE}layer.v1.tar{'+' * bool(compression)}{compression}", **put(data, stored)})
    ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
    about = {"mediaType": f"{_TYPE}config.v1+json", **put(json.dumps(config).encode())}
    manifest = {"schemaVersion": 2, "mediaType": f"{_TYPE}manifest.v1+json", "config": about, "layers": said}
    entry = {"mediaType": f"{_TYPE}manifest.v1+json", **put(json.dumps(manifest).encode())}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci-layout:{folder}"
