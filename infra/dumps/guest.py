"""What goes onto a dump host so that our key can dump there and do nothing else. Pure."""

import shlex
from collections.abc import Mapping, Sequence

from infra.dumps.kinds import Files
from infra.dumps.script import remote_command
from infra.dumps.source import Source

SCRIPT = "/usr/local/sbin/vmborg-dump"
REFUSED = "this key may not run"
"""How its answer begins to what it does not let through."""

_HEAD = """\
#!/bin/sh
# The forced command of vmborg's dump key: it runs what is listed here and nothing else.
# Made by `vmborg dumps guest-setup`; make it anew when the sources of this host change.
case ${SSH_ORIGINAL_COMMAND-} in
"""
# -R: nothing can be written. sshd puts the command of its subsystem into the variable (sshd_config(5), Subsystem).
_SFTP = """\
internal-sftp|*/sftp-server)
  for server in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server; do
    if [ -x "$server" ]; then exec "$server" -R; fi
  done ;;
"""
_TAIL = f"""\
esac
echo "{REFUSED}: ${{SSH_ORIGINAL_COMMAND-a shell}}" >&2
exit 126
"""


def allowed(sources: Sequence[Source], passwords: Mapping[str, object]) -> list[str]:
    """Every command that a pull may send; those of a source with a password read it first."""
    commands: list[str] = []
    for source in sources:
        variable = source.login_variable if source.label in passwords else ""
        commands += [remote_command(script, login_variable=variable, named=named) for script, named in source.scripts()]
    return list(dict.fromkeys(commands))


def forced_script(sources: Sequence[Source], passwords: Mapping[str, object]) -> str:
    """The script. A command is compared as a whole, as text, and run as it stands here."""
    cases = [f"{shlex.quote(command)})\n  {command} ;;\n" for command in allowed(sources, passwords)]
    files = _SFTP if any(isinstance(source, Files) for source in sources) else ""
    return _HEAD + "".join(cases) + files + _TAIL


def authorized_line(public_key: str) -> str:
    """The line for authorized_keys: `restrict` takes terminal, forwarding and the rest away (sshd(8))."""
    return f'restrict,command="{SCRIPT}" {public_key.strip()}'
