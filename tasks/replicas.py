"""Where an archive should be, and is not, although another repository has it. Pure."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime


def behind(
    repositories: Sequence[str], newest: Mapping[str, datetime], *, since: datetime, unread: Collection[str]
) -> list[str]:
    """Those of several repositories whose newest good archive is older than `since`, or that have none."""
    if len(repositories) == 1:
        return []
    late = [name for name in repositories if name not in newest or newest[name] < since]
    return [f"{name} (cannot be read)" if name in unread else name for name in late]
