"""What a shell is offered while a line is typed: names that the command takes, and no errors."""

from __future__ import annotations

import pytest

from equivbench.axes import AXES, SweepRequest
from equivbench.cli.completion import LONGEST, completer
from equivbench.cli.list import KINDS
from equivbench.cli.main import Commands, main
from equivbench.registry import DATASETS, KERNEL_BACKENDS, MODELS, PAIRS, TASKS
from equivbench.report.formats import ALL_FORMATS
from equivbench.request import options_of


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What bash is offered for the last word of a line, and that nothing else is said."""

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_EQUIVBENCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit) as stop:
            main([])
        said = capsys.readouterr()
        assert (stop.value.code, said.err) == (0, "")
        return said.out.splitlines()

    return complete


def test_commands_complete(offered) -> None:
    assert offered("equivbench ") == list(Commands.table())
    assert offered("equivbench le") == ["leaderboard"]
    assert offered("equivbench leaderboard ") == ["export"]
    assert "sweep" in offered("equivbench analyze s")


@pytest.mark.parametrize(
    ("line", "registry"),
    [
        ("equivbench run ", PAIRS),
        ("equivbench run --seeds 0-5 forcefield/vector ", PAIRS),
        ("equivbench tune ", PAIRS),
        ("equivbench analyze sweep ", PAIRS),
        ("equivbench plot curves --pair ", PAIRS),
        ("equivbench measure ", MODELS),
        ("equivbench measure x --task ", TASKS),
        ("equivbench run --kernels ", KERNEL_BACKENDS),
        ("equivbench kernels --backend ", KERNEL_BACKENDS),
        ("equivbench data verify ", DATASETS),
    ],
)
def test_names_of_what_is_registered_complete(line: str, registry, offered) -> None:
    names = sorted(registry.entries())
    assert offered(line) == names
    start = names[0][:3]
    assert offered(line + start) == [name for name in names if name.startswith(start)]


def test_a_long_line_beside_a_name_is_cut_and_the_name_is_not() -> None:
    for name, line in completer("pairs")(""):
        assert name in PAIRS.entries()
        assert len(line) <= LONGEST
        assert "[" not in line


def test_choices_complete(offered) -> None:
    assert offered("equivbench run --preset ") == ["dev", "small", "paper"]
    assert offered("equivbench list ") == list(KINDS)
    assert set(offered("equivbench leaderboard export --format ")) == set(ALL_FORMATS)
    assert "augmented" in offered("equivbench run forcefield/vector --arm ")
    assert options_of(SweepRequest)["over"].completes == tuple(AXES)


@pytest.mark.parametrize("line", ["equivbench nonsense ", "equivbench status ", "equivbench -"])
def test_a_line_that_is_wrong_is_no_error_yet(line: str, offered) -> None:
    offered(line)


def test_a_plug_in_that_breaks_or_talks_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, offered
) -> None:
    def broken() -> None:
        print("hello from a plug-in")
        raise ValueError("broken")

    monkeypatch.setattr(PAIRS, "entries", broken)
    assert completer("pairs")("") == []
    assert offered("equivbench run ") == [""]
