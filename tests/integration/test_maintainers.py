"""Who may delete: the maintainer by its name or its key; and servers that refuse without a word."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.errors_upkeep import RepositoryAppendOnly
from tasks.upkeep import facts_of
from tests.integration.shared_repository import WEB, Site, empty_site, nights

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty repository."""
    return empty_site(tmp_path)


def test_only_the_maintainer_deletes(site: Site) -> None:
    """A host that is not the maintainer, and one that declares append_only, say so and delete nothing."""
    names = site.fill(*nights(WEB, "web", 5))
    stranger = site.prune("kvm2", maintainer="kvm1")
    declared = site.prune("kvm1", append_only=True)
    assert (stranger.deleted, declared.deleted) == ((), ())
    assert "its maintainer is kvm1" in stranger.withheld
    assert "append_only" in declared.withheld
    assert set(site.names()) == set(names)
    assert len(site.prune("kvm1", maintainer="kvm1").deleted) == 2


def by_ssh(site: Site, key: Path) -> dict[str, Any]:
    """The repository as a server's, by a stand-in for ssh; what the configuration says of it.

    As sshd does with a forced command: every key but this one gets `borg serve --append-only`, and borg reads from
    SSH_ORIGINAL_COMMAND how much it shall say.
    """
    borg = Path(sys.executable).with_name("borg")
    shell = site.root / "ssh"
    shell.write_text(
        "#!/bin/sh\noptions=--append-only first=\n"
        'while [ "$1" != server ]; do\n'
        f'  [ "$1$first" = -i ] && first=seen && [ "$2" = "{key}" ] && options=\n  shift\ndone\nshift\n'
        f'SSH_ORIGINAL_COMMAND="$*" exec {borg} serve $options\n'
    )
    shell.chmod(0o755)
    # borg asks whether a repository was moved that it knows from another place.
    shutil.rmtree(site.root / "state-kvm1", ignore_errors=True)
    location = f"ssh://server{site.root}/repository"
    return {"location": location, "rsh": f"{shell} -i /root/another", "remote_path": str(borg)}


def test_a_server_that_hides_its_refusal_is_found_out(site: Site) -> None:
    """Through `borg serve --append-only` deletions seem to work; the missing line of compact is an error."""
    site.fill(*nights(WEB, "web", 5))
    remote = by_ssh(site, site.root / "nobody's key")
    with pytest.raises(RepositoryAppendOnly, match="append-only") as caught:
        site.prune("kvm9", **remote)
    assert "append_only: true" in caught.value.remedy
    assert facts_of(site.config("kvm9").state, "main") == {}


@pytest.mark.parametrize("declared", [False, True])
def test_the_maintainers_key_deletes_where_others_cannot(site: Site, declared: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only a host that has the key prunes, with that key before its own, which the server lets append alone."""
    names = site.fill(*nights(WEB, "web", 5))
    key = site.root / "maintainer key"
    remote = by_ssh(site, key) | {"maintainer_key": str(key), "append_only": declared}
    without = site.prune("kvm9", **remote)
    assert (without.deleted, "maintainer key prunes it" in without.withheld) == ((), True)
    key.touch()
    stranger = site.prune("kvm9", maintainer="kvm1", **remote)
    assert (stranger.deleted, "its maintainer is kvm1" in stranger.withheld) == ((), True)
    assert len(site.prune("kvm9", **remote).deleted) == 2
    assert len(site.names()) == len(names) - 2
