"""What is generated from the models: the example, the schema, the shown configuration."""

import json
import re

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.config.fields import parse_duration, render_duration, render_size
from infra.config.load import check
from infra.config.models import Config, Section
from infra.config.render import as_data, example, policy_origins, schema, show, with_origins


def _switched_on(text: str) -> str:
    """The example with every commented key switched on."""
    return re.sub(r"^( *)#(?=\w+:)", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("text", [example(), _switched_on(example())], ids=["as printed", "all switched on"])
def test_the_example_is_valid(text: str) -> None:
    """The generated example is accepted by the loader and by the schema, also with every key switched on."""
    check(text, name="example")
    jsonschema.validate(yaml.safe_load(text), schema())


def test_the_example_shows_every_key() -> None:
    """Each key of each section stands in the example below its description."""
    keys = set(re.findall(r"^ *#?(\w+):", example(), flags=re.MULTILINE))
    sections = [kind for kind in Section.__subclasses__() if kind.__module__.startswith("infra.config")]
    # A dump host needs what cannot be guessed, so the example has one whole, on one line.
    # What one VM has to show in a drill is an example on one line, too.
    on_one_line = {"DrillVm", "CommandProbe", "FileProbe"}
    sections = [
        kind for kind in sections if kind.__module__ != "infra.config.dumps" and kind.__name__ not in on_one_line
    ]
    wanted = {key for kind in sections for key in kind.model_fields} - {"dumps", "cloud"}
    references = {"file", "command", "env", "credential"}  # shown in the description of passphrase
    assert wanted - references <= keys
    assert [key for kind in sections for key, field in kind.model_fields.items() if not field.description] == []


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    """An editor that knows the schema marks unknown keys and wrong types."""
    jsonschema.Draft202012Validator.check_schema(schema())
    good = {"repositories": {"main": {"location": "/x", "encryption": "none"}}}
    jsonschema.validate(good, schema())
    for bad in (
        {**good, "hypervizor": {}},
        {**good, "vms": {"defaults": {"quiesce": "maybe"}}},
        {**good, "vms": {"defaults": {"objective": "26 hours"}}},
        {**good, "vms": {"overrides": {"db": {"repo": "main"}}}},
        {"repositories": {}},
        {},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())


def test_show_is_a_configuration_of_the_same_meaning() -> None:
    """What `show` prints can be loaded and means the same."""
    config = check(_switched_on(example()), name="example")
    again = check(show(config), name="shown")
    assert as_data(again) == as_data(config)
    assert {vm: again.policy(vm) for vm in ("db01", "x")} == {vm: config.policy(vm) for vm in ("db01", "x")}
    json.dumps(as_data(config))


def test_show_keeps_secrets_as_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing a configuration does not fetch a secret."""
    monkeypatch.setenv("PASSPHRASE", "hunter2")
    config = check("repositories: {main: {location: /x, passphrase: {env: PASSPHRASE}}}", name="x")
    assert "PASSPHRASE" in show(config)
    assert "hunter2" not in show(config) + repr(config) + str(as_data(config))


def test_the_policy_of_a_vm_says_where_each_key_comes_from() -> None:
    """Every key of a policy has its origin beside it."""
    config: Config = check(
        "repositories: {main: {location: /x, encryption: none}}\n"
        "vms: {defaults: {objective: 2d}, overrides: {db: {quiesce: require}}}",
        name="x",
    )
    text = with_origins(as_data(config.policy("db")), policy_origins(config, "db"))
    assert re.search(r"^quiesce: require +# override$", text, re.MULTILINE)
    assert re.search(r"^objective: 48h +# defaults$|^objective: 2d +# defaults$", text, re.MULTILINE)
    assert re.search(r"^min_free: 1GiB +# built-in$", text, re.MULTILINE)


@given(st.integers(min_value=0, max_value=10**9))
def test_durations_come_back_as_they_were(seconds: int) -> None:
    """A rendered duration is read as the same number of seconds."""
    assert parse_duration(render_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(93_600, "26h"), (604_800, "7d"), (5400, "1h30m"), (5, "5s"), (0, "0s"), (90_061, "1d1h1m1s")],
)
def test_durations_are_short(seconds: int, text: str) -> None:
    """A duration is written as a person would."""
    assert render_duration(seconds) == text


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "1x", "1h2", "\u0661h", "9" * 30, "99999999999y"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Anything else is a ValueError, whatever its length."""
    with pytest.raises(ValueError, match="must be"):
        parse_duration(text)


def test_sizes_are_exact() -> None:
    """A size is written in the largest unit that loses nothing."""
    assert [render_size(size) for size in (1024**3, 1536 * 1024**2, 1000, 0)] == [
        "1GiB",
        "1536MiB",
        "1000B",
        "0B",
    ]


def test_arguments_of_programs_are_not_shown() -> None:
    """The arguments of a passphrase's command and of rsh may be secrets: only the programs appear."""
    config = check(
        "repositories: {main: {location: 'ssh://h/x', rsh: 'sshpass -p hunter2 ssh', "
        "passphrase: {command: [sh, -c, echo hunter2]}}}",
        name="x",
    )
    for shown in (show(config), str(as_data(config))):
        assert "hunter2" not in shown
        assert "sshpass …" in shown
    assert as_data(config)["repositories"]["main"]["passphrase"]["command"] == ["sh", "…"]
