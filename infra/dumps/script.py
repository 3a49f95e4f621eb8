"""The commands that run on a dump host, as text. Pure.

A command never holds what varies between two pulls: the password and the name of a database come as the first lines
of its input. So no secret stands in a command line on either side, no name has to be quoted, and a key can be limited
to exactly these commands (infra/dumps/guest.py).
"""

import hashlib
import re
import shlex

NAME = "VMBORG_NAME"
"""The variable in which a script finds the name of its database."""

_UNSAFE = re.compile(r"[^\w.+=,@~-]|^[.-]", re.UNICODE)
_LONGEST = 160  # bytes of a file name; 255 is the limit of Linux, and a suffix follows


def remote_command(body: str, *, login_variable: str = "", named: bool = False) -> str:
    """`body`, one line for sh, as the command to send. It reads its secret and its name from its input first."""
    reads = ["export LC_ALL=C"]
    if login_variable:
        reads.append(f"IFS= read -r {login_variable} || exit 65; export {login_variable}")
    if named:
        reads.append(f"IFS= read -r {NAME} || exit 65")
    return "exec sh -c " + shlex.quote("; ".join([*reads, body]))


def first_lines(*, password: str | None, name: str | None) -> bytes:
    """What such a command reads before anything else. Raises ValueError for what cannot be a line."""
    lines = [line for line in (password, name) if line is not None]
    if any("\n" in line or "\0" in line for line in lines):
        raise ValueError("it holds a line end")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def exports(**variables: str | int | None) -> str:
    """`export A=b; ` for every variable that has a value."""
    pairs = [f"{name}={shlex.quote(str(value))}" for name, value in variables.items() if value not in (None, "")]
    return f"export {' '.join(pairs)}; " if pairs else ""


def file_name(name: str) -> str:
    """A name of anything as the name of one file: no slash, no leading dot, no blank; two names never meet.

    Letters and digits of any script stay. The manifest has the name itself.
    """
    encoded = _UNSAFE.sub(_percent, name) or "%"
    raw = encoded.encode("utf-8", "surrogateescape")
    if len(raw) <= _LONGEST:
        return encoded
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{raw[:_LONGEST].decode('utf-8', 'ignore')}%{digest}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))
