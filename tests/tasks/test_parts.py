"""What is kept of a long list while it is made: nothing is made twice, and nothing is lost or put
in another's place by an interruption."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equivbench.tasks.parts import PART, resumed

ITEMS = [f"item {number}" for number in range(3 * PART + 40)]


class Maker:
    """Makes arrays of different lengths and types of each item; fails at every seventh, and is
    interrupted after ``most``."""

    def __init__(self, most: int | None = None) -> None:
        self.made: list[str] = []
        self._most = most

    def __call__(self, items: Sequence[str]) -> Iterator[tuple[Any, ...] | None]:
        for item in items:
            if len(self.made) == self._most:
                raise KeyboardInterrupt
            self.made.append(item)
            number = int(item.split()[1])
            generator = np.random.default_rng(number)
            yield (
                None
                if number % 7 == 3
                else (
                    item,
                    np.arange(number % 11, dtype=np.uint8),
                    generator.normal(size=(3, number % 11, 3)).astype(np.float32),
                    generator.normal(size=3),
                )
            )


def assert_all(found: Sequence[tuple[Any, ...] | None]) -> None:
    """That ``found`` is what a maker makes of all items, to the bit and the type."""
    expected = [*Maker()(ITEMS)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if other is None or one is None:
            assert one is other
            continue
        assert one[0] == other[0]
        assert len(one) == len(other)
        for mine, theirs in zip(one[1:], other[1:], strict=True):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("after", [0, PART - 1, PART, 2 * PART + 17])
def test_an_interrupted_list_goes_on_after_the_last_whole_part(tmp_path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(resumed(tmp_path, ITEMS, Maker(after)))
    rest = Maker()
    assert_all([*resumed(tmp_path, ITEMS, rest)])
    assert rest.made == ITEMS[after // PART * PART :]


def test_a_list_that_was_made_is_read(tmp_path: Path) -> None:
    assert_all([*resumed(tmp_path, ITEMS, Maker())])
    rest = Maker()
    assert_all([*resumed(tmp_path, ITEMS, rest)])
    assert rest.made == ITEMS[3 * PART :]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_part_that_is_cut_short_is_made_again_with_all_after_it(
    tmp_path: Path, kept: float
) -> None:
    list(resumed(tmp_path, ITEMS, Maker()))
    second = sorted(tmp_path.iterdir())[1]
    second.write_bytes(second.read_bytes()[: int(kept * second.stat().st_size)])
    rest = Maker()
    assert_all([*resumed(tmp_path, ITEMS, rest)])
    assert rest.made == ITEMS[PART:]
    assert_all([*resumed(tmp_path, ITEMS, Maker())])


def test_who_needs_no_more_stops_without_a_trace_of_the_rest(tmp_path: Path) -> None:
    maker = Maker()
    for index, _ in enumerate(resumed(tmp_path, ITEMS, maker)):
        if index == PART + 5:
            break
    assert len(maker.made) == PART + 6
    assert [path.name for path in tmp_path.iterdir()] == ["000000.npz"]
