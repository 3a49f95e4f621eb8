"""Where a secret is kept; no secret is ever written into the configuration itself."""

from typing import Any

from pydantic import Field, field_serializer, model_validator

from infra.config.fields import AbsolutePath, Text
from infra.config.section import Section

EXACTLY_ONE = "must have exactly one of file, command, env, credential"


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

    @field_serializer("command", when_used="json-unless-none")
    def _program_alone(self, command: tuple[str, ...]) -> list[str]:
        return [command[0], *(["…"] if len(command) > 1 else [])]  # an argument may be the secret

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
            raise ValueError(EXACTLY_ONE)
        return self

    def __str__(self) -> str:
        """The reference, which is no secret: `file /etc/vmborg/passphrase`."""
        if self.command:
            return f"command {self.command[0]}"
        kind = next(iter(self.model_fields_set))
        return f"{kind} {getattr(self, kind)}"
