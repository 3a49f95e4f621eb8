"""Another configuration for the length of a block."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.e2e.site import Site


@contextmanager
def settings(
    site: Site,
    *,
    policy: Mapping[str, Any] | None = None,
    repository: Mapping[str, Any] | None = None,
    hypervisor: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """In the block these keys of vms.defaults, of the repository main and of the hypervisor differ."""
    before = site.config.read_text(encoding="utf-8")
    document = json.loads(before)
    document["vms"]["defaults"] |= policy or {}
    document["repositories"]["main"] |= repository or {}
    document["hypervisor"] |= hypervisor or {}
    site.config.write_text(json.dumps(document), encoding="utf-8")
    try:
        yield
    finally:
        site.config.write_text(before, encoding="utf-8")
