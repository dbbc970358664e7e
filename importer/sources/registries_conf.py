"""registries.conf, version 2: where an image is really asked for. Pure; containers-registries.conf(5) says what it means."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from importer.api.failure import Failure
from importer.sources.reference import Reference, in_registry

_PULLS = ("", "all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One place to look at before the registry itself."""

    location: str
    insecure: bool = False
    pulls: str = "all"
    """all, digest-only or tag-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One [[registry]] table."""

    prefix: str
    """host[:port][/namespace...][:tag|@digest], or *.domain."""
    location: str
    """What takes the prefix's place; "" changes nothing."""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def matches(self, name: str) -> bool:
        """Tell whether the full name of an image begins with the prefix, and a separator follows."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        return name.startswith(self.prefix) and name[len(self.prefix) :][:1] in ("", "/", ":", "@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to ask for an image."""

    reference: Reference
    insecure: bool = False
    """Certificates that are not trusted, and plain http, are allowed."""
    mirror: bool = False


def rules(texts: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    """Return the rules of files given as (name, text), the later of one prefix in place of the earlier.

    Raises Failure("usage") naming the file.
    """
    found: dict[str, Rule] = {}
    for name, text in texts:
        for table in _tables(name, text):
            rule = _rule(name, table)
            found[rule.prefix] = rule
    return tuple(found.values())


def places(reference: Reference, known: tuple[Rule, ...]) -> tuple[Place, ...]:
    """Return where to ask for an image, the registry itself last. Raises Failure("denied") if a rule blocks it."""
    name = f"{reference.name}{'@' if reference.digest else ':'}{reference.pointer}"
    rule = max((one for one in known if one.matches(name)), key=lambda one: len(one.prefix), default=None)
    if rule is None:
        return (Place(reference=reference),)
    if rule.blocked:
        hint = "ask whoever keeps registries.conf, or take the image from elsewhere"
        raise Failure("denied", "registries.conf blocks this registry", hint=hint, prefix=rule.prefix, image=reference.shown)
    unwanted = "tag-only" if reference.digest else "digest-only"
    mirrors = (one for one in rule.mirrors if one.pulls != unwanted)
    return (
        *(Place(reference=_moved(reference, rule, one.location), insecure=one.insecure, mirror=True) for one in mirrors),
        Place(reference=_moved(reference, rule, rule.location), insecure=rule.insecure),
    )


def _moved(reference: Reference, rule: Rule, location: str) -> Reference:
    """Return the reference with the location in the prefix's place."""
    if not location:
        return reference
    prefix = reference.host if rule.prefix.startswith("*.") else rule.prefix
    full = f"{reference.name}{'@' if reference.digest else ':'}{reference.pointer}"
    try:
        return in_registry(f"{location}{full[len(prefix) :]}")
    except Failure:
        raise Failure(
            "usage", "registries.conf leads to what is no image's name", prefix=rule.prefix, location=location
        ) from None


def _tables(name: str, text: str) -> list[Mapping[str, Any]]:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Failure("usage", "registries.conf is not TOML", file=name, problem=str(error)[:200]) from None
    if "registries" in document:
        hint = "rewrite it as [[registry]] tables: man containers-registries.conf"
        raise Failure("usage", "registries.conf is of version 1, which is not read", hint=hint, file=name)
    tables = document.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Failure("usage", "registries.conf: registry is no array of tables", file=name)
    return tables


def _rule(name: str, table: Mapping[str, Any]) -> Rule:
    location = _text(name, table, "location").rstrip("/")
    prefix = _text(name, table, "prefix").rstrip("/") or location
    wild = prefix.startswith("*.")
    if (
        not prefix
        or "://" in prefix + location
        or "*" in (prefix[2:] if wild else prefix)
        or (wild and ("/" in prefix or ":" in prefix))
    ):
        raise Failure(
            "usage", "registries.conf: a registry's prefix or location is none", file=name, prefix=prefix, location=location
        )
    strict = _flag(name, table, "mirror-by-digest-only")
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(one, dict) for one in mirrors):
        raise Failure("usage", "registries.conf: mirror is no array of tables", file=name, prefix=prefix)
    read = tuple(_mirror(name, one) for one in mirrors)
    return Rule(
        prefix=prefix,
        location=location,
        insecure=_flag(name, table, "insecure"),
        blocked=_flag(name, table, "blocked"),
        mirrors=tuple(replace(one, pulls="digest-only") for one in read) if strict else read,
    )


def _mirror(name: str, table: Mapping[str, Any]) -> Mirror:
    location, pulls = _text(name, table, "location").rstrip("/"), _text(name, table, "pull-from-mirror")
    if not location or "://" in location or pulls not in _PULLS:
        raise Failure("usage", "registries.conf: a mirror's location or pull-from-mirror is none", file=name, location=location)
    return Mirror(location=location, insecure=_flag(name, table, "insecure"), pulls=pulls or "all")


def _text(name: str, table: Mapping[str, Any], key: str) -> str:
    found = table.get(key, "")
    if not isinstance(found, str):
        raise Failure("usage", f"registries.conf: {key} is no string", file=name)
    return found


def _flag(name: str, table: Mapping[str, Any], key: str) -> bool:
    found = table.get(key, False)
    if not isinstance(found, bool):
        raise Failure("usage", f"registries.conf: {key} is neither true nor false", file=name)
    return found
