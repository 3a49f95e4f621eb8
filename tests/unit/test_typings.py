"""The stubs of libvirt against the binding that is installed."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

TYPINGS = Path(__file__).resolve().parents[2] / "infra" / "typings"
MODULES = [path.stem for path in sorted(TYPINGS.glob("*.pyi"))]


def _names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _names(node.body, f"{node.name}.")
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("module", MODULES)
def test_stub_names_exist(module: str) -> None:
    """Every public name in a stub exists in the binding built against this host's libvirt."""
    binding = importlib.import_module(module)
    names = [name for name in _names(ast.parse((TYPINGS / f"{module}.pyi").read_text()).body) if name[0] != "_"]
    assert names
    missing = []
    for name in names:
        owner, _, member = name.rpartition(".")
        if not hasattr(getattr(binding, owner) if owner else binding, member):
            missing.append(name)
    assert missing == []


def test_both_bindings_have_stubs() -> None:
    """libvirt and libvirt_qemu are the two bindings that are used."""
    assert MODULES == ["libvirt", "libvirt_qemu"]
