"""What is done to repositories on schedules of their own: what is gone, health checks."""

from datetime import timedelta

from pydantic import ByteSize, Field, model_validator

from infra.config.fields import Duration, Seconds, Size
from infra.config.section import Section


class RetiredConfig(Section):
    """What is kept of a VM that is gone from libvirt and from this file, or a dump host that is gone from this file."""

    grace: Duration = Field(
        default=timedelta(days=90), description="How long all archives of what is gone stay as they are."
    )
    keep: int = Field(default=1, ge=1, description="How many of its archives, the newest, stay after that.")
    forget_after: Duration | None = Field(
        default=None,
        description="Delete all of them this long after it went; never by itself if left out.",
        examples=["3y"],
    )

    @model_validator(mode="after")
    def _grace_first(self) -> "RetiredConfig":
        if self.forget_after is not None and self.forget_after < self.grace:
            raise ValueError("forget_after must not be shorter than grace: in the grace all archives stay")
        return self


class CheckConfig(Section):
    """How the health of repositories is checked."""

    slice: Seconds = Field(
        default=1800, description="One check of a repository's segments goes on for this long; the next goes on there."
    )
    samples: int = Field(default=1, ge=0, description="Archives that each check extracts and compares, in turn.")
    growth_factor: int = Field(
        default=5, ge=2, description="New data of a backup that is so many times its usual amount is a warning."
    )
    growth_floor: Size = Field(
        default=ByteSize(1024**3), description="Less new data than this is never called unexpected."
    )
