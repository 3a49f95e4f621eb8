"""The configuration as text: shown, as a JSON Schema, as a commented example. All come from the models."""

from textwrap import wrap
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.config.models import Config, Section, VmPolicy

_WIDTH = 100
_EXPANDED = {"repositories", "cloud", "receivers"}  # mappings whose values are shown key by key
_OPTIONAL = {"cloud", "receivers"}  # those of them that are switched off as a whole
_ACTIVE = {
    "state_dir",
    "name",
    "location",
    "passphrase",
    "repository",
    "quiesce",
    "daily",
    "weekly",
    "monthly",
    "grace",
    "slice",
    "timezone",
    "silent",
    "every",
}
_HEADER = """\
# Configuration of vmborg (/etc/vmborg/vmborg.yaml). Check it with `vmborg config validate`.
# Lines that begin with `#` and a key show what holds when they are left out, or an example.
# Durations: 90s, 15m, 26h, 7d, 4w. Sizes: 500MiB, 1GiB.
"""


def as_data(config: BaseModel) -> dict[str, Any]:
    """The effective configuration as JSON-like data. Secrets are shown as the references that they are."""
    return config.model_dump(mode="json", exclude_none=True)


def show(config: BaseModel) -> str:
    """The effective configuration as YAML, defaults filled in."""
    return to_yaml(as_data(config))


def to_yaml(data: Any) -> str:
    """Plain data as block YAML in the given order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False)


def policy_origins(config: Config, vm: str) -> dict[str, str]:
    """Where each key of a VM's policy comes from: `override`, `defaults` (both in the file) or `built-in`."""
    override = config.vms.overrides.get(vm)
    origins = dict.fromkeys(VmPolicy.model_fields, "built-in")
    origins |= dict.fromkeys(config.vms.defaults.model_fields_set, "defaults")
    return origins | dict.fromkeys(override.model_fields_set if override else (), "override")


def with_origins(policy: dict[str, Any], origins: dict[str, str]) -> str:
    """A policy as YAML, each key with a comment that says where it comes from."""
    lines = [(f"{key}: {_flow(value)}", origins[key]) for key, value in policy.items()]
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:{width}}  # {origin}\n" for line, origin in lines)


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vmborg.yaml",
        **{key: value for key, value in Config.model_json_schema().items() if key != "title"},
    }


def example() -> str:
    """A commented configuration that is valid as it stands, and with every commented key switched on."""
    return "\n".join([_HEADER.rstrip(), *_section(Config, "")]) + "\n"


def _section(model: type[Section], indent: str) -> list[str]:
    """Every key of a section, each below its description."""
    lines: list[str] = []
    defaults = as_data(model.model_construct())
    for name, field in model.model_fields.items():
        if not indent and lines:
            lines.append("")
        prose = field.description or ""
        lines += wrap(prose, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines += _entry(name, field, indent=indent, default=defaults.get(name))
    return lines


def _entry(name: str, field: FieldInfo, *, indent: str, default: Any) -> list[str]:
    """One key: as it would be written, or commented out when its default serves."""
    section = _section_of(field.annotation)
    written: Any = field.examples[0] if field.examples else None
    if section is None or (written is not None and name not in _EXPANDED):
        switched_off = "" if name in _ACTIVE else "#"
        return [f"{indent}{switched_off}{name}: {_flow(default if written is None else written)}"]
    if name not in _EXPANDED:
        return [f"{indent}{name}:", *_section(section, f"{indent}  ")]
    lines = [f"{indent}{name}:"]
    for key in cast("dict[str, Any]", written or {}):
        lines += [f"{indent}  {key}:", *_section(section, f"{indent}    ")]
    return [_switched_off(line) for line in lines] if name in _OPTIONAL else lines


def _switched_off(line: str) -> str:
    """The line as a comment, after its indentation."""
    text = line.lstrip()
    return line if text.startswith("#") else f"{line[: len(line) - len(text)]}#{text}"


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, by itself or by name."""
    candidates = [annotation, *get_args(annotation)]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)), None)


def _flow(value: Any) -> str:
    """One value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()
