"""Copies of a repository on a remote of rclone's."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from infra.config.fields import AbsolutePath, Duration, Seconds, Text
from infra.config.section import Section

_TAKEN = {"restore"}
_RATE = r"(off|\d+(\.\d+)?([bkmgtp]i?b?)?)"
_BANDWIDTH = re.compile(rf"{_RATE}(:{_RATE})?|(([a-z]{{3}}-)?\d\d:\d\d,{_RATE}(:{_RATE})?(\s+|$))+", re.IGNORECASE)
_LONGEST_DAYS = 36500


def _remote(value: str) -> str:
    name, colon, path = value.partition(":")
    if not colon or not name or name.startswith("-") or not path.strip("/"):
        raise ValueError("must be a remote of rclone.conf and a folder of its own there, such as s3:bucket/vmborg")
    return value.rstrip("/")


def _bandwidth(value: str) -> str:
    if not _BANDWIDTH.fullmatch(value):
        raise ValueError("must be a rate such as 10M, or a timetable such as `08:00,2M 22:00,off`")
    return value


def _cloud_name(name: str) -> str:
    if name in _TAKEN:
        raise ValueError(f"a copy must not be called {name}: the command line has that word")
    return name


CloudName = Annotated[Text, AfterValidator(_cloud_name)]


class CloudConfig(Section):
    """One copy."""

    repository: str = Field(default="main", description="The repository that is copied; it must be on this host.")
    remote: Annotated[Text, AfterValidator(_remote)] = Field(
        description="The remote of rclone and a folder of its own there.", examples=["s3:bucket/vmborg"]
    )
    config: AbsolutePath = Field(description="rclone's configuration, mode 0600.", examples=["/etc/vmborg/rclone.conf"])
    bandwidth: Annotated[Text, AfterValidator(_bandwidth)] | None = Field(
        default=None,
        description="rclone's --bwlimit: a rate such as 10M, or a timetable such as `08:00,2M 22:00,off`.",
        examples=["08:00,2M 22:00,off"],
    )
    history_days: int = Field(
        default=30, ge=1, le=_LONGEST_DAYS, description="How long what a copy replaced or deleted is kept there."
    )
    check_age: Duration = Field(
        default=timedelta(days=8), description="No copy if the repository's last good check is older."
    )
    max_delete: int = Field(
        default=30, ge=0, le=100, description="Percent of the remote's segments that one copy may delete, beyond prune."
    )
    max_shrink: int = Field(
        default=10, ge=0, le=100, description="Percent that the repository may be smaller than the copy, beyond prune."
    )
    transfers: int = Field(default=4, ge=1, le=64, description="How many files are copied at a time.")
    stall: Seconds = Field(
        default=600, description="A connection is given up when nothing comes for this long, the copy after twice that."
    )
