"""The command as a user runs it: version, help, wrong calls, the configuration, quickness."""

import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from deployments.cli.main import VERBS
from infra.process import run, spawn
from tests.integration.vmborg import VMBORG, vmborg

pytestmark = pytest.mark.integration

QUICK = (("--version",), ("--help",), ("config", "generate"), ("config", "validate"), ("config", "show"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that is valid and names nothing that exists."""
    path = tmp_path / "vmborg.yaml"
    document = {
        "state_dir": str(tmp_path / "state"),
        "hypervisor": {"name": "kvm1", "uri": f"qemu+unix:///system?socket={tmp_path}/none"},
        "repositories": {
            "main": {"location": str(tmp_path / "repository"), "passphrase": {"file": str(tmp_path / "secret")}}
        },
        "vms": {"exclude": ["scratch-*"], "overrides": {"db": {"quiesce": "require"}}},
    }
    path.write_text(yaml.safe_dump(document))
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    return path


def test_the_version_in_both_forms() -> None:
    """`--version` prints one line, with --json one document."""
    assert vmborg("--version").stdout.startswith("vmborg ")
    assert set(vmborg("--version", "--json").document) == {"version"}


def test_help_lists_every_verb_in_a_line() -> None:
    """`--help` names every verb; nothing is loaded for it."""
    call = vmborg("--help")
    assert call.code == 0
    assert [verb for verb in VERBS if f"\n  {verb} " not in call.stdout] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    """Each verb of the list exists and has a help text; --config and --json may stand after it."""
    call = vmborg(verb, "--help")
    assert call.code == 0
    assert "--json" in call.stdout
    assert "--config" in call.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lst",), "vmborg list"),
        (("config", "shw"), "show"),
        (("list", "--repositry", "x"), "--repository"),
        (("--nonsense",), "--nonsense"),
        (("restore",), "Missing argument"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_wrong_calls_end_with_2(arguments: tuple[str, ...], said: str, *, as_json: bool) -> None:
    """A wrong command line is told in three voices with exit code 2, and in one document with --json."""
    call = vmborg(*arguments, *(("--json",) if as_json else ()))
    assert call.code == 2
    assert said in "\n".join(call.voices())
    assert call.stdout == "" or call.document["error"]["type"] == "UsageError"
    assert bool(call.stdout) is as_json


def test_no_arguments_show_the_help() -> None:
    """`vmborg` alone is a wrong call that shows what there is."""
    call = vmborg()
    assert (call.code, call.stdout) == (2, "")
    assert "doctor" in call.stderr


def test_validate_tells_all_mistakes_at_once(config: Path) -> None:
    """Five mistakes in a file are five lines, exit code 2, and one JSON document with --json."""
    document = yaml.safe_load(config.read_text())
    document["hypervizor"] = document.pop("hypervisor")
    document["repositories"]["main"]["compression"] = "zip"
    document["vms"]["defaults"] = {"repository": "mian", "objective": "often"}
    document["vms"]["overrides"]["db"] = {"quiesce": "requier"}
    config.write_text(yaml.safe_dump(document))
    call = vmborg("config", "validate", config=config)
    brief, evidence, _ = call.voices()
    assert call.code == 2
    assert "5 mistakes" in brief
    paths = (
        "hypervizor",
        "repositories.main.compression",
        "vms.defaults.repository",
        "vms.defaults.objective",
        "vms.overrides.db.quiesce",
    )
    assert [path for path in paths if f" {path}: " not in evidence] == []
    as_json = vmborg("config", "validate", "--json", config=config)
    assert as_json.document["error"]["evidence"] == evidence


WORDS = {
    "backup": ["web"],
    "restore": ["web", "--as", "copy"],
    "boot": ["web"],
    "files": ["web", "ls"],
    "hold": ["web"],
    "release": ["web"],
    "dumps": ["list"],
    "alerts": ["test"],
}
"""What a verb cannot do without."""


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"config"}))
def test_every_verb_refuses_a_wrong_configuration(config: Path, verb: str) -> None:
    """Each verb that needs the configuration ends with 2 when it is wrong, before it does anything."""
    config.write_text(config.read_text() + "nonsense: 1\n")
    call = vmborg("--json", verb, *WORDS.get(verb, []), config=config)
    assert call.code == 2
    assert call.document["error"]["type"] == "ConfigError"
    assert "nonsense" in call.voices()[1]
    assert not (config.parent / "state").exists()


def test_generate_writes_a_valid_file_once(tmp_path: Path) -> None:
    """The generated file is valid, is never overwritten, and its folder must exist."""
    target = tmp_path / "new.yaml"
    assert vmborg("config", "generate", "--output", target).code == 0
    assert vmborg("config", "validate", config=target).code == 0
    again = vmborg("config", "generate", "--output", target)
    assert (again.code, "exists already" in again.stderr) == (2, True)
    assert vmborg("config", "generate", "--output", tmp_path / "no" / "x").code == 2
    printed = vmborg("config", "generate")
    assert printed.stdout == target.read_text()


def test_show_knows_the_policy_of_a_vm(config: Path) -> None:
    """`show --vm` tells what holds for a VM and whether it is excluded; no secret appears."""
    shown = vmborg("config", "show", "--vm", "db", "--json", config=config).document
    assert (shown["policy"]["quiesce"], shown["origins"]["quiesce"], shown["excluded_by"]) == (
        "require",
        "override",
        None,
    )
    assert vmborg("config", "show", "--vm", "scratch-1", "--json", config=config).document["excluded_by"] == "scratch-*"
    for arguments in (("show",), ("show", "--vm", "db"), ("show", "--json"), ("validate",)):
        call = vmborg("config", *arguments, config=config)
        assert call.code == 0
        assert "correct horse" not in call.stdout + call.stderr


def test_schema_is_json_in_both_forms() -> None:
    """The schema is the same JSON with and without --json."""
    assert vmborg("config", "schema").document == vmborg("config", "schema", "--json").document


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_verbs_load_neither_prefect_nor_libvirt(arguments: tuple[str, ...], config: Path) -> None:
    """Verbs that need no flow and no host import neither Prefect nor libvirt nor paramiko."""
    code = (
        "import sys; from deployments.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = sorted({'prefect', 'libvirt', 'paramiko', 'sqlalchemy'} & set(sys.modules)); "
        "print(heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    done = run([sys.executable, "-c", code, "--config", str(config), *arguments], timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_a_closed_pipe_is_no_error() -> None:
    """A reader that has seen enough (head) does not make a traceback."""
    done = run(["bash", "-c", f"{VMBORG} config schema | head -n 1; exit ${{PIPESTATUS[0]}}"], timeout=60, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_call_with_its_number(tmp_path: Path, number: signal.Signals) -> None:
    """A signal unwinds the verb: `finally` blocks run, the exit code is 128 + its number, one document is printed."""
    code = (
        "import sys, time, deployments.cli.config as verb, deployments.cli.main as m\n"
        "import click\n"
        "@click.command\n"
        "def command():\n"
        "    try:\n"
        "        print('ready', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        f"        open({str(tmp_path / 'tidied')!r}, 'w').close()\n"
        "verb.command = command\n"
        "sys.exit(m.main(['config', '--json']))\n"
    )
    with spawn([sys.executable, "-c", code]) as child:
        assert child.stderr.readline() == "ready\n"
        os.kill(child.pid, number)
        assert child.wait(30) == 128 + number
        assert f"Ended by {number.name}" in child.stdout.read()
    assert (tmp_path / "tidied").exists()


def test_help_is_a_document_too(config: Path) -> None:
    """With --json, help and a call without verb print one document and nothing else on stdout."""
    for arguments in (("--json", "--help"), ("list", "-h", "--json"), ("--json", "config", "--help")):
        call = vmborg(*arguments, config=config)
        assert (call.code, list(call.document)) == (0, ["help"])
    for arguments in (("--json",), ("--json", "config")):
        call = vmborg(*arguments, config=config)
        assert (call.code, call.document["error"]["type"]) == (2, "UsageError")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_of_their_own(config: Path, closed: str) -> None:
    """Without stdout or stderr a verb does its work and keeps its exit code."""
    for verb, code in (("config validate", 0), ("config show --vm", 2), ("lst", 2)):
        done = run(["bash", "-c", f"{VMBORG} --config {config} {verb} {closed}"], timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)


@pytest.mark.parametrize("verb", ["status", "doctor"])
def test_a_wrong_call_of_a_monitor_is_unknown(verb: str) -> None:
    """Monitoring systems read 2 as critical: a call that cannot be understood is unknown, 3."""
    assert vmborg(verb, "--bogus").code == 3
