"""Debian's docker-registry in four faces over one storage: open, with TLS, with passwords, with tokens."""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from fakes.certificates import Authority
from fakes.token_service import SERVICE, TokenService
from fakes.webserver import free_ports
from tools import tool

USER, PASSWORD = "puller", "pull-secret-1"
_HTPASSWD = USER + ":$2y$05$abcdefghijklmnopqrstuuUWdQLXeCyNqmOt3KPil9oB.PrIjDKaK\n"
"""The password's bcrypt hash, which is all that this registry reads."""


class DockerRegistry:
    """open (http), tls, basic and token (https): each a process of its own, stopped by its id. Filled through `open`."""

    def __init__(self, folder: Path, authority: Authority, tokens: TokenService) -> None:
        self._folder = folder
        self._authority = authority
        self._tokens = tokens
        self._ports: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def host(self, face: str) -> str:
        """Return host:port of a face."""
        return f"127.0.0.1:{self._ports[face]}"

    def start(self) -> None:
        """Start, on other ports if somebody was quicker to take one."""
        for _ in range(3):
            self._ports = dict(zip(("open", "tls", "basic", "token"), free_ports(4), strict=True))
            for face in self._ports:
                self._launch(face)
            if self._ready():
                return
            self.stop()
        logs = "\n".join((self._folder / f"{face}.log").read_text()[-800:] for face in self._ports)
        raise AssertionError(f"docker-registry did not start:\n{logs}")

    def stop(self) -> None:
        """End the processes, by their ids."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._processes.clear()

    def asked(self, face: str) -> str:
        """Return the access log of a face."""
        return (self._folder / f"{face}.log").read_text()

    def storage(self, digest: str) -> Path:
        """Return the file of a blob, for tests that spoil it."""
        algorithm, _, digits = digest.partition(":")
        return self._folder / "storage/docker/registry/v2/blobs" / algorithm / digits[:2] / digits / "data"

    def _launch(self, face: str) -> None:
        pair = self._authority.pairs["good"]
        http: dict[str, object] = {"addr": self.host(face), "relativeurls": True}
        if face != "open":
            http["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "storage")}},
            "http": http,
        }
        if face == "basic":
            (self._folder / "htpasswd").write_text(_HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(self._folder / "htpasswd")}}
        if face == "token":
            bundle = str(self._tokens.bundle)
            settings["auth"] = {
                "token": {"realm": self._tokens.url, "service": SERVICE, "issuer": SERVICE, "rootcertbundle": bundle}
            }
        path = self._folder / f"{face}.yml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        with (self._folder / f"{face}.log").open("wb") as log:
            environment = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "OTEL_"))}
            self._processes.append(
                subprocess.Popen(
                    [tool("docker-registry"), "serve", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )
            )

    def _ready(self) -> bool:
        end = time.monotonic() + 20
        while time.monotonic() < end and all(process.poll() is None for process in self._processes):
            if all(self._answers(face) for face in self._ports):
                return all(process.poll() is None for process in self._processes)
            time.sleep(0.05)
        return False

    def _answers(self, face: str) -> bool:
        scheme = "http" if face == "open" else "https"
        context = ssl.create_default_context(cafile=str(self._authority.ca_file)) if face != "open" else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(f"{scheme}://{self.host(face)}/v2/", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError:
            return False
