"""From what rclone says to typed errors with a remedy. Pure.

rclone's exit codes tell little (1 for most; 3 and 4: not found; 5: temporary; rclone docs: "Exit code"), so the texts
of the backends decide. What is not known is a CloudError: an unknown failure is a failure.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import ConfigError, VmborgError
from infra.errors_upkeep import ClockSkewed, CloudError, CopyDiffers, RemoteDenied, RemoteFull, RemoteUnreachable
from infra.process import describe

NOT_FOUND = (3, 4)
_TEMPORARY = 5


@dataclass(frozen=True, slots=True)
class _Kind:
    error: type[VmborgError]
    pattern: re.Pattern[str]
    brief: str
    remedy: str


_KINDS = (
    _Kind(
        ConfigError,
        re.compile(r"didn't find section in config file|couldn't find type|unknown type|is not a crypt remote"),
        "rclone's configuration does not know the remote {remote}.",
        "Correct `remote` or rclone.conf: rclone --config FILE config show.",
    ),
    _Kind(
        CopyDiffers,
        re.compile(r"corrupted on transfer|hash(?:es)? differ", re.IGNORECASE),
        "A file of {remote} changed on its way, or is damaged there.",
        "Try again. If the same file fails, it is damaged: fetch an earlier date with --at, and look at the remote.",
    ),
    _Kind(
        ClockSkewed,
        re.compile(r"RequestTimeTooSkewed|request time.*too (?:skewed|large)|RequestExpired", re.IGNORECASE),
        "The remote {remote} refuses the time of this host's clock.",
        "Set the clock (timedatectl), then copy again.",
    ),
    _Kind(
        RemoteFull,
        re.compile(
            r"no space left|disk quota exceeded|quota ?exceeded|insufficient ?storage|StatusCode: 507|storage ?full"
            r"|XMinioStorageFull|not enough free space|too big for remaining disk space",
            re.IGNORECASE,
        ),
        "The remote {remote} is full.",
        "Make room there, or keep fewer history_days. The generations that are there can still be fetched.",
    ),
    _Kind(
        RemoteDenied,
        re.compile(
            r"SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied|Forbidden|StatusCode: 40[13]|ExpiredToken"
            r"|InvalidToken|invalid_grant|unable to authenticate|permission denied|unauthorized|failed to decrypt",
            re.IGNORECASE,
        ),
        "The remote {remote} refuses our credentials.",
        "Correct the keys in rclone.conf, or have the rights given back; the copy itself was not touched.",
    ),
    _Kind(
        RemoteUnreachable,
        re.compile(
            r"connection refused|no such host|timed? ?out|connection reset|broken pipe|connection lost|network is "
            r"unreachable|no route to host|unexpected EOF|: EOF\b|i/o timeout|deadline exceeded|StatusCode: 50[0234]",
            re.IGNORECASE,
        ),
        "The remote {remote} does not answer, or the connection broke.",
        "Look at the network, at `remote` and whether its server has room; the next copy goes on where this one ended.",
    ),
)


def silence(argv: Sequence[str], seconds: int, *, remote: str) -> VmborgError:
    """The error of a rclone that was ended because nothing moved for so long."""
    kind = _KINDS[-1]
    evidence = f"{shlex.join(argv)}\nnothing moved for {seconds} s; it was ended"
    return kind.error(kind.brief.format(remote=remote), evidence=evidence, remedy=kind.remedy)


def failure(argv: Sequence[str], returncode: int, said: Sequence[str], *, remote: str) -> VmborgError:
    """The error of a rclone that ended with another code than 0; `said` are its error messages, oldest first."""
    text = "\n".join(dict.fromkeys(said))
    evidence = describe(argv, returncode, text)
    kind = next((each for each in _KINDS if each.pattern.search(text)), None)
    if kind is None and returncode == _TEMPORARY:
        kind = _KINDS[-1]
    if kind is None:
        return CloudError(
            f"rclone failed on {remote}.", evidence=evidence, remedy="Look at what rclone says, then copy again."
        )
    return kind.error(kind.brief.format(remote=remote), evidence=evidence, remedy=kind.remedy)
