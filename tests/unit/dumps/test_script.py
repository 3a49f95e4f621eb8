"""Names of any kind become file names and lines of input; what is sent never holds them."""

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.dumps.kinds import Command, Files, MariaDB, MongoDB, PostgreSQL, SQLite
from infra.dumps.script import file_name, first_lines, remote_command
from infra.process import run

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=80)


@given(NAMES)
def test_a_file_name_is_one_plain_file(name: str) -> None:
    """Any name becomes one short file name without slash, blank, control character or leading dot or dash."""
    made = file_name(name)
    assert made
    assert len(made.encode()) <= 200
    assert not set(made) & set("/\0 \n'\"`$\\")
    assert made[0] not in ".-"


@given(NAMES, NAMES)
def test_two_names_never_meet(one: str, other: str) -> None:
    """Two names have two file names."""
    assert (file_name(one) == file_name(other)) == (one == other)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=60))
def test_what_is_read_is_what_was_sent(text: str) -> None:
    """Password and name are the first lines, byte for byte."""
    assert first_lines(password=text, name="x") == text.encode() + b"\nx\n"


@pytest.mark.parametrize("text", ["a\nb", "a\0b"])
def test_what_is_no_line_is_refused(text: str) -> None:
    """A name or password with a line end or NUL is refused: it would be read as two."""
    with pytest.raises(ValueError, match="line end"):
        first_lines(password=None, name=text)


def test_a_command_reads_its_password_and_name_from_its_input() -> None:
    """What runs on the other side finds both in variables, whatever they hold, and the rest of the input after them."""
    command = remote_command('printf "%s|%s|" "$SECRET" "$VMBORG_NAME"; exec cat', login_variable="SECRET", named=True)
    odd = "a 'b' \"c\" $d `e` \\f"
    done = run(["sh", "-c", command], timeout=10, input_text=f"{odd}\n../{odd}\nrest")
    assert done.stdout == f"{odd}|../{odd}|rest"


def test_names_of_databases_stand_in_no_command() -> None:
    """The scripts of a source are the same for every name: a key can be limited to them."""
    for source in (PostgreSQL(kind="postgresql"), MariaDB(kind="mariadb")):
        scripts = {unit.script for unit in source.units(["one", "two'; rm -rf"]) if unit.database}
        assert len(scripts) == 1
        assert "two" not in scripts.pop()
        assert all(re.search(r"\n", script) is None for script, _ in source.scripts())


def test_paths_and_options_are_quoted() -> None:
    """What the configuration says stays one word for the shell of the dump host."""
    path = "/srv/it's a db/x;y.sqlite"
    (unit,) = SQLite(kind="sqlite", path=path).units([])
    assert path in shlex.split(unit.script.split("||")[0])
    source = PostgreSQL(kind="postgresql", host="/run/a b", user="$x")
    assert shlex.split(source.units(["d"])[1].script)[:3] == ["export", "PGHOST=/run/a b", "PGUSER=$x"]


def test_a_chosen_list_needs_no_listing_and_exclusion_holds() -> None:
    """Chosen databases are dumped without asking; excluded ones are not; globals come first."""
    chosen = PostgreSQL(kind="postgresql", databases=("a", "b"), exclude=("b",))
    assert chosen.listing == ""
    assert [unit.title for unit in chosen.units([])] == ["globals", "a"]
    every = MariaDB(kind="mariadb", exclude=("b",), globals=False)
    assert [unit.title for unit in every.units(["a", "b"])] == ["a"]
    assert every.parse_listing(b"6D7973716C\n61\n") == ["a"]


def test_labels_and_globs() -> None:
    """A source is called by its name, else by its kind; globs of files are of whole paths."""
    assert Command(kind="command", name="etcd", command="x").label == "etcd"
    files = Files(kind="files", paths=("/etc",), exclude=("*/cache/*",))
    assert files.label == "files"
    assert files.is_excluded("/etc/cache/x")
    assert not files.is_excluded("/etc/cached")


def test_mongodump_may_say_what_is_wrong() -> None:
    """With --quiet it keeps even its errors to itself: a wrong password would be exit code 1 and not a word."""
    source = MongoDB(kind="mongodb", user="dump")
    (unit,) = source.units(())
    assert "mongodump --username=dump --archive" in unit.script
    assert "--quiet" not in unit.script + source.restoring(unit)
