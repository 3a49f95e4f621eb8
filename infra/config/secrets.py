"""Fetch a secret from where the configuration says it is kept. Secrets appear in no error and no log."""

import os
import stat
from pathlib import Path

from infra.config.secret_ref import SecretRef
from infra.errors import CommandTimedOut, ConfigError, ProcessError
from infra.process import run

_MAX_BYTES = 64 * 1024
_COMMAND_TIMEOUT = 60.0  # seconds; a password manager may ask another host, but nobody is there to type
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # set by systemd for units with LoadCredential=, see systemd.exec(5)


def resolve(ref: SecretRef, *, what: str = "the secret") -> str:
    """The secret itself, without one newline at its end. `what` is its name in errors.

    Raises ConfigError when it cannot be read, is empty, or lies in a file that everybody can read.
    """
    if ref.file is not None:
        text = _from_file(ref.file, what)
    elif ref.credential is not None:
        text = _from_credential(ref.credential, what)
    elif ref.env is not None:
        text = _from_environment(ref.env, what)
    else:
        text = _from_command(ref.command or (), what)
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise _failed(what, f"{ref} is empty", "Write the secret there.")
    if "\0" in secret:
        raise _failed(what, f"{ref} holds a NUL byte", "Write the secret there as text.")
    return secret


def file_problem(path: Path) -> str:
    """Why the mode of a secret's file is wrong, or nothing. Raises OSError."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a regular file"
    if facts.st_mode & stat.S_IRWXO:
        return f"everybody has access to it (mode {stat.S_IMODE(facts.st_mode):04o})"
    return ""


def _failed(what: str, evidence: str, remedy: str) -> ConfigError:
    return ConfigError(f"Cannot read {what}.", evidence=evidence, remedy=remedy)


def _from_file(path: Path, what: str) -> str:
    try:
        problem = file_problem(path)
        if problem:
            raise _failed(what, f"{path}: {problem}", f"chmod 0600 {path}, and change the secret if it was seen.")
        return _decoded(path, what)
    except FileNotFoundError as error:
        raise _failed(what, f"{path} does not exist", f"Write the secret to {path} with mode 0600.") from error
    except OSError as error:
        raise _failed(what, f"{path}: {error.strerror}", "Run as root, or correct the path.") from error


def _decoded(path: Path, what: str) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise _failed(what, f"{path} is larger than 64 KiB", "Correct the path.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # The exception carries the content: it must not become this error's cause.
        raise _failed(what, f"{path} is not UTF-8 text", "Write the secret as text.") from None


def _from_credential(name: str, what: str) -> str:
    directory = os.environ.get(_CREDENTIALS)
    if not directory:
        raise _failed(
            what,
            f"credential {name}: ${_CREDENTIALS} is not set",
            f"Run vmborg from a systemd unit with LoadCredential={name}:…, or use file, command or env.",
        )
    return _from_file(Path(directory) / name, what)


def _from_environment(name: str, what: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise _failed(what, f"the environment has no {name}", f"Set {name}, or use file, command or credential.")
    return value


def _from_command(argv: tuple[str, ...], what: str) -> str:
    try:
        completed = run(argv, timeout=_COMMAND_TIMEOUT, check=False)
    except CommandTimedOut as error:
        raise _failed(what, error.brief, "Let the command print the secret without asking anybody.") from error
    except ProcessError as error:
        raise _failed(what, error.evidence or error.brief, "Correct the command.") from error
    if completed.returncode != 0:
        # Its stdout may hold the secret although it failed: only stderr is shown.
        last = "\n".join(completed.stderr.strip().splitlines()[-5:])
        evidence = f"{argv[0]} exited with {completed.returncode}\n{last}".rstrip()
        raise _failed(what, evidence, "Run the command by hand as the same user.")
    return completed.stdout
