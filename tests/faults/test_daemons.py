"""Faults of what the guest lives in: libvirtd, qemu, the host's power. All on a libvirtd of their own."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.process import run as run_program
from tests.e2e.checks import sources
from tests.e2e.held import gone, let_go
from tests.e2e.sources import bare_xml, disk
from tests.faults.commits import LOAD, hurry, load, reach_commit, slow_commit, unload
from tests.faults.processes import qemu_of
from tests.faults.rig import MIB, Rig, kill, make_rig
from tests.guests import Boot, Guest, make_disk, wait_for
from tests.integration.own_libvirtd import OwnLibvirtd
from tests.integration.vmborg import VMBORG

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def whole_rig(
    daemon: OwnLibvirtd, boot: Boot, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """As everywhere, but on that libvirtd."""
    with tempfile.TemporaryDirectory(prefix="vmborg-faults-", dir="/var/tmp") as folder:
        images, root = Path(folder), tmp_path_factory.mktemp("site")
        images.chmod(0o755)
        with make_rig("test-daemons", daemon.uri, boot=boot, images=images, api=prefect_server, root=root) as rig:
            yield rig


@pytest.mark.fault(
    "libvirtd killed and started again in create",
    seen="run Completed",
    does="opens its connection anew and goes on; qemu and the guest do not notice",
)
def test_libvirtd_restarted_in_create(rig: Rig, daemon: OwnLibvirtd) -> None:
    """The run ends as if nothing had been."""
    with rig.running() as run:
        borg = rig.hold()
        daemon.kill()
        daemon.start()
        let_go(borg)
        call = run.wait()
    assert call.code == 0, call.stdout + call.stderr
    rig.check()
    assert len(rig.archives()) == len(rig.earlier) + 1


@pytest.mark.fault(
    "libvirtd killed and started again in the block commit",
    seen="run Completed",
    does="the commit goes on in qemu; opens its connection anew, waits and pivots",
)
def test_libvirtd_restarted_in_the_commit(rig: Rig, daemon: OwnLibvirtd) -> None:
    """The job is found again."""
    with slow_commit(rig), rig.running() as run:
        reach_commit(rig)
        daemon.kill()
        daemon.start()
        hurry(rig)
        call = run.wait()
    assert call.code == 0, call.stdout + call.stderr
    rig.check()
    assert len(rig.archives()) == len(rig.earlier) + 1
    unload(rig)


@pytest.mark.fault(
    "libvirtd killed in create and not started again",
    seen="run Failed: HypervisorUnreachable; as long as it lasts `status` and `doctor` cannot see the VM and say so",
    does="tries for a minute, gives up and leaves its journal open; the guest runs on on its overlays",
    must="start libvirtd: nothing can be done to a VM without it; the next run or `vmborg recover` puts it back",
)
def test_libvirtd_stays_away(rig: Rig, daemon: OwnLibvirtd) -> None:
    """The run ends and says why; the VM is put back once libvirtd is there again."""
    with rig.running() as run:
        borg = rig.hold()
        daemon.kill()
        let_go(borg)
        try:
            call = run.wait(240)
            for verb in (("status",), ("doctor", rig.guest.name)):
                said = rig.site.vmborg(*verb)
                assert said.code == 2, f"{verb}: exit code {said.code}\n{said.stdout}\n{said.stderr}"
        finally:
            daemon.start()
    rig.check_failed(call, "HypervisorUnreachable")
    rig.check_critical()
    rig.recover()
    rig.check()


@pytest.mark.fault(
    "qemu killed while the guest is on its overlays",
    seen="run Completed; the VM is shut off",
    does="goes on reading; commits the overlays with qemu-img, corrects the definition, keeps the archive",
)
def test_qemu_killed_on_the_overlays(rig: Rig) -> None:
    """What the guest wrote to the overlay until it died is there when it starts."""
    with rig.running() as run:
        borg = rig.hold()
        load(rig, 20)
        os.kill(qemu_of(rig.guest), signal.SIGKILL)
        rig.guest.wait_state("shut off")
        let_go(borg)
        call = run.wait()
    assert call.code == 0, call.stdout + call.stderr
    rig.check("shut off")
    assert len(rig.archives()) == len(rig.earlier) + 1
    check_loaded(rig, 20)


def check_loaded(rig: Rig, mebibytes: int) -> None:
    """The guest that just died comes up with what it had written and synced."""
    start(rig)
    code, said = rig.guest.exec(["stat", "-c", "%s", LOAD])
    assert (code, said.strip()) == (0, str(mebibytes * MIB))
    unload(rig)


def start(rig: Rig) -> None:
    """Start the guest and wait until it counts."""
    rig.guest.start().wait_agent()
    rig.guest.wait_ready()


@contextmanager
def power_loss(rig: Rig, daemon: OwnLibvirtd) -> Iterator[None]:
    """The run in the block, what it started, the guest and libvirtd all end in one moment; then libvirtd starts."""
    with rig.running() as run:
        yield
        qemu = qemu_of(rig.guest)
        daemon.kill()
        for pid in (run.child.pid, qemu):
            kill(pid, signal.SIGKILL)
        run.wait()
        wait_for(lambda: gone(qemu), timeout=30, what="qemu's end")
    daemon.forget_guests()
    daemon.start()


@pytest.mark.fault(
    "power loss in create: the run, borg, qemu and libvirtd end in one moment",
    seen="the run stays Running in Prefect; `status` and `doctor` critical: `vmborg recover VM`",
    does="`recover` or `reconcile` at boot commits the overlays with qemu-img and corrects the definition",
)
def test_power_loss_in_create(rig: Rig, daemon: OwnLibvirtd) -> None:
    """Put back before the guest starts."""
    with power_loss(rig, daemon):
        borg = rig.hold()
        load(rig, 20)
    assert gone(borg)
    assert rig.guest.state() == "shut off"
    assert sources(rig.guest, inactive=True) != rig.bases
    rig.check_critical()
    rig.recover()
    rig.check("shut off")
    assert rig.archives() == rig.earlier
    check_loaded(rig, 20)


@pytest.mark.fault(
    "power loss in create, and the guest starts before anything recovers",
    seen="the run stays Running in Prefect; `status` and `doctor` critical: `vmborg recover VM`",
    does="the guest starts on its overlays; `recover`, `reconcile` or the next backup puts it back while it runs",
)
def test_power_loss_and_an_early_start(rig: Rig, daemon: OwnLibvirtd) -> None:
    """The guest has what it wrote before and after."""
    with power_loss(rig, daemon):
        rig.hold()
        load(rig, 20)
    start(rig)
    assert sources(rig.guest) != rig.bases
    rig.check_critical()
    rig.recover()
    rig.check()
    code, said = rig.guest.exec(["stat", "-c", "%s", LOAD])
    assert (code, said.strip()) == (0, str(20 * MIB))
    unload(rig)


@pytest.mark.fault(
    "power loss in the block commit",
    seen="the run stays Running in Prefect; `status` and `doctor` critical: `vmborg recover VM`",
    does="`recover` or `reconcile` at boot commits the overlays anew with qemu-img; deletes the unfinished archive",
)
def test_power_loss_in_the_commit(rig: Rig, daemon: OwnLibvirtd) -> None:
    """A base that holds half of an overlay gets the rest."""
    with slow_commit(rig), power_loss(rig, daemon):
        reach_commit(rig)
    assert rig.guest.state() == "shut off"
    rig.check_critical()
    rig.recover()
    rig.check("shut off")
    assert rig.archives() == rig.earlier
    assert not rig.unfinished()
    check_loaded(rig, 200)


@pytest.mark.fault(
    "kill -9 of the runs of two VMs, one of which then loses its power too",
    seen="two runs stay Running in Prefect; `status` and `doctor` critical for both VMs",
    does="one run of `reconcile` puts both back",
)
def test_reconcile_recovers_all(rig: Rig) -> None:
    """The flow looks at every leftover on the host; nothing is left to the next one."""
    with second_vm(rig) as second:
        bases = sources(second)
        for name in (rig.guest.name, second.name):
            with rig.running("backup", "--", name, program="tests.e2e.killing after snapshot") as run:
                assert run.wait().code == -signal.SIGKILL
        os.kill(qemu_of(second), signal.SIGKILL)
        second.wait_state("shut off")
        status = rig.site.vmborg("status")
        assert status.code == 2
        assert all(f"vmborg recover {name}" in status.stdout for name in (rig.guest.name, second.name))

        run_program(
            [str(VMBORG.with_name("python")), "-c", RECONCILE, str(rig.site.config)],
            timeout=120,
            env={"PREFECT_API_URL": rig.site.api},
        )

        (row,) = rig.dashboard.ask("flow_runs", flows={"name": {"any_": ["reconcile"]}})
        assert row["state_type"] == "COMPLETED"
        assert row["state"]["message"] == "2 open runs looked at"
        assert sources(second) == bases
        assert second.state() == "shut off"
        rig.check()
        table = rig.dashboard.artifact(row, "table")
        assert table is not None
        assert all(name in table["data"] for name in (rig.guest.name, second.name))


RECONCILE = "import sys; from flows.reconcile import reconcile; reconcile(sys.argv[1])"


@contextmanager
def second_vm(rig: Rig) -> Iterator[Guest]:
    """Another running VM, without an operating system."""
    image = make_disk(rig.folder / "second.qcow2", size=16 * MIB, formatted=False)
    with Guest.define(rig.guest.uri, bare_xml(f"{rig.guest.name}-2", disk("vda", image))) as guest:
        yield guest.start()
