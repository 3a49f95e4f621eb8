"""The common ground of every section of the configuration."""

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """What every section has in common: unknown keys are mistakes, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        """A known key without a value (`overrides:`) counts as left out."""
        if not isinstance(data, dict):
            return data
        written = cast("dict[str, Any]", data)
        known = cls.model_fields
        return {key: value for key, value in written.items() if value is not None or key not in known}
