"""What every test may use: real servers, real images, one copy of each a session."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from builders import content, images
from fakes import certificates
from fakes.webserver import Nginx

if TYPE_CHECKING:
    from builders.container_images import Workshop
    from fakes.docker_registry import DockerRegistry
    from fakes.seaweed import Seaweed
    from fakes.token_service import TokenService


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    """Certificates that are good, expired, for another host, and signed by nobody."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, authority: certificates.Authority) -> Iterator[Nginx]:
    """A real web server; files put into `nginx.folder` are served."""
    server = Nginx(tmp_path_factory.mktemp("nginx"), authority)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory, authority: certificates.Authority) -> Iterator["Seaweed"]:
    """A real S3 server with a private and a public bucket."""
    from fakes.seaweed import Seaweed  # boto3 costs 0.2 s, which the unit tests need not pay

    server = Seaweed(tmp_path_factory.mktemp("seaweed"), authority)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, authority: certificates.Authority) -> Iterator["TokenService"]:
    """A token service that knows the user of fakes.docker_registry."""
    from fakes.docker_registry import PASSWORD, USER
    from fakes.token_service import TokenService

    with TokenService(tmp_path_factory.mktemp("tokens"), authority, users={USER: PASSWORD}) as service:
        yield service


@pytest.fixture(scope="session")
def registry(
    tmp_path_factory: pytest.TempPathFactory, authority: certificates.Authority, tokens: "TokenService"
) -> Iterator["DockerRegistry"]:
    """A real registry with four faces over one storage."""
    from fakes.docker_registry import DockerRegistry

    server = DockerRegistry(tmp_path_factory.mktemp("registry"), authority, tokens)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> "Workshop":
    """Where container images are built."""
    from builders.container_images import Workshop

    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def disk(nginx: Nginx) -> Path:
    """A raw disk of 64 MiB with a real file system and holes, served as disk.raw."""
    return content.file_system(nginx.folder / "disk.raw")


@pytest.fixture(scope="session")
def image(nginx: Nginx, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Make (once) and return a served image: a name of images.KINDS or images.USED, and perhaps a wrapper."""

    def get(name: str, wrapper: str | None = None) -> Path:
        path = nginx.folder / f"{name}.image"
        if not path.exists():
            if name in images.USED:
                images.used_in_place(images.USED[name], path)
            else:
                images.convert(request.getfixturevalue("disk"), images.KINDS[name], path)
        if wrapper is None:
            return path
        wrapped = nginx.folder / f"{name}.image.{wrapper}"
        return wrapped if wrapped.exists() else images.wrap(path, wrapper, wrapped)

    return get


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """An empty directory for targets: what is in it after a failure is a leftover."""
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder
