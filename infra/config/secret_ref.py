"""How the configuration names a secret without holding it."""

from typing import Any

from pydantic import Field, model_validator

from infra.config.fields import AbsolutePath, Text
from infra.config.section import Section


class SecretRef(Section):
    """Where a secret is kept; exactly one of the four. The secret itself never stands in this file."""

    file: AbsolutePath | None = Field(
        default=None,
        description="A file that only its owner (and group) can read; one newline at its end is dropped.",
    )
    command: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description="A program and its arguments (no shell); what it prints is the secret.",
    )
    env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="An environment variable.")
    credential: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._@-]*[A-Za-z0-9_@-]$",
        description="A systemd credential (LoadCredential= of the unit).",
    )

    @model_validator(mode="before")
    @classmethod
    def _never_the_secret_itself(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError as a mistake in the file
                "must be a reference such as {file: /etc/vmborg/passphrase}, never the secret itself"
            )
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretRef":
        if len(self.model_fields_set) != 1:
            raise ValueError("must have exactly one of file, command, env, credential")
        return self

    def __str__(self) -> str:
        """The reference, which is no secret: `file /etc/vmborg/passphrase`."""
        if self.command:
            return f"command {self.command[0]}"
        kind = next(iter(self.model_fields_set))
        return f"{kind} {getattr(self, kind)}"
