"""Mistakes that are looked for in the file's raw data, so that they are told together with all others."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from pydantic import ValidationError

from infra.config.models import RepositoryConfig, missing_passphrase
from infra.config.nodes import PathInFile
from infra.config.retention import Retention
from infra.config.secret_ref import EXACTLY_ONE, SecretRef

TWICE = "names a repository twice, or the one that the archives go to anyway"


def mapping(data: Any, *keys: str) -> dict[str, Any]:
    """The mapping at this place, empty if there is none: the models report what is wrong with it."""
    for key in keys:
        data = cast("dict[str, Any]", data).get(key) if isinstance(data, dict) else None
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def named_repositories(path: PathInFile, policy: dict[str, Any]) -> Iterator[tuple[PathInFile, Any]]:
    """Each repository that a policy names, and where."""
    yield (*path, "repository"), policy.get("repository", None if "overrides" in path[:2] else "main")
    replicas: Any = policy.get("replicas")
    if isinstance(replicas, list):
        for index, name in enumerate(cast("list[Any]", replicas)):
            yield (*path, "replicas", index), name


def secret_mistakes(data: dict[str, Any]) -> Iterator[tuple[PathInFile, str]]:
    """What the models say too, but only of a section in which nothing else is wrong."""
    repositories = mapping(data, "repositories")
    for name in repositories:
        settings = mapping(repositories, name)
        encryption = settings.get("encryption") or RepositoryConfig.model_fields["encryption"].default
        bare = bool(settings) and isinstance(encryption, str) and settings.get("passphrase") is None
        if bare and (problem := missing_passphrase(encryption)):
            yield ("repositories", name), problem
        forms = {key for key, value in mapping(settings, "passphrase").items() if value is not None}
        if len(forms & set(SecretRef.model_fields)) > 1:
            yield ("repositories", name, "passphrase"), EXACTLY_ONE


def dump_mistakes(data: dict[str, Any]) -> Iterator[tuple[PathInFile, str]]:
    """What a dump host says that is well-formed and cannot be meant."""
    for host, settings in mapping(data, "dumps", "hosts").items():
        replicas = mapping(settings).get("replicas")
        if isinstance(replicas, list):
            names = [mapping(settings).get("repository", "main"), *cast("list[Any]", replicas)]
            if any(names.count(name) > 1 for name in names):
                yield ("dumps", "hosts", host, "replicas"), TWICE
        written = mapping(data, "dumps", "hosts", host, "retention")
        with suppress(ValidationError):
            if written and Retention.model_validate(written).keeps_nothing:
                yield ("dumps", "hosts", host, "retention"), "keeps no archive at all"
