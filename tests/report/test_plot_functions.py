"""``eb.plot``: what the command draws, from a folder or from records, with the same refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import make_run

import equivbench as eb
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record

pytest.importorskip("matplotlib")


def pair(scale: float = 1.0, **more: object) -> list[RunRecord]:
    steps = [10, 30, 100, 300, 1000]
    return [
        make_run(arm, lambda step, k=k: scale * k * step**-0.5, steps, tau=0.1, **more)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
    ]


@pytest.mark.parametrize(("kind", "ending"), [("curves", "svg"), ("gap", "pdf"), ("share", "png")])
def test_a_folder_and_its_records_give_one_figure(kind: str, ending: str, tmp_path: Path) -> None:
    for record in pair():
        write_record(record, tmp_path / "results")
    draw = getattr(eb.plot, kind)
    files = [tmp_path / f"{name}.{ending}" for name in ("folder", "records")]
    draw(tmp_path / "results", out=files[0])
    draw(eb.load_results(tmp_path / "results"), out=files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_notebook_shows_the_figure() -> None:
    figure: Any = eb.plot.share(pair())
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_several_settings_need_a_choice() -> None:
    records = [*pair(), *pair(1.1, pair="other")]
    with pytest.raises(eb.UsageError, match="toy/other"):
        eb.plot.curves(records)
    assert eb.plot.curves(records, pair="toy/other").axes
    with pytest.raises(eb.FailedError, match="no record that fits"):
        eb.plot.curves(records, pair="toy/none")


def test_what_is_left_out_is_said() -> None:
    older = pair(1.1, run_id="older", git={"tree": "2" * 40}, created="2026-01-01T00:00:00Z")
    with pytest.warns(eb.EquivbenchWarning, match="left out 2 of another code or day"):
        eb.plot.gap([*pair(), *older])


def test_a_file_that_cannot_be_drawn_into_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(eb.UsageError, match="suffix"):
        eb.plot.curves(tmp_path / "nothing", out=tmp_path / "figure.docx")


def test_forces_choose_among_settings_that_differ_in_nothing_else(tmp_path: Path) -> None:
    ways = {
        name: pair(scale, variant={"forces": name})
        for name, scale in (("direct", 1.0), ("conservative", 0.9))
    }
    records = [*ways["direct"], *ways["conservative"]]
    for kind in ("curves", "gap", "frontier", "race"):
        with pytest.raises(eb.UsageError, match=r"choose by .*forces.*conservative.*direct"):
            getattr(eb.plot, kind)(records)
    for name, alone in ways.items():
        files = [tmp_path / f"{name}-{which}.svg" for which in ("chosen", "alone")]
        eb.plot.curves(records, forces=name, out=files[0])
        eb.plot.curves(alone, out=files[1])
        assert files[0].read_bytes() == files[1].read_bytes()


def test_runs_in_another_precision_are_drawn_where_they_are_asked_for(tmp_path: Path) -> None:
    usual = pair()
    other = pair(0.9, variant={"precision": "bf16"}, recipe={"precision": "bf16"})
    for asked, alone in ((None, usual), ("float32", usual), ("bf16", other)):
        files = [tmp_path / f"{asked}-{which}.svg" for which in ("chosen", "alone")]
        eb.plot.curves([*usual, *other], precision=asked, out=files[0])
        eb.plot.curves(alone, out=files[1])
        assert files[0].read_bytes() == files[1].read_bytes()


def test_arms_on_several_kernel_backends_need_a_choice(tmp_path: Path) -> None:
    slow, fast = (
        pair(scale, model={"kernels": name}) for name, scale in (("torch", 1.0), ("fused", 0.9))
    )
    equivariant, augmented = slow
    # Both arms on two backends, one of them alone, and a plain arm that takes none.
    for records in ([*slow, *fast], [*slow, fast[1]]):
        with pytest.raises(eb.UsageError, match=r"one kernel backend.*: fused, torch"):
            eb.plot.curves(records)
    for name, records, alone in (
        ("both", [*slow, *fast], fast),
        ("one", [equivariant, fast[0], augmented], [fast[0], augmented]),
    ):
        files = [tmp_path / f"{name}-{which}.svg" for which in ("chosen", "alone")]
        eb.plot.curves(records, kernels="fused", out=files[0])
        eb.plot.curves(alone, out=files[1])
        assert files[0].read_bytes() == files[1].read_bytes()
