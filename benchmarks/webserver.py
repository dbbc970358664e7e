"""A real web server for the images: nginx on loopback, with its own prefix and a free port."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
{user}
worker_processes 2;
daemon off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; default_type application/octet-stream; }}
}}
"""


@contextmanager
def nginx(prefix: Path, root: Path) -> Iterator[str]:
    """Serve the files of `root`; yields the URL of it, without a slash at the end."""
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    (prefix / "nginx.conf").write_text(CONFIG.format(user=user, port=port, root=root.resolve()))
    argv = ["nginx", "-p", str(prefix.resolve()), "-c", "nginx.conf", "-e", "error.log"]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        _wait(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server takes connections."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def warm(path: Path) -> None:
    """Read a file once, so that every competitor finds it in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
