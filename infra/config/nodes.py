"""YAML text to plain data, every scalar as the text that stands there, with the line of each value.

YAML 1.1 guesses types from the text (`on` is true, 0123 is 83, 12:30 is 750, 2024-01-01 a date), which is
wrong for names of VMs. So nothing is guessed here: the models know what each value must be. Only an unquoted
`null`, `~` or nothing is None.
"""

from dataclasses import dataclass, field
from typing import Any

import yaml

_MAX_NODES = 50_000  # aliases can multiply a few lines into billions of values
_MAX_DEPTH = 12
_NULLS = {"", "~", "null", "Null", "NULL"}
_DEFAULT_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}

PathInFile = tuple[str | int, ...]


def dotted(path: PathInFile) -> str:
    """`vms.overrides.'web.1'.quiesce`: parts with dots or blanks are quoted, control characters escaped."""
    return ".".join(_part(str(part)) for part in path)


def _part(text: str) -> str:
    plain = text.isprintable() and not set(text) & set(". '\"")
    return text if plain else repr(text)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands and what is wrong."""

    line: int  # from 1; 0 if unknown
    path: PathInFile
    text: str

    def __str__(self) -> str:
        where = dotted(self.path)
        return f"line {self.line}: {where}: {self.text}" if where else f"line {self.line}: {self.text}"


@dataclass(slots=True)
class Parsed:
    """Plain data (dict, list, str, None), the line of every path, and what was wrong already."""

    data: Any = None
    lines: dict[PathInFile, int] = field(default_factory=dict[PathInFile, int])
    problems: list[Problem] = field(default_factory=list[Problem])

    def line(self, path: PathInFile) -> int:
        """The line of a path, or of the nearest thing around it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _TooBigError(Exception):
    """More values than a configuration can hold."""


class _Builder:
    def __init__(self) -> None:
        self.parsed = Parsed()
        self.count = 0

    def value(self, node: yaml.Node, path: PathInFile) -> Any:
        self.count += 1
        if self.count > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise _TooBigError
        self.parsed.lines.setdefault(path, _line(node))
        if node.tag not in _DEFAULT_TAGS:
            self.problem(node, path, "YAML tags (!…) have no meaning here")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return None if plain and node.value in _NULLS else node.value

    def mapping(self, node: yaml.MappingNode, path: PathInFile) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self.problem(key, path, "a key must be a text")
                continue
            name: str = key.value
            if name == "<<" and key.style is None:
                self.problem(key, path, "merge keys (<<) are not supported; use vms.defaults for what is shared")
                continue
            here = (*path, name)
            if name in result:
                self.problem(key, here, f"repeated; it stands in line {self.parsed.lines[here]} already")
                continue
            self.parsed.lines[here] = _line(key)
            result[name] = self.value(child, here)
        return result

    def problem(self, node: yaml.Node, path: PathInFile, text: str) -> None:
        self.parsed.problems.append(Problem(_line(node), path, text))


def parse(text: str) -> Parsed:
    """Read one YAML document. A text that is no YAML at all yields a single problem and no data."""
    builder = _Builder()
    try:
        node = yaml.compose(text, yaml.BaseLoader)
        if node is not None:
            builder.parsed.data = builder.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        if "alias" in said:  # its name could be a passphrase that begins with *
            said = "an alias (*…) without its anchor; quote a text that begins with *"
        return Parsed(problems=[Problem(mark.line + 1 if mark else 0, (), f"not valid YAML: {said}")])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return Parsed(problems=[Problem(line, (), f"not valid YAML: {error.reason}")])
    except (_TooBigError, RecursionError):
        return Parsed(problems=[Problem(1, (), "nested too deeply, or aliases multiply it beyond any use")])
    return builder.parsed


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
