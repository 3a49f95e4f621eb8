"""What a source is asked before it is dumped, over one connection: its programs' version, the list of its databases."""

from dataclasses import dataclass, field

from infra.dumps.guest import REFUSED
from infra.dumps.script import first_lines, remote_command
from infra.dumps.source import Source
from infra.errors import DumpFailed
from infra.ssh.connection import Connection, Ended
from tasks.health import vm_argument

_SHORT_S = 120.0  # for a version or a list
_LISTING_BYTES = 16 * 1024 * 1024
_NOT_FOUND = 127  # sh's exit code for a program that is not there


@dataclass(frozen=True, slots=True)
class Asking:
    """One source of one host."""

    host: str
    source: Source
    connection: Connection
    password: str | None = field(repr=False)

    def command(self, script: str, *, named: bool = False) -> str:
        """A script of the source as the command to send."""
        variable = self.source.login_variable if self.password is not None else ""
        return remote_command(script, login_variable=variable, named=named)

    def version(self) -> str:
        """What the dumping program says of itself, in a line; "" if it has nothing to say. Raises DumpFailed."""
        if not self.source.version:
            return ""
        lines = self._output(self.source.version).decode("utf-8", "replace").strip().splitlines()
        return lines[0] if lines else ""

    def names(self) -> list[str]:
        """What the source lists; nothing if there is no listing. Raises DumpFailed."""
        if not self.source.listing:
            return []
        output = self._output(self.source.listing)
        try:
            return self.source.parse_listing(output)
        except ValueError as error:
            raise DumpFailed(
                f"The list of databases of {self.source.label!r} cannot be read.",
                evidence=f"{error}: {output[:200]!r}",
                remedy="Let the login on the host print nothing of its own (profile, rc files).",
            ) from error

    def _output(self, script: str) -> bytes:
        output = bytearray()
        ended = self.connection.receive(
            self.command(script),
            output.extend,
            first=first_lines(password=self.password, name=None),
            stall_s=_SHORT_S,
            deadline_s=_SHORT_S,
        )
        self.require_success(ended, script, what=f"{self.source.label!r} cannot be asked")
        return bytes(output[:_LISTING_BYTES])

    def require_success(self, ended: Ended, script: str, *, what: str) -> None:
        """Raise DumpFailed unless the command ended with 0."""
        if ended.exit_code == 0:
            return
        if REFUSED in ended.errors:
            raise DumpFailed(
                f"{what}: its key may not.",
                evidence=f"on {self.host} the key's forced command refuses: {script}",
                remedy=f"The sources have changed; make it anew: vmborg dumps guest-setup {vm_argument(self.host)}",
                status=ended.exit_code,
            )
        how = "was killed" if ended.exit_code < 0 else f"exited with {ended.exit_code}"
        raise DumpFailed(
            f"{what}.",
            evidence=f"on {self.host}: {script}\n{how}\n{ended.errors}".rstrip(),
            remedy=self._remedy(ended),
            status=ended.exit_code,
        )

    def _remedy(self, ended: Ended) -> str:
        if ended.exit_code == _NOT_FOUND:
            return "Install the program on the dump host."
        return (
            "See what it says and what the database logged; docs/dumps.md has the grants. The last good dump is kept."
        )
