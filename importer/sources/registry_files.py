"""Where podman, skopeo and docker keep credentials and registries.conf, and reading them."""

import os
from pathlib import Path

from importer.api.failure import Failure
from importer.api.request import RegistryAccess
from importer.sources.registries_conf import Rule, rules
from importer.sources.registry_auth import AuthFile, parse_auth_file

_MOST_BYTES = 1 << 20
AUTH_VARIABLE = "REGISTRY_AUTH_FILE"
CONF_VARIABLE = "CONTAINERS_REGISTRIES_CONF"


def auth_files(settings: RegistryAccess) -> tuple[AuthFile, ...]:
    """Return the credential files there are, in their order: the one that is named, else all of the usual ones.

    Raises Failure: "credentials" for one that cannot be understood, "permission", or "usage" if a named one is missing.
    """
    named = settings.auth_file or os.environ.get(AUTH_VARIABLE)
    if named:
        return (parse_auth_file(_text(Path(named), "the credential file"), named),)
    return tuple(parse_auth_file(_text(path, "the credential file"), str(path)) for path in _usual() if _there(path))


def _usual() -> tuple[Path, ...]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    first = Path(runtime) if runtime else Path("/run/containers") / str(os.getuid())
    first = first / "containers/auth.json" if runtime else first / "auth.json"
    docker = os.environ.get("DOCKER_CONFIG")
    home = _home()
    return (
        first,
        _settings() / "containers/auth.json",
        (Path(docker) if docker else home / ".docker") / "config.json",
        home / ".dockercfg",
    )


def registry_rules(settings: RegistryAccess) -> tuple[Rule, ...]:
    """Return what registries.conf says: the named one, the user's, or the machine's; the last two with their drop-ins.

    Raises Failure("usage" | "permission").
    """
    named = settings.registries_conf or os.environ.get(CONF_VARIABLE)
    if named:
        return rules([(named, _text(Path(named), "registries.conf"))])
    own = _settings() / "containers/registries.conf"
    machine = Path("/etc/containers/registries.conf")
    files = [one for one in (own, machine) if _there(one)][:1]
    for folder in (Path("/etc/containers/registries.conf.d"), _settings() / "containers/registries.conf.d"):
        if folder.is_dir():
            files.extend(sorted(folder.glob("*.conf")))
    return rules([(str(one), _text(one, "registries.conf")) for one in files])


def _home() -> Path:
    return Path(os.environ.get("HOME") or "/nonexistent")


def _settings() -> Path:
    told = os.environ.get("XDG_CONFIG_HOME")
    return Path(told) if told else _home() / ".config"


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a directory on the way that this user may not enter
        return False


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except PermissionError:
        raise Failure("permission", f"{what} cannot be read", file=path) from None
    except OSError as error:
        raise Failure("usage", f"{what} cannot be read", file=path, problem=error.strerror) from None
    if len(data) > _MOST_BYTES:
        raise Failure("usage", f"{what} is too long to be one", file=path, limit=_MOST_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure("usage", f"{what} is not UTF-8 text", file=path) from None
