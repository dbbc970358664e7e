"""The options about container images, and the settings they mean."""

import argparse

from importer import credentials
from importer.api.failure import Failure
from importer.api.request import RegistryAccess
from importer.sources import platform, reference

_FORM = "write linux/amd64, linux/arm64 or linux/arm/v7"


def add(group: argparse._ArgumentGroup) -> None:
    """Give a group of options those about container images."""
    group.add_argument("--platform", metavar="OS/ARCH", help="which one of a container image (linux, this machine's)")


def located(chosen: argparse.Namespace, source: str) -> tuple[str | None, RegistryAccess]:
    """Return the file that --auth-file still names as a header, and how container images are found. Raises Failure("usage")."""
    image = reference.is_image(source)
    if chosen.platform is not None:
        if not image:
            raise Failure("usage", "--platform chooses within a container image, and SOURCE is none", hint="leave it out")
        try:
            platform.parse(chosen.platform)
        except ValueError as error:
            raise Failure("usage", f"--platform: {error}", hint=_FORM) from None
    if chosen.auth_file is None or not credentials.is_container_file(chosen.auth_file):
        return chosen.auth_file, RegistryAccess(platform=chosen.platform)
    if not image:
        hint = "give a file whose first line is user:password or Bearer TOKEN"
        raise Failure("usage", "the file of --auth-file is one for registries, and SOURCE is no container image", hint=hint)
    return None, RegistryAccess(platform=chosen.platform, auth_file=chosen.auth_file)
