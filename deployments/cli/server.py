"""What verbs have in common that talk to a Prefect server and run nothing."""

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from deployments.cli.context import Context
from deployments.cli.flowrun import console_level
from deployments.embedded import configured_api, prefect_api, quiet_environment
from infra.errors import ProcessError, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_LOG_IN = "Set PREFECT_API_AUTH_STRING to the server's NAME:PASSWORD (docs/security.md)."


@contextmanager
def prefect_client(context: Context) -> "Generator[SyncPrefectClient]":
    """A client of the server that is configured. Raises UsageError when none is, ProcessError when it refuses."""
    config = context.config
    if not configured_api():
        raise UsageError(
            "There is no Prefect server.",
            evidence="neither PREFECT_API_URL nor a Prefect profile names one",
            remedy="Start one (docs/scheduling.md, 'Prefect server and worker') and set PREFECT_API_URL.",
        )
    quiet_environment(console_level(context))
    with prefect_api(config.state_dir):
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectException

        try:
            with get_client(sync_client=True) as client:
                yield client
        except (httpx.HTTPError, PrefectException) as error:
            raise ProcessError(
                "The Prefect server did not take what was to be done.",
                evidence=f"{configured_api()}: {type(error).__name__}: {error}",
                remedy=_LOG_IN
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == HTTPStatus.UNAUTHORIZED
                else "Look at its log, then call this again: it goes on where it stopped.",
            ) from error
