"""The folder of vmborg's own files, for root alone from its first moment on."""

from infra.errors import StorageError
from infra.model import StateDir


def make_state_dir(state: StateDir) -> bool:
    """Create the folder for root alone; whether it was missing. One that exists keeps its mode: doctor looks at it.

    Raises StorageError.
    """
    try:
        if state.root.is_dir():
            return False
        state.root.mkdir(mode=0o700, parents=True)
        state.root.chmod(0o700)  # whatever the umask made of it
    except OSError as error:
        raise StorageError(
            f"The folder {state.root} cannot be created.",
            evidence=f"{error.filename}: {error.strerror}",
            remedy="Run as root, or correct state_dir in the configuration.",
        ) from error
    return True
