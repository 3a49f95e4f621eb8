"""Everything is lost but the copy in a cloud: a VM comes back from it and boots."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.checks import sources
from tests.e2e.site import Site
from tests.guests import Guest, read_counters_from_images, virsh
from tests.integration.cloud.servers import Cloud

pytestmark = pytest.mark.e2e


def test_a_vm_is_restored_from_the_copy_alone(guest: Guest, site: Site, guest_images: Path, tmp_path: Path) -> None:
    """The repository, its keys and caches are deleted; what S3 holds is fetched, restored and booted."""
    cloud = Cloud(tmp_path / "cloud")
    settings = json.loads(site.config.read_text())
    settings["cloud"] = {"offsite": {"remote": "s3:bucket/vmborg", "config": str(cloud.config)}}
    site.config.write_text(json.dumps(settings))
    site.backup(guest.name)
    before = guest.counters()
    with cloud.serving():
        site.ok("check")
        assert site.ok("sync")["copies"][0]["result"]["proof"] == "hash"
        shutil.rmtree(site.repository_path)
        shutil.rmtree(site.root / "state")
        fetched = site.root / "fetched"
        assert site.ok("sync", "restore", "offsite", "--to", fetched)["fetched"]["archives"] == 1

    settings["repositories"]["main"]["location"] = str(fetched)
    site.config.write_text(json.dumps(settings))
    site.ok("restore", guest.name, "--as", "e2e-from-cloud", "--to", guest_images / "restored")
    restored = Guest(guest.uri, virsh(guest.uri, "dumpxml", "--security-info", "e2e-from-cloud"))
    with restored:
        counters = read_counters_from_images(
            {target: Path(path) for target, path in sources(restored, inactive=True).items()}
        )
        assert counters.clean
        assert counters["vda"] <= before["vda"]
        restored.start()
        restored.wait_agent(120)
        restored.wait_counter_moves()
