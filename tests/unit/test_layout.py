"""The shape of the repository, as docs/design.md promises it."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"flows", "tasks", "deployments", "infra", "tests"}
BUILT = {"build", "dist"}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
LONG_FILES: frozenset[str] = frozenset({"infra/errors.py"})  # a list: every error class in one tree
"""Paths that may be longer, each with a comment that says why."""
LONG_FUNCTIONS: frozenset[str] = frozenset()
"""path::name of functions that may be longer, each with a comment that says why."""
INFRA_BASE = {"errors", "manifest", "model", "process", "typings"}
TEXT_SUFFIXES = {
    "",
    ".cfg",
    ".json",
    ".md",
    ".py",
    ".pyi",
    ".service",
    ".sh",
    ".timer",
    ".toml",
    ".yaml",
    ".yml",
}
FORBIDDEN = re.compile(
    # selling words, notes to self, and names that mean something only where a change was written
    r"(?i:\b(?:blazing\w*|effortless\w*|seamless\w*|world[- ]class|cutting[- ]edge|state[- ]of[- ]the[- ]art)\b)"
    r"|\b(?:TODO|FIXME|XXX|HACK)\b"
    r"|\b[Ii]ssue #?\d+\b"
    r"|(?<![\w.])/work/"
)


def _files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in {".ci", ".editorconfig", ".gitignore"} for part in parts)
        generated = parts[0] in BUILT or any(part == "__pycache__" or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not hidden and not generated:
            yield path.relative_to(ROOT)


FILES = list(_files())
PYTHON = [path for path in FILES if path.suffix == ".py"]


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and length of each function; its docstring does not count."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            docstring = node.body[0] if ast.get_docstring(node) is not None else None
            if docstring is not None:
                lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            yield node.name, lines


def test_python_lives_in_the_five_folders() -> None:
    """Nothing outside flows, tasks, deployments, infra and tests holds Python."""
    assert [str(path) for path in PYTHON if path.parts[0] not in FOLDERS] == []


def test_each_folder_holds_python() -> None:
    """Each of the five folders holds Python, so that the checks here look at something."""
    assert {path.parts[0] for path in PYTHON} == FOLDERS


def test_files_are_short() -> None:
    """A file of more than 300 lines is two files."""
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    long = {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES and path not in LONG_FILES}
    assert long == {}


def test_functions_are_short() -> None:
    """A function of more than 40 lines, its docstring aside, is two functions."""
    long = [
        f"{path}::{name}: {lines} lines"
        for path in PYTHON
        for name, lines in _functions(path)
        if lines > MAX_FUNCTION_LINES and f"{path}::{name}" not in LONG_FUNCTIONS
    ]
    assert long == []


def test_no_module_hides_a_library() -> None:
    """No module of ours has the name of a library: a path entrypoint would import ours in its place."""
    libraries = {"borg", "borgbackup", "libvirt", "libvirt_qemu", "paramiko", "prefect"}
    at_risk = [path for path in PYTHON if path.name != "__init__.py" and path.stem in libraries]
    top_level = [name for name in libraries if (ROOT / name).exists()]
    assert (at_risk, top_level) == ([], [])


def test_every_adapter_is_kept_apart() -> None:
    """Every folder and module in infra is named by the import-linter contract that keeps adapters apart."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["infra"])
    named = {name.strip() for layer in layers for name in layer.split("|")}
    present = {path.parts[1].removesuffix(".py") for path in PYTHON if path.parts[0] == "infra"} - {"__init__"}
    assert present <= named


def test_text_speaks_of_vmborg_alone() -> None:
    """No committed text sells, keeps notes to self or names the place where it was written."""
    texts = [path for path in FILES if path.suffix in TEXT_SUFFIXES and ROOT / path != Path(__file__).resolve()]
    found = [
        f"{path}: {match.group()}"
        for path in texts
        for match in FORBIDDEN.finditer((ROOT / path).read_text(encoding="utf-8", errors="replace"))
    ]
    assert texts
    assert found == []


def test_locks_pin_everything_and_name_no_index() -> None:
    """Both lock files give each package a version and hashes, and leave the choice of index to the host."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (ROOT / name).read_text().splitlines()
        assert [line for line in lines if "://" in line or line.startswith("-")] == []
        packages = [line for line in lines if line and not line.startswith((" ", "#"))]
        assert packages
        assert [line for line in packages if "==" not in line or not line.endswith("\\")] == []


def test_both_locks_agree() -> None:
    """What is tested is what is installed: no package has two versions in the two lock files."""
    pin = re.compile(r"^([\w.-]+)(?:\[[^]]*])?==(\S+)", re.MULTILINE)
    runtime = set(pin.findall((ROOT / "requirements.lock").read_text()))
    assert runtime
    assert runtime <= set(pin.findall((ROOT / "requirements-dev.lock").read_text()))
