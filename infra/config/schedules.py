"""When what runs: five-field cron expressions, spread over hosts by the letter H."""

import re
from hashlib import sha256
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from infra.config.fields import Text
from infra.config.section import Section

NEVER = "never"
_SPREAD = re.compile(r"H(?:/([1-9]\d?))?(?= )")
_STEP = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/[1-9]\d*)?")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}


def spread(cron: str, key: str) -> str:
    """The cron expression with its H replaced by a minute that hangs on `key` alone. Pure.

    `H 2 * * *` is some minute after two, `H/10 * * * *` every ten minutes from one of the first ten on.
    """
    number = int.from_bytes(sha256(key.encode()).digest()[:8], "big")

    def minute(found: re.Match[str]) -> str:
        return f"{number % int(found[1])}-59/{found[1]}" if found[1] else str(number % 60)

    return _SPREAD.sub(minute, cron, count=1)


def _cron(value: str) -> str:
    text = " ".join(value.split())
    if text == NEVER:
        return text
    fields = spread(text, "").split(" ") if text.startswith("H") else text.split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError("must be five fields (minute hour day month weekday) such as `H 2 * * *`, or never")
    for field, (name, lowest, highest) in zip(fields, _FIELDS, strict=True):
        if not all(_is_step(part, name, lowest, highest) for part in field.split(",")):
            raise ValueError(f"{field!r} is no {name}: {lowest} to {highest}, *, lists, ranges and steps are")
    return text


def _is_step(part: str, name: str, lowest: int, highest: int) -> bool:
    found = _STEP.fullmatch(part)
    ends = [text.lower() for text in (found["first"], found["last"]) if text] if found else []
    numbers = [int(text) if text.isdecimal() else _number(text, name) for text in ends]
    return found is not None and numbers == sorted(numbers) and all(lowest <= each <= highest for each in numbers)


def _number(text: str, name: str) -> int:
    names = _NAMES.get(name, ())
    return names.index(text) + (name == "month") if text in names else -1


def _timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("must be a name of the tz database such as Europe/Berlin")
    return name


Cron = Annotated[str, AfterValidator(_cron)]


class SchedulesConfig(Section):
    """When the deployments of `vmborg deploy` run: `minute hour day month weekday`, or never."""

    timezone: Annotated[Text, AfterValidator(_timezone)] = Field(
        default="UTC", description="The time zone of all of them."
    )
    backup_fleet: Cron = Field(
        default="H 2 * * *",
        description="Back up every VM. H is a minute that hangs on the hypervisor's name: many hosts do not start "
        "together.",
    )
    vms: dict[Text, Cron] = Field(
        default_factory=dict[str, str],
        description="Per VM: further backups of it alone.",
        examples=[{"db01": "H 8-18/2 * * mon-fri"}],
    )
    pull_dumps: Cron = Field(default="H 1 * * *", description="Pull the dumps of every dump host.")
    prune: Cron = Field(default="H 6 * * *", description="Delete the archives that no rule keeps.")
    check: Cron = Field(default="H 7 * * *", description="Check a slice of the repositories.")
    verify_data: Cron = Field(default="H 8 1 */3 *", description="Check every byte of the repositories.")
    drill: Cron = Field(default="H 12 * * *", description="Try restores of the VMs that were not for the longest.")
    cloud_sync: Cron = Field(default="H 18 * * *", description="Copy the repositories to their remotes.")
    coverage: Cron = Field(default="H * * * *", description="Look whether every VM is safe, and tell what is not.")
    reconcile: Cron = Field(default="H/10 * * * *", description="Put VMs back that dead runs left on overlays.")
