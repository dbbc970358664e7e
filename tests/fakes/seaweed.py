"""A real S3 server, SeaweedFS, with keys, a public bucket, and a second port that speaks TLS. No fake, but at home among them."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from fakes.certificates import Authority
from fakes.webserver import free_ports
from tools import without

OWNER = ("AKIAOWNER00000000000", "owner-secret-that-nobody-may-see")
STRANGER = ("AKIASTRANGER00000000", "stranger-secret-that-nobody-may-see")
"""Known to the server, but may read nothing of the tests."""
PRIVATE, PUBLIC = "private-images", "public-images"
DOMAIN = "s3.test"
"""Under which buckets are hosts, for clients that resolve it to the loopback."""
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port", "s3.port.grpc", "s3.port.https", "s3.port.lance"),
)


class Seaweed:
    """`weed server` with everything in one directory. Stopped by its process id."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        """The URL of the service."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def tls_endpoint(self) -> str:
        """The same service behind a certificate of the tests' authority."""
        return f"https://127.0.0.1:{self._ports['s3.port.https']}"

    @property
    def virtual_endpoint(self) -> str:
        """The same service by a name under which buckets are hosts; nobody resolves it."""
        return f"http://{DOMAIN}:{self._ports['s3.port']}"

    def start(self) -> None:
        """Start, on other ports if somebody was quicker to take one, and make the buckets."""
        program = Path(sys.prefix) / "servers/seaweedfs/bin/weed"
        if not program.exists():
            without("needs SeaweedFS: run scripts/make-s3-server")
        for _ in range(3):
            self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
            with (self._folder / "weed.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [program, "server", *self._words()],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder,
                )  # fmt: skip
            if self._ready():
                return
            self.stop()
        raise AssertionError(f"SeaweedFS did not start:\n{(self._folder / 'weed.log').read_text()[-3000:]}")

    def stop(self) -> None:
        """End it, by its process id, and remove the sockets that it leaves in /tmp."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.kill()  # its own way to stop takes 15 s, to tidy what is thrown away here
            self._process.wait(10)
        for name, port in self._ports.items():
            Path(f"/tmp/seaweedfs-{name.partition('.')[0]}-grpc-{port}.sock").unlink(missing_ok=True)
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def put(self, bucket: str, key: str, content: Path | bytes, **metadata: str) -> str:
        """Store an object and return its s3:// URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self._client.put_object(Bucket=bucket, Key=key, Body=body, **metadata)
        return f"s3://{bucket}/{key}"

    def _words(self) -> list[str]:
        pair = self._authority.pairs["good"]
        (self._folder / "data").mkdir(exist_ok=True)
        (self._folder / "s3.json").write_text(json.dumps({"identities": _IDENTITIES}))
        return [
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._folder}/data", "-volume.max=50",
            "-master.volumeSizeLimitMB=64", f"-filer.localSocket={self._folder}/filer.sock",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            "-s3", f"-s3.config={self._folder}/s3.json", f"-s3.localSocket={self._folder}/s3.sock", "-s3.iam=false",
            "-s3.port.iceberg=0", f"-s3.domainName={DOMAIN}", f"-s3.cert.file={pair.certificate}", f"-s3.key.file={pair.key}",
        ]  # fmt: skip

    def _ready(self) -> bool:
        """Wait, at most 40 s, until both buckets are made and an object was stored."""
        assert self._process
        self._client = boto3.session.Session(aws_access_key_id=OWNER[0], aws_secret_access_key=OWNER[1]).client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
        )
        end = time.monotonic() + 40
        while time.monotonic() < end and self._process.poll() is None:
            if all(self._takes(bucket) for bucket in (PRIVATE, PUBLIC)):
                return True
            time.sleep(0.1)
        return False

    def _takes(self, bucket: str) -> bool:
        try:
            with suppress(self._client.exceptions.BucketAlreadyExists, self._client.exceptions.BucketAlreadyOwnedByYou):
                self._client.create_bucket(Bucket=bucket)
            self.put(bucket, "ready", b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True


def _identity(name: str, actions: list[str], keys: tuple[str, str] | None = None) -> dict[str, object]:
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}] if keys else []
    return {"name": name, "actions": actions, "credentials": credentials}


_IDENTITIES = [
    _identity("owner", ["Admin", "Read", "Write", "List", "Tagging"], OWNER),
    _identity("stranger", ["Read:nothing-of-ours"], STRANGER),
    _identity("anonymous", [f"Read:{PUBLIC}"]),
]
