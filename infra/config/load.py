"""Read the configuration and report every mistake at once, each with its line and its path in the file."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from infra.config.models import Config, VmPolicy, VmsConfig
from infra.config.nodes import Parsed, PathInFile, Problem, parse
from infra.config.raw import TWICE, dump_mistakes, mapping, named_repositories, secret_mistakes
from infra.errors import ConfigError

DEFAULT_PATH = Path("/etc/vmborg/vmborg.yaml")
VARIABLE = "VMBORG_CONFIG"
_MAX_BYTES = 1024 * 1024
# Only these show the value that was found: others could repeat a secret that was written in the wrong place.
_HARMLESS = {"enum", "literal_error", "int_parsing", "bool_parsing"}


def locate(path: Path | None) -> Path:
    """The file to read: the one given, else $VMBORG_CONFIG, else /etc/vmborg/vmborg.yaml."""
    if path is not None:
        return path
    from_environment = os.environ.get(VARIABLE)
    return Path(from_environment) if from_environment else DEFAULT_PATH


def load(path: Path | None = None) -> Config:
    """Read and check the configuration. Raises ConfigError that names every mistake in it."""
    found = locate(path)
    return check(_read(found), name=str(found))


def check(text: str, *, name: str) -> Config:
    """Check a configuration's text; `name` is what errors call it. Raises ConfigError."""
    parsed = parse(text.removeprefix("\ufeff"))
    problems = list(parsed.problems)
    config: Config | None = None
    if isinstance(parsed.data, dict):
        data = cast("dict[str, Any]", parsed.data)  # pyright: ignore[reportUnknownMemberType]
        try:
            config = Config.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True, include_input=True)
            problems += [_problem(detail, parsed) for detail in details]
        problems += _cross_check(data, parsed)
        found = [*secret_mistakes(data), *dump_mistakes(data), *_contradictions(_what_is_right(data))]
        problems += [Problem(parsed.line(path), path, text) for path, text in found]
    elif parsed.data is not None:
        problems.append(Problem(1, (), "must be a mapping (key: value), not a list or a single text"))
    elif not problems:
        problems.append(Problem(1, (), "the file is empty"))
    if config is None or problems:
        raise _refusal(problems, name)
    return config


def _read(path: Path) -> str:
    try:
        # Opened without blocking: a FIFO at this path would hang every verb.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no configuration at {path}.",
            evidence=_searched(path),
            remedy=f"Write one: `vmborg config generate --output {DEFAULT_PATH}`, or name it with --config.",
        ) from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        _refuse_unsafe(path, os.fstat(descriptor).st_mode)
        content = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise _unreadable(path, "it is larger than 1 MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, f"line {line} is not UTF-8") from error


def _refuse_unsafe(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise _unreadable(path, "it is not a regular file")
    if mode & stat.S_IWOTH:
        raise ConfigError(
            f"Everybody may write to the configuration {path}.",
            evidence=f"mode {stat.S_IMODE(mode):04o}; vmborg runs the commands that it names",
            remedy=f"chmod o-w {path}, and look whether somebody changed it.",
        )


def _searched(path: Path) -> str:
    if os.environ.get(VARIABLE) == str(path):
        return f"${VARIABLE} names this path"
    return f"neither --config nor ${VARIABLE} is given" if path == DEFAULT_PATH else ""


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"The configuration {path} cannot be read.",
        evidence=f"{path}: {why}",
        remedy="Correct the file or --config.",
    )


def _refusal(problems: list[Problem], name: str) -> ConfigError:
    # One mistake can be seen by two checks; what stands higher in the file comes first.
    ordered = sorted(set(problems), key=lambda problem: (problem.line, [str(part) for part in problem.path]))
    count = "1 mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    return ConfigError(
        f"The configuration {name} has {count}.",
        evidence="\n".join(map(str, ordered)),
        remedy="Correct them; `vmborg config generate` prints every key with its meaning.",
    )


def _problem(detail: ErrorDetails, parsed: Parsed) -> Problem:
    path: PathInFile = tuple(part for part in detail["loc"] if part != "[key]")
    kind, text = detail["type"], detail["msg"]
    match kind:
        case "extra_forbidden":
            text = "unknown key" + _suggestion(str(path[-1]), _known_keys(path[:-1]))
        case "union_tag_invalid":
            path, context = (*path, "kind"), detail.get("ctx", {})
            text = f"must be one of {context.get('expected_tags', '')}"
        case "union_tag_not_found":
            path, text = (*path, "kind"), "is missing"
        case "missing":
            text = "is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = "must be a mapping (key: value)"
        case "tuple_type" | "list_type":
            text = "must be a list"
        case "too_short":
            text = "must not be empty"
        case "bool_parsing" | "bool_type":
            text = "must be true or false"
        case _:
            text = (
                text.removeprefix("Value error, ")
                .replace("Input should", "must")
                .replace("must be a valid", "must be a")
            )
    if kind in _HARMLESS and isinstance(detail["input"], str) and len(detail["input"]) < 40:  # noqa: PLR2004
        text += f", not {detail['input']!r}"
    return Problem(parsed.line(path), path, text)


