"""Reading the configuration: every mistake at once, each where it stands, and no surprise from YAML."""

import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config.load import check, load
from infra.config.models import Config
from infra.errors import ConfigError
from infra.model import Quiesce

GOOD = """
repositories:
  main: {location: /srv/borg/main, passphrase: {file: /etc/vmborg/passphrase}}
"""
MAIN_KEY = "repositories: {{main: {{encryption: none, maintainer_key: /k, location: {}}}}}"
TWICE = """repositories: {a: {location: /x, encryption: none}, b: {location: /x/, encryption: none}}
vms: {defaults: {repository: a}}
"""


def _refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(text, name="vmborg.yaml")
    return str(caught.value)


def _accepted(text: str) -> Config:
    return check(text, name="vmborg.yaml")


def test_five_mistakes_are_told_at_once() -> None:
    """Mistakes of five kinds, found by three checks, are listed together with line, path and a suggestion."""
    text = """\
state_dir: somewhere
repositories:
  main: {location: /srv/borg/main, passphrase: {file: /p}, encrypton: none}
vms:
  defaults: {repository: mian}
  overrides:
    web.1: {quiesce: requier}
    db: {exclude_disks: [vda]}
    db: {exclude_disks: [vdb]}
"""
    said = _refused(text)
    expected = [
        "has 5 mistakes",
        "line 1: state_dir: must be an absolute path",
        "line 3: repositories.main.encrypton: unknown key; did you mean 'encryption'?",
        "line 5: vms.defaults.repository: there is no repository 'mian'; did you mean 'main'?",
        "line 7: vms.overrides.'web.1'.quiesce: must be 'require', 'try' or 'never', not 'requier'",
        "line 9: vms.overrides.db: repeated; it stands in line 8 already",
    ]
    assert [line for line in expected if line not in said] == []


