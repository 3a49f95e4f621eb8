"""Every kind of source says how its dumps come back."""

from typing import Any, get_args

import pytest

from infra.dumps.kinds import AnySource
from infra.dumps.source import Role, Source, Unit

REQUIRED: dict[str, dict[str, Any]] = {
    "sqlite": {"path": "/srv/db.sqlite"},
    "command": {"command": "dump", "restore": "undump"},
    "files": {"paths": ["/etc"]},
}
KINDS: tuple[type[Source], ...] = get_args(get_args(AnySource)[0])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.lower())
def test_each_kind_has_a_way_back_or_says_what_to_do(kind: type[Source]) -> None:
    """A kind has a command that takes its dump back, or tells how it is done by hand; never both, never neither."""
    name = kind.__name__.lower()
    source = kind.model_validate({"kind": name, **REQUIRED.get(name, {})})
    script = source.restoring(Unit(Role.DUMP, "", "", ""))
    assert bool(script) != bool(source.by_hand)
