"""The dashboard in a real browser: what a stranger reads there, and a backup that is started from its form.

With VMBORG_TEST_SCREENSHOTS naming a folder the pages are photographed into it: those of docs/screenshots were made so.
"""

import json
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from tasks.growth import record
from tasks.policy import vm_key
from tasks.space import Sample, measure, remember
from tests.e2e.browser import Browser, browsing
from tests.e2e.held import hold_borg, let_go
from tests.e2e.site import Site, make_site
from tests.e2e.sources import MIB, bare_xml, disk
from tests.e2e.worker import Worker
from tests.guests import Guest, make_disk
from tests.integration.many import Wanted, fill
from tests.integration.own_libvirtd import own_libvirtd

pytestmark = pytest.mark.e2e

HOST = "kvm1"
GIB = 1024**3
DAY = timedelta(days=1)
DAYS = 30
VMS = {"web": (20, 0.12, 0.3), "files": (60, 0.5, 0.2), "db01": (40, 0.4, 0.4), "mail": (30, 0.2, 3.2)}
"""Name: GiB of its disk, GiB of new data a day, age of its newest archive in days."""
NEVER = "build"


@dataclass
class Scene:
    """A host whose VMs have a past, its worker, and a browser that looks at the dashboard."""

    site: Site
    worker: Worker
    browser: Browser
    guests: dict[str, Guest]
    folder: Path

    @property
    def root(self) -> str:
        """The address of the dashboard."""
        return f"{self.site.api.removesuffix('/api')}/v2"

    def photograph(self, name: str, *, height: int = 900, moving: bool = False) -> None:
        """Keep a picture, if somebody wants them."""
        if "VMBORG_TEST_SCREENSHOTS" in os.environ:
            path = Path(os.environ["VMBORG_TEST_SCREENSHOTS"], f"{name}.png")
            self.browser.photograph(path, height=height, moving=moving)

    def deployment(self, flow: str) -> str:
        """The id of the deployment of this flow."""
        flows = {each["id"]: each["name"] for each in self.worker.dashboard.ask("flows")}
        return next(each["id"] for each in self.worker.deployments() if flows[each["flow_id"]] == flow)

    def artifact(self, key: str) -> dict[str, Any]:
        """The newest artifact with this key."""
        found = self.worker.dashboard.ask("artifacts/latest", artifacts={"key": {"any_": [key]}})
        assert [each["key"] for each in found] == [key]
        return found[0]

    def follow(self, key: str, *words: str) -> str:
        """From the page of a run to the artifact whose key begins so, as it is now; the text of the page."""
        self.browser.click("[role=tab]", "Artifacts")
        self.browser.click("a", key)
        self.browser.click("a[href*='/artifacts/artifact/']")
        return self.browser.wait_text(*words)

    def open_artifact(self, key: str, *words: str) -> str:
        """Look at it; the text of the page."""
        self.browser.open(f"{self.root}/artifacts/artifact/{self.artifact(key)['latest_id']}")
        return self.browser.wait_text(*words)