def test_no_mistake_hides_another() -> None:
    """Mistakes that take two values to see are told although one of their section is wrong by itself."""
    text = """\
repositories:
  main: {location: relative/path, encryption: repokey}
  two: {location: /x, passphrase: {file: /x, env: Y, comand: [a]}}
vms:
  defaults: {repository: mian, retention: {daily: 0}}
  exclude: ["db*"]
  overrides:
    db01: {quiesce: require, min_free: 3GiB}
"""
    said = _refused(text)
    expected = [
        "has 8 mistakes",
        "line 2: repositories.main: encryption repokey needs a passphrase",
        "line 2: repositories.main.location: must be an absolute path",
        "line 3: repositories.two.passphrase: must have exactly one of",
        "line 3: repositories.two.passphrase.comand: unknown key",
        "line 5: vms.defaults.repository: there is no repository 'mian'",
        "line 5: vms.defaults.retention: keeps no archive at all",
        "line 8: vms.overrides.db01: never used",
        "vms.overrides.db01.min_free_start: must not be smaller than min_free",
    ]
    assert [line for line in expected if line not in said] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- main\n", "must be a mapping"),
        ("main\n", "must be a mapping"),
        ("repositories: [", "line 1: not valid YAML"),
        ("a:\n\t- b\n", "line 2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: \x01", "not valid YAML"),
        ("a: *secret\n", "an alias (*…) without its anchor"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("a: " + "[" * 5000, "nested too deeply"),
        (GOOD + "hypervisor: !!python/object/apply:os.system [true]\n", "YAML tags"),
        (GOOD + "? [a, b]\n: c\n", "a key must be a text"),
        (GOOD + "vms: &x {defaults: {<<: *x}}\n", "merge keys"),
        (GOOD + "dumps: {hosts: {db: {address: a}}}\n", "dumps.hosts.db.sources: is missing"),
        (GOOD + "alerts: {receivers: {ops: {}}}\n", "alerts.receivers.ops.url: is missing"),
        (
            GOOD + "alerts: {receivers: {Ops: {url: {env: U}}}}\n",
            "must be lower case letters, digits and single dashes",
        ),
        (GOOD + "cloud: {offsite: {config: /x}}\n", "cloud.offsite.remote: is missing"),
        (GOOD + "cloud: {offsite: {config: /x, remote: bucket}}\n", "cloud.offsite.remote: must be a remote"),
        (GOOD + "cloud: {o: {config: /x, remote: 's:b', repository: cellar}}\n", "there is no repository 'cellar'"),
        (GOOD + "cloud: {restore: {config: /x, remote: 's:b'}}\n", "a copy must not be called restore"),
        (GOOD + "alerts: [mail]\n", "alerts: must be"),
        ("repositories:\n", "repositories: is missing"),
        ("repositories: {}\n", "repositories: must not be empty"),
        ("repositories: {../x: {location: /x, encryption: none}}", "a repository's name may hold"),
        ("repositories: {main: {location: /x}}", "needs a passphrase"),
        ("repositories: {main: {location: x, encryption: none}}", "must be an absolute path or ssh://"),
        ("repositories: {main: {location: 'ssh://', encryption: none}}", "must be ssh://[user@]host"),
        ("repositories: {main: {location: 'ssh://h:x/y', encryption: none}}", "must be ssh://[user@]host"),
        ("repositories: {main: {location: /x, encryption: none, compression: zip}}", "must be none, lz4"),
        ("repositories: {main: {location: /x, encryption: none, lock_wait: 10x}}", "must be a duration"),
        ("repositories: {main: {location: /x, encryption: none, append_only: 2}}", "must be true or false"),
        (MAIN_KEY.format("/x"), "maintainer_key is for a repository that SSH leads to"),
        (MAIN_KEY.format("'ssh://h/x', rsh: sudo ssh"), "maintainer_key needs an rsh that begins with ssh"),
        (TWICE, "line 1: repositories.b.location: the same as that of 'a'"),
        (GOOD + "vms: {defaults: {retention: {daily: -1}}}", "greater than or equal to 0"),
        (GOOD + "vms: {defaults: {retention: {last: 0}}}", "vms.defaults.retention: keeps no archive"),
        (GOOD + "vms: {defaults: {replicas: [cellar]}}", "vms.defaults.replicas.0: there is no repository 'cellar'"),
        (GOOD + "vms: {overrides: {db: {replicas: [main]}}}", "vms.overrides.db.replicas: names a repository twice"),
        (GOOD + "vms: {defaults: {min_free: 5GiB}}", "vms.defaults.min_free_start: must not be smaller"),
        (GOOD + "vms: {exclude: ['d*'], overrides: {db: {quiesce: try}}}", "vms.overrides.db: never used"),
        (GOOD + "vms: {overrides: {db: {objective: 0}}}", "vms.overrides.db.objective: must be greater"),
        (GOOD + "vms: {exclude: scratch}", "vms.exclude: must be a list"),
        (GOOD + "vms: [a]", "vms: must be a mapping"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(text: str, said: str) -> None:
    """Each kind of wrong file ends in a ConfigError that says what is wrong."""
    assert said in _refused(text)


@pytest.mark.parametrize(
    "passphrase",
    ["hunter2", "[hunter2]", "*hunter2", "{file: hunter2}", "{env: 'hunter2 x'}", "{command: []}"],
)
def test_a_misplaced_secret_is_not_repeated(passphrase: str) -> None:
    """A passphrase written where a reference belongs is refused without being shown."""
    said = _refused(f"repositories: {{main: {{location: /x, passphrase: {passphrase}}}}}")
    assert "hunter2" not in said


def test_a_password_in_a_location_is_not_repeated() -> None:
    """A password inside an SSH location is refused without being shown."""
    said = _refused("repositories: {main: {location: 'ssh://u:hunter2@h/x', encryption: none}}")
    assert "must not hold a password" in said
    assert "hunter2" not in said


def test_aliases_cannot_multiply() -> None:
    """A billion laughs is refused at once."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    begun = time.monotonic()
    assert "aliases multiply" in _refused("\n".join(lines))
    assert time.monotonic() - begun < 10


def test_names_are_texts_whatever_yaml_makes_of_them() -> None:
    """VM names that YAML 1.1 reads as truth values, numbers, dates or nothing stay as they are written."""
    names = ["on", "NO", "0123", "1e3", "12:30", "2024-01-01", "null", "~", "-x", "web.1", "ünï", "0x1f"]
    body = "".join(f"    {name}: {{quiesce: never}}\n" for name in names)
    config = _accepted(f"{GOOD}vms:\n  exclude: [yes, 007]\n  overrides:\n{body}")
    assert list(config.vms.overrides) == names
    assert config.vms.exclude == ("yes", "007")


def test_a_byte_order_mark_and_empty_sections_are_harmless() -> None:
    """What editors leave behind does not matter: a BOM, a section or an override without content."""
    config = _accepted(f"\ufeff{GOOD}vms:\n  defaults:\n  exclude:\n  overrides:\n    db:\ndumps:\ncloud: {{}}\n")
    assert config.policy("db") == config.vms.defaults


def test_unknown_empty_keys_are_still_mistakes() -> None:
    """A misspelt key is told even when nothing stands behind it."""
    assert "unknown key; did you mean 'overrides'?" in _refused(GOOD + "vms: {overides: }")


def test_an_override_changes_what_it_names() -> None:
    """A policy is the defaults with the keys of the VM's override, and nothing of another VM's."""
    config = _accepted(
        GOOD
        + "vms:\n  defaults: {objective: 2d, exclude_disks: [vdz]}\n"
        + "  overrides: {db: {quiesce: require, retention: {last: 3}}}\n"
    )
    policy, other = config.policy("db"), config.policy("db-2")
    assert (policy.quiesce, policy.objective, policy.exclude_disks) == (
        Quiesce.REQUIRE,
        timedelta(days=2),
        ("vdz",),
    )
    assert (policy.retention.last, policy.retention.daily) == (3, 0)
    assert other == config.vms.defaults
    assert (other.retention.daily, other.retention.weekly, other.retention.monthly) == (7, 4, 6)


def test_exclusion_is_by_glob_or_by_the_very_name() -> None:
    """A whole-name glob leaves a VM out, and so does the very name of a VM that looks like a glob."""
    config = _accepted(GOOD + "vms: {exclude: ['scratch-*', 'a[1]']}")
    assert config.is_excluded("scratch-1") == "scratch-*"
    assert config.is_excluded("a[1]") == "a[1]"
    assert config.is_excluded("my-scratch-1") is None
    assert config.is_excluded("Scratch-1") is None


def test_durations_and_sizes() -> None:
    """Durations and sizes are read in the units people write."""
    config = _accepted(GOOD + "vms: {defaults: {objective: 1d12h, agent_timeout: 7, min_free: 512MiB}}")
    policy = config.policy("x")
    assert (policy.objective, policy.agent_timeout, policy.min_free) == (
        timedelta(hours=36),
        7,
        512 * 1024**2,
    )


@given(st.text(max_size=200))
def test_any_text_is_refused_or_accepted(text: str) -> None:
    """No text makes reading fail in any other way than by a ConfigError."""
    for candidate in (text, GOOD + text, GOOD + "vms:\n  overrides:\n    " + text):
        with suppress(ConfigError):
            check(candidate, name="x")


def test_the_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config wins over $VMBORG_CONFIG; a missing file is named with a remedy."""
    named, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    named.write_text(GOOD + "hypervisor: {name: a}\n")
    other.write_text(GOOD + "hypervisor: {name: b}\n")
    monkeypatch.setenv("VMBORG_CONFIG", str(other))
    assert (load(named).hypervisor.name, load().hypervisor.name) == ("a", "b")
    other.unlink()
    with pytest.raises(ConfigError, match=r"There is no configuration at .*b\.yaml") as caught:
        load()
    assert "$VMBORG_CONFIG" in caught.value.evidence
    assert "config generate" in caught.value.remedy


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    """A directory, a FIFO, another encoding, a huge file and one that everybody may write are refused."""
    binary, huge, writable = tmp_path / "binary", tmp_path / "huge", tmp_path / "writable"
    binary.write_bytes(b"a: b\nc: \xff\n")
    huge.write_bytes(b"#" * (1024 * 1024 + 1))
    writable.write_text(GOOD)
    writable.chmod(0o666)
    os.mkfifo(tmp_path / "fifo")
    said: dict[str, str] = {}
    for name in ("", "binary", "huge", "writable", "fifo"):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name)
        said[name] = str(caught.value)
    assert "not a regular file" in said[""]
    assert "line 2 is not UTF-8" in said["binary"]
    assert "larger than 1 MiB" in said["huge"]
    assert "Everybody may write" in said["writable"]
    assert "not a regular file" in said["fifo"]
