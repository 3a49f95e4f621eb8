"""The documentation and the program say the same: verbs, options, keys, errors, targets, files, links."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import click
import pytest
import yaml
from pydantic_core import PydanticUndefined

from deployments.cli.context import Context
from deployments.cli.main import VERBS, cli
from infra import errors, errors_drills, errors_upkeep, errors_views
from infra.config.models import Config
from infra.config.render import as_data
from infra.config.section import Section

ROOT = Path(__file__).resolve().parents[2]
DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [
    path for folder in ("flows", "tasks", "infra", "deployments") for path in sorted((ROOT / folder).rglob("*.py"))
]
LATER = {"docs/performance.md"}
"""Named before it exists: the bench writes it."""
HOST_NAME = "hypervisor.name"  # its default depends on the host
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `([^`]+)` \|(.*)\|$", re.MULTILINE)
OUR_PATH = re.compile(r"(?:flows|tasks|deployments|infra|tests|docs|\.ci)/[\w./-]*|[\w-]+\.(?:md|yaml|toml|lock)")
PLACEHOLDER = re.compile(r"[…*{}<>]|NNNN")


def read(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(text: str) -> Iterator[str]:
    """Every line of code blocks and every piece of inline code."""
    for block in FENCE.findall(text):
        yield from block.splitlines()[1:-1]
    prose = FENCE.sub("", text)
    yield from (line.strip() for line in prose.splitlines() if line.startswith("    "))
    yield from INLINE.findall(prose)


def calls(text: str, program: str) -> Iterator[list[str]]:
    """The words after `program` wherever code calls it, by its name or a path; comments and pipes are cut off."""
    for code in code_of(text):
        found = re.search(
            rf"(?:^|^\$ |\S*/){program}(?:\s+([^|;&]+))?(?:$|[|;&])", re.sub(r"(^|\s)#.*", "", code).strip()
        )
        if found:
            yield shlex.split(found.group(1) or "")


def rows(name: str, heading: str) -> dict[str, str]:
    """The rows of the tables below a heading, by the code in their first cell."""
    text = read(name)
    assert f"\n{heading}\n" in text, f"{name} has no heading {heading!r}"
    section = text.split(f"\n{heading}\n", 1)[1]
    return dict(ROW.findall(re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]))


def anchors(path: Path) -> set[str]:
    """The anchors of a file's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keys(model: type[Section], prefix: str = "", written: dict[str, Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Every key of the configuration with its default as it would be written; `NAME` stands for a name."""
    defaults: dict[str, Any] = written or as_data(model.model_construct())
    for name, field in model.model_fields.items():
        candidates: list[Any] = [field.annotation, *get_args(field.annotation)]
        sections = [kind for kind in candidates if inspect.isclass(kind) and issubclass(kind, Section)]
        named = get_args(field.annotation)[:1] == (str,) or "dict" in str(field.annotation)
        if name == "overrides" or not sections:
            required = field.get_default(call_default_factory=True) is PydanticUndefined
            yield f"{prefix}{name}", "required" if required else defaults.get(name)
        else:
            yield from keys(sections[0], f"{prefix}{name}." + ("NAME." if named else ""), defaults.get(name))


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` call and the words after its name; the group itself when no verb is named."""
    context = click.Context(cli, obj=Context())
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = next((word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)), None)
        inner = command.get_command(context, name) if name else None
        if inner is None:
            return command, rest
        rest.remove(cast("str", name))
        command = inner
    return command, rest


def mistakes(words: list[str]) -> list[str]:
    """What is wrong with a call of vmborg: its verb or its options."""
    command, rest = find(words)
    if isinstance(command, click.Group) and (verbs := [word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)]):
        return [f"no verb {verbs[0]}"]
    known = {option for parameter in [*command.params, *cli.params] for option in parameter.opts}
    return [f"no option {word}" for word in rest if word.startswith("--") and word not in known | {"--help"}]


def test_every_error_has_a_row() -> None:
    """docs/operations.md has a row for each error class, and no row for what is none."""
    found = {**vars(errors), **vars(errors_drills), **vars(errors_upkeep), **vars(errors_views)}
    classes = {name for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    documented = rows("docs/operations.md", "## Errors")
    assert set(documented) == classes
    assert [name for name, cells in documented.items() if not all(cell.strip() for cell in cells.split("|"))] == []


def test_every_key_has_a_row_with_its_default() -> None:
    """docs/design.md has a row for each configuration key, with the default that the models have."""
    documented = rows("docs/design.md", "## Configuration")
    expected = dict(keys(Config))
    assert set(documented) == set(expected)
    del expected[HOST_NAME]
    shown = {key: yaml.safe_load(documented[key].split("|")[0].replace("`", "")) for key in expected}
    assert shown == expected


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md"])
def test_every_verb_is_shown(name: str) -> None:
    """Each verb of the command line is called in the file."""
    called = {words[0] for words in calls(read(name), "vmborg") if words}
    assert set(VERBS) - called == set()


