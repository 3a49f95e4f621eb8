"""Another configuration for the length of a block."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.site import Site


@contextmanager
def settings(
    site: Site,
    *,
    policy: Mapping[str, Any] | None = None,
    repository: Mapping[str, Any] | None = None,
    hypervisor: Mapping[str, Any] | None = None,
    replica: Path | None = None,
) -> Iterator[None]:
    """In the block these keys of vms.defaults, of the repository main and of the hypervisor differ.

    `replica` is where a second repository lies, which every archive goes to; it is like main.
    """
    before = site.config.read_text(encoding="utf-8")
    document = json.loads(before)
    document["vms"]["defaults"] |= policy or {}
    document["repositories"]["main"] |= repository or {}
    document["hypervisor"] |= hypervisor or {}
    if replica is not None:
        document["repositories"]["second"] = document["repositories"]["main"] | {"location": str(replica)}
        document["vms"]["defaults"]["replicas"] = ["second"]
    site.config.write_text(json.dumps(document), encoding="utf-8")
    try:
        yield
    finally:
        site.config.write_text(before, encoding="utf-8")
