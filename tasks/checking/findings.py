"""What `status` says of the last checks: damage that was found and not mended yet."""

from infra.config.models import Config
from infra.errors import JournalError
from tasks.checking.run import last_check
from tasks.health import Finding, Health, failed


def check_findings(config: Config) -> list[Finding]:
    """A finding for each repository whose last check was bad. One never checked on this host is none."""
    found: list[Finding] = []
    for name in config.repositories:
        try:
            verdict = last_check(config, name)
        except JournalError as error:
            found.append(failed(error, subject=f"repository {name}", check="check", health=Health.UNKNOWN))
            continue
        if verdict.when is not None and not verdict.good:
            text = f"the check of {verdict.when:%Y-%m-%d %H:%M}Z found damage: {verdict.said}"
            remedy = f"docs/retention.md, 'When check finds damage'; then vmborg check --repository {name}"
            found.append(Finding(Health.CRITICAL, f"repository {name}", "check", text, remedy))
    return found
