"""Lines that nothing reads are left out, and no others."""

import pytest

from equivbench.kernels.fused.triton_text import ChannelBlock, pruned

LINES = [
    "a = tl.load(x + channel)",
    "b = tl.load(y + channel)",
    "c = a * 2.0",
    "d += c",
    "e += b",
    "tl.store(out + channel, a)",
]


def test_a_store_stays_with_all_that_it_reads_and_nothing_else() -> None:
    read: set[str] = set()
    assert pruned(LINES, read) == [LINES[0], LINES[5]]
    # What comes from outside the lines is read before them.
    assert {"x", "out", "channel"} <= read
    assert not read & {"a", "b", "y"}


def test_a_sum_stays_where_it_is_read_afterwards_and_is_read_before() -> None:
    read = {"d"}
    assert pruned(LINES, read) == [LINES[0], LINES[2], LINES[3], LINES[5]]
    assert "d" in read


def test_what_is_loaded_anew_is_not_read_before() -> None:
    read: set[str] = set()
    lines = ["a = tl.load(x)", "a = tl.load(y)", "tl.store(out, a)"]
    assert pruned(lines, read) == lines[1:]
    assert "x" not in read


@pytest.mark.parametrize(("channels", "count", "masked"), [(64, 2, False), (33, 2, True)])
def test_blocks_cover_all_channels(channels: int, count: int, masked: bool) -> None:
    lanes = ChannelBlock(channels, 32, "float32")
    assert lanes.count == count
    for line in (lanes.load("a", "x"), lanes.store("x", "a")):
        assert ("mask=inside" in line) is masked
    assert any("inside = " in line for line in lanes.channel("0")) is masked
