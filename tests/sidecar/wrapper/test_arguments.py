"""The command line and the variables of `python -m sidecar exec`."""

import pytest

from sidecar.__main__ import main
from sidecar.settings import SettingsError
from sidecar.wrapper.arguments import SIDECAR_URL, USAGE, Arguments, UsageError, Variables, parse, read


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("x -- run", Arguments("x", ("run",), None, False)),
        ("x --grace 2.5 --once -- run it", Arguments("x", ("run", "it"), 2.5, True)),
        (
            "--once --grace=0 x -- run --once -- --grace 3",
            Arguments("x", ("run", *["--once", "--", "--grace", "3"]), 0, True),
        ),
    ],
)
def test_options_come_before_the_dashes_and_the_command_after_them(words: str, meant: Arguments) -> None:
    assert parse(words.split()) == meant


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "COMMAND"),
        (["x", "run"], "'--'"),
        (["x", "--"], "COMMAND"),
        (["x", "--", ""], "COMMAND"),
        (["--", "run"], "LEASE"),
        (["", "--", "run"], "LEASE"),
        (["\udcff", "--", "run"], r"'\\udcff'"),
        (["x", "y", "--", "run"], "'y'"),
        (["x", "--twice", "--", "run"], "'--twice'"),
        (["x", "--grace", "--", "run"], "--grace"),
        *((["x", "--grace", seconds, "--", "run"], "--grace") for seconds in ("ten", "-1", "nan", "inf", "3601", "")),
        (["x", "\x1b[2J", "--", "run"], r"'\\x1b[2J'"),
    ],
)
def test_an_invalid_argument_is_named_in_one_line(words: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert named in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read({"SIDECAR_URL": " ", "LOG_FORMAT": "", "LOG_LEVEL": "Error"}) == Variables(SIDECAR_URL, "json", "ERROR")


def test_every_invalid_variable_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        read({"LOG_FORMAT": "xml", "LOG_LEVEL": "loud"})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["LOG_FORMAT", "LOG_LEVEL"]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_is_printed_without_a_sidecar(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", option]) == 0
    assert capsys.readouterr().out == f"{USAGE}\n"