def test_every_make_target_is_described() -> None:
    """Each target of the Makefile stands in README.md or docs/testing.md."""
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    text = read("README.md") + read("docs/testing.md")
    named = {word for words in calls(text, "make") for word in words}
    assert targets
    assert targets - named == set()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_calls_are_right(path: Path) -> None:
    """Every verb and option of vmborg and every make target that the text shows exists."""
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    wrong = [f"vmborg {shlex.join(words)}: {mistake}" for words in calls(text, "vmborg") for mistake in mistakes(words)]
    for words in calls(text, "make"):
        wrong += [f"make {word}" for word in words if word not in targets and not PLACEHOLDER.search(word + "=")]
    assert wrong == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(path: Path) -> None:
    """Every file of the repository that the text names in code exists."""
    names = {word for code in INLINE.findall(FENCE.sub("", path.read_text(encoding="utf-8"))) for word in code.split()}
    ours = {name for name in names if OUR_PATH.fullmatch(name) and not PLACEHOLDER.search(name)}
    assert {name for name in ours - LATER if not (ROOT / name).exists() and not (path.parent / name).exists()} == set()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link leads to a file that exists, and every anchor to a heading of it."""
    broken: list[str] = []
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short_and_whole(path: Path) -> None:
    """No line is longer than 120 characters, and none breaks a piece of code, which would hide it from these tests."""
    text = path.read_text(encoding="utf-8")
    if path.name == "faults.md":
        text = text.split("<!-- faults begin -->")[0]  # the rest is written by a program
    assert [line for line in text.splitlines() if len(line) > 120] == []
    assert [line for line in FENCE.sub("", text).splitlines() if line.count("`") % 2] == []


def test_errors_name_what_exists() -> None:
    """Every call of vmborg in backquotes and every page of the docs that the program's own texts name exists."""
    wrong: list[str] = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        calls_named = [call.split()[1:] for call in re.findall(r"`(vmborg [^`{}\n]*)`", text)]
        wrong += [f"{path.name}: {mistake}" for words in calls_named for mistake in mistakes(words)]
        pages = set(re.findall(r"docs/(?:[\w/-]+\.md|adr/\d+)", text)) - LATER
        wrong += [f"{path.name}: {page}" for page in pages if not list(ROOT.glob(f"{page}*"))]
        sections = re.findall(r"(docs/[\w/-]+\.md), '([^'\n]+)'", text)
        wrong += [f"{path.name}: {page}: {title}" for page, title in sections if f"# {title}\n" not in read(page)]
    assert wrong == []


def test_no_help_shows_the_marks_of_its_layout() -> None:
    """click takes a real backspace for "keep these lines", and prints any other as it is."""
    found = [help_ for help_ in helps(cli) if "\\b" in help_]
    assert found == []


def helps(command: click.Command, context: click.Context | None = None) -> Iterator[str]:
    """The help of a command and of all below it."""
    here = click.Context(command, parent=context, obj=Context())
    yield command.get_help(here)
    if isinstance(command, click.Group):
        for name in command.list_commands(here):
            inner = command.get_command(here, name)
            assert inner is not None
            yield from helps(inner, here)
