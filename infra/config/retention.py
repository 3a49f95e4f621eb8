"""How many archives of one source are kept."""

from pydantic import Field

from infra.config.fields import Duration
from infra.config.section import Section


class Retention(Section):
    """How many archives of one source are kept, as borg counts them. Only rules that are named keep any."""

    within: Duration | None = Field(default=None, description="Keep every archive younger than this.", examples=["2d"])
    last: int = Field(default=0, ge=0, description="Keep the newest so many.")
    hourly: int = Field(default=0, ge=0, description="Keep the last archive of so many hours.")
    daily: int = Field(default=0, ge=0, description="Keep the last archive of so many days.", examples=[7])
    weekly: int = Field(default=0, ge=0, description="Keep the last archive of so many weeks.", examples=[4])
    monthly: int = Field(default=0, ge=0, description="Keep the last archive of so many months.", examples=[6])
    yearly: int = Field(default=0, ge=0, description="Keep the last archive of so many years.")

    @property
    def keeps_nothing(self) -> bool:
        """Whether no rule keeps any archive."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return self.within is None and not any(counts)