def _suggestion(word: str, known: list[str]) -> str:
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def _known_keys(path: PathInFile) -> list[str]:
    """The keys that the models know at this place."""
    model: type[BaseModel] | None = Config
    parts = list(path)
    while parts and model is not None:
        field = model.model_fields.get(str(parts.pop(0)))
        found = next(_models_in(field.annotation), None) if field else None
        if found and parts and not _is_model(field.annotation if field else None):
            parts.pop(0)  # the name in a mapping of sections
        model = found
    return list(model.model_fields) if model else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if _is_model(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _cross_check(data: dict[str, Any], parsed: Parsed) -> list[Problem]:
    """What one section says about another; on the raw data, so that it is told together with the rest."""
    repositories = mapping(data, "repositories")
    policies: dict[PathInFile, dict[str, Any]] = {("vms", "defaults"): mapping(data, "vms", "defaults")}
    for vm in mapping(data, "vms", "overrides"):
        policies["vms", "overrides", vm] = mapping(data, "vms", "overrides", vm)
    for copy in mapping(data, "cloud"):
        policies["cloud", copy] = {"repository": "main", **mapping(data, "cloud", copy)}
    for host in mapping(data, "dumps", "hosts"):
        policies["dumps", "hosts", host] = mapping(data, "dumps", "hosts", host)
    problems: list[Problem] = []
    for path, policy in policies.items():
        for here, name in named_repositories(path, policy):
            if isinstance(name, str) and repositories and name not in repositories:
                problem = f"there is no repository {name!r}" + _suggestion(name, list(repositories))
                problems.append(Problem(parsed.line(here), here, problem))
    places: dict[str, str] = {}
    for name in repositories:
        location = mapping(repositories, name).get("location")
        if not isinstance(location, str):
            continue
        other = places.setdefault(location.rstrip("/"), name)
        if other != name:
            here = ("repositories", name, "location")
            problems.append(Problem(parsed.line(here), here, f"the same as that of {other!r}"))
    return problems


def _what_is_right(data: dict[str, Any]) -> Config:
    """The policies with every key that is right by itself, so that contradictions are told beside other mistakes."""
    exclude = mapping(data, "vms").get("exclude")
    overrides = mapping(data, "vms", "overrides")
    vms = VmsConfig.model_construct(
        defaults=_right_keys(mapping(data, "vms", "defaults")),
        exclude=tuple(each for each in cast("list[Any]", exclude) if isinstance(each, str))
        if isinstance(exclude, list)
        else (),
        overrides={vm: _right_keys(mapping(overrides, vm)) for vm in overrides},
    )
    return Config.model_construct(vms=vms)


def _right_keys(written: dict[str, Any]) -> VmPolicy:
    right: dict[str, Any] = {}
    for key, value in written.items():
        with suppress(ValidationError):
            VmPolicy.model_validate({key: value})
            right[key] = value
    return VmPolicy.model_validate(right)


def _contradictions(config: Config) -> Iterator[tuple[PathInFile, str]]:
    """What is well-formed and cannot be meant."""
    for key, text in _policy_contradictions(config.vms.defaults, set(VmPolicy.model_fields)):
        yield ("vms", "defaults", key), text
    for vm, override in config.vms.overrides.items():
        glob = config.is_excluded(vm)
        if glob is not None:
            yield ("vms", "overrides", vm), f"never used: vms.exclude leaves this VM out ({glob!r})"
        for key, text in _policy_contradictions(config.policy(vm), set(override.model_fields_set)):
            yield ("vms", "overrides", vm, key), text


def _policy_contradictions(policy: VmPolicy, written: set[str]) -> Iterator[tuple[str, str]]:
    if "retention" in written and policy.retention.keeps_nothing:
        yield "retention", "keeps no archive at all"
    if written & {"repository", "replicas"} and len(set(policy.repositories)) != len(policy.repositories):
        yield "replicas", TWICE
    if written & {"min_free", "min_free_start"} and policy.min_free_start < policy.min_free:
        yield "min_free_start", "must not be smaller than min_free: every copy would be given up at once"