@pytest.fixture(scope="module")
def scene(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A hypervisor of its own with five VMs; one was never backed up, one not of late, one has a disk too many."""
    home = tmp_path_factory.mktemp("dashboard")
    with own_libvirtd() as daemon, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmborg-dashboard-") as folder:
        Path(folder).chmod(0o755)
        site = make_site(Path(folder, "site"), daemon.uri, api=prefect_server)
        settings = json.loads(site.config.read_text(encoding="utf-8"))
        settings["hypervisor"]["name"] = HOST
        site.config.write_text(json.dumps(settings), encoding="utf-8")
        guests = {name: define(daemon.uri, name, Path(folder)) for name in (*VMS, NEVER)}
        guests["web"].start()
        give_a_past(site, guests)
        worker = Worker(prefect_server, site.config, home)
        with worker.serving(), browsing(home) as browser:
            worker.unschedule()
            yield Scene(site, worker, browser, guests, Path(folder))


def define(uri: str, name: str, folder: Path) -> Guest:
    """A VM with one disk, which it shares with others if it is db01; web's is random, so that borg has work."""
    image = folder / f"{name}.raw"
    disks = [disk("vda", image, "raw")]
    if name == "web":
        image.write_bytes(os.urandom(64 * MIB))
    else:
        make_disk(image, size=8 * MIB, format="raw", formatted=False)
    if name == "db01":
        shared = make_disk(folder / "shared.raw", size=8 * MIB, format="raw", formatted=False)
        disks.append(disk("vdc", shared, "raw", more="<shareable/>", driver="cache='none'"))
    return Guest.define(uri, bare_xml(name, *disks))


def give_a_past(site: Site, guests: dict[str, Guest]) -> None:
    """A month of archives, of what each stored, and of the repository's size."""
    config, now, chance = load(site.config), datetime.now(UTC).replace(microsecond=0), random.Random(7)
    wanted: list[Wanted] = []
    for vm, (size, new, age) in VMS.items():
        uuid, uncovered = guests[vm].uuid, "vdc" if vm == "db01" else ""
        for back in reversed(range(DAYS)):
            when = now - DAY * (back + age)
            took = (10 + 3 * size) * chance.uniform(0.8, 1.3)
            disks = f"vda:{size * GIB}"
            wanted.append(Wanted(uuid, vm, when, HOST, uncovered, disks=disks, seconds=took))
            stored = int((size * 0.4 if back == DAYS - 1 else new * chance.uniform(0.5, 1.6)) * GIB)
            archive = wanted[-1].name
            record(config.state, config.check, source=uuid, name=vm, archive=archive, stored=stored, when=when)
    fill(site.repository, wanted)
    bulk = site.repository_path / "bulk"  # so that its size is in keeping with that past; it takes no space
    bulk.touch()
    os.truncate(bulk, 96 * GIB)
    today = measure(config, "main", now)
    assert today
    for back in reversed(range(1, DAYS)):
        less = int(back * 1.2 * GIB * chance.uniform(0.97, 1.03))
        remember(config.state, "main", Sample(now - DAY * back, today.size - less, today.free + less, today.total))


def test_a_backup_is_started_from_the_form_and_watched(scene: Scene) -> None:
    """The form explains its parameters; the run is named after the VM, its progress moves, its result is a table."""
    browser = scene.browser
    browser.open(f"{scene.root}/deployments/deployment/{scene.deployment('backup-vm')}/run")
    browser.wait_text("Name or UUID of the VM", "Path of the configuration")
    browser.click("textarea")
    browser.type("web")
    scene.photograph("form")
    browser.click("button", "Submit")
    borg = hold_borg(scene.site.repository_path, scene.folder / "web.raw")
    try:
        (run,) = scene.worker.runs("backup-vm")
        browser.open(f"{scene.root}/runs/flow-run/{run['id']}")
        browser.wait_text("web", f"vmborg:{HOST}", "Running", "reading 64.0 MiB of images into main")
        scene.follow("progress-web-", "Reading the disks of web", "0%")
    finally:
        let_go(borg)
    assert run["name"] == "web"
    run = scene.worker.dashboard.wait_state(run["id"], "COMPLETED", timeout=120)
    scene.open_artifact(vm_key("progress", "web", scene.guests["web"].uuid), "100%")
    browser.open(f"{scene.root}/runs/flow-run/{run['id']}")
    browser.wait_text("Completed", "9 Task runs", "consistency: crash")
    scene.photograph("run")
    text = scene.follow("backup-web-", "vda", "64.0 MiB", "crash")
    scene.photograph("result")
    assert run["state"]["message"].removeprefix("Archive ") in text


def test_the_pages_answer_whether_all_is_safe(scene: Scene) -> None:
    """After one coverage: what is not safe comes first; each VM's line leads to its page; plots are drawn."""
    browser = scene.browser
    scene.worker.dashboard.wait_state(scene.worker.start("coverage"), "COMPLETED", timeout=120)
    ours = f"{HOST}\t{len(VMS) + 1}\t2"  # VMs, not safe; the page has every hypervisor that reports to this server
    text = scene.open_artifact("fleet", "Every VM", "build never backed up", ours)
    assert text.index("What to look at") < text.index("Every VM")
    scene.photograph("fleet", height=1150)
    browser.click("a", "files")
    browser.wait_text("History", "Bring it back", "vmborg restore files --as files-copy --start")
    browser.wait_image()
    scene.photograph("vm", height=1400)
    scene.open_artifact(f"repository-{HOST}-main", "days left", "VMs in it")
    browser.wait_image()
    scene.photograph("repository", height=1100)
    scene.open_artifact(f"fleet-{HOST}", "Items per page")


def test_the_terminal_says_the_same(scene: Scene) -> None:
    """`vmborg status` and the fleet's table have the same cells, the ages aside, which go on."""
    rows = json.loads(scene.artifact(f"fleet-{HOST}")["data"])
    printed = scene.site.vmborg("status").stdout
    heading, *lines = printed.splitlines()[: len(rows) + 1]
    columns = [column for column in rows[0] if column not in {"host", "uuid"}]
    assert heading.split("  ")[0] == "status"
    assert [column for column in columns if column not in heading] == []
    for line, row in zip(lines, rows, strict=True):
        assert [row[column] for column in columns if column != "age" and row[column] not in line] == []
