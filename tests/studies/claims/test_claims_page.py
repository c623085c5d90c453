"""The evidence of a folder, C5 on CPUs and GPUs, and the page: escaped, complete, and changed by
every record that goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from claim_evidence import FALLS, GPU, all_tasks, curvature, gradients, landscape, make_shared
from factories import make_run, make_test
from read_back import from_markdown

from equivbench.errors import FailedError, UsageError
from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import efficiency_gap
from equivbench.records import schema
from equivbench.records.curves import ResultWeights
from equivbench.records.files import write_lines
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record
from equivbench.report.answer import telling_gaps
from equivbench.report.render import cell_text
from equivbench.studies.claims.evidence import gather_evidence, load_evidence
from equivbench.studies.claims.findings import ClaimFigure, ClaimFinding
from equivbench.studies.claims.headline import (
    budget_table,
    headline_table,
    make_headline,
    scaling_table,
)
from equivbench.studies.claims.page import claims_table, figure_text, render_claims
from equivbench.studies.claims.statements import CLAIMS, TASKS, claim
from equivbench.studies.claims.verdicts import judge
from equivbench.studies.landscape.record import LANDSCAPES

STEPS = (10, 30, 100, 300, 1000)


def contest(ratio: float, seeds: int = 6, **more: object) -> list[RunRecord]:
    """Both arms of a pair under one budget of seconds, the equivariant one at ``ratio`` times the
    other's loss."""
    records = []
    for seed in range(seeds):
        for arm, factor in (("equivariant", ratio * (1 + 0.01 * seed)), ("augmented", 1.0)):
            own = {"task": "forcefield", "pair": "vector", "seed": seed, **more}
            records.append(
                make_run(
                    arm, lambda step, factor=factor: factor * 5 * step**-0.5, STEPS, tau=0.1, **own
                )
            )
    return records


def on(hardware: dict[str, str], records: Sequence[RunRecord]) -> list[RunRecord]:
    return [
        msgspec.structs.replace(
            each, environment=msgspec.structs.replace(each.environment, **hardware)
        )
        for each in records
    ]


def efficiency(
    records: Sequence[RunRecord], weights: ResultWeights = "annealed"
) -> list[ClaimFinding]:
    findings = judge(gather_evidence(records), [claim("C5")])
    return [each for each in findings if each.weights == weights]


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_a_cpu_decides_nothing_about_gpu_hours(ratio: float) -> None:
    (finding,) = efficiency(contest(ratio))
    assert (finding.hardware, finding.verdict) == ("CPU", "not measured")
    assert "no gpu-hours" in finding.reason.lower()
    figures = {each.what: each for each in finding.measurements}
    assert figures["loss, equivariant over augmented"].value == pytest.approx(ratio, rel=0.05)
    assert figures["budget of each arm"].unit == "CPU-hours"


def test_a_gpu_decides_by_the_lead_that_the_gap_claims() -> None:
    assert [each.verdict for each in efficiency(on(GPU, contest(2.0)))] == ["held"]
    assert [each.verdict for each in efficiency(on(GPU, contest(0.5)))] == ["did not hold"]
    (few,) = efficiency(on(GPU, contest(2.0, seeds=LEAD_SEEDS - 1)))
    assert (few.verdict, "no lead is claimed" in few.reason.lower()) == ("undecided", True)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_other_weights_are_judged_by_their_own_losses(weights: ResultWeights) -> None:
    records = on(GPU, contest(2.0))
    for record in records:
        total = (0.5 if record.arm == "equivariant" else 1.0) * (1 + 0.01 * record.seed)
        setattr(record, f"final_{weights}", msgspec.convert(make_test(total), schema.Test))
    assert [each.verdict for each in efficiency(records)] == ["held"]
    (other,) = efficiency(records, weights)
    assert other.verdict == "did not hold"
    figures = {each.what: each for each in other.measurements}
    assert figures["loss, equivariant over augmented"].value == pytest.approx(0.5)


def test_machines_and_presets_are_never_mixed() -> None:
    findings = efficiency([*contest(0.5), *on(GPU, contest(2.0)), *contest(3.0, preset="paper")])
    assert [(each.machine_key, each.preset, each.verdict) for each in findings] == [
        ("toy-cpu-2t", "paper", "not measured"),
        ("toy-cpu-2t", "small", "not measured"),
        ("toy-gpu", "small", "held"),
    ]


@pytest.mark.parametrize("newer", ["waited", "quiet"])
def test_of_several_campaigns_the_one_that_had_its_machine_counts(newer: str) -> None:
    day = {newer: "2026-02-02T03:04:05Z"}
    first = "2026-01-02T03:04:05Z"
    waited = contest(
        0.5,
        seeds=4,
        created=day.get("waited", first),
        contest="waited",
        machine_share={"stalled_seconds": 50.0},
        final_raw=make_test(0.7),
    )
    quiet = contest(0.8, seeds=3, created=day.get("quiet", first), contest="quiet")
    for record in quiet:
        total = 0.4 if record.arm == "equivariant" else 1.0
        record.final_raw = msgspec.convert(make_test(total), schema.Test)
    (gap,) = telling_gaps(efficiency_gap([*waited, *quiet]))
    for records in ([*waited, *quiet], [*quiet, *waited]):
        for weights, ratio in (("annealed", gap.loss_ratio.value), ("raw", 0.4)):
            (finding,) = efficiency(records, weights)
            figures = {each.what: each for each in finding.measurements}
            assert figures["loss, equivariant over augmented"].value == pytest.approx(ratio)
            assert figures["seeds"].value == 3
    assert gap.loss_ratio.value == pytest.approx(0.8, rel=0.05)


def test_the_data_fraction_stands_beside_the_whole() -> None:
    fewer = contest(0.4, variant={"sweep": "data", "value": "0.25"})
    (finding,) = efficiency([*contest(0.8), *fewer])
    (part,) = finding.parts
    figures = {each.what: each.value for each in part.measurements}
    assert figures["loss, equivariant over augmented"] == pytest.approx(0.8, rel=0.05)
    assert figures["loss, equivariant over augmented with 0.25 of the data"] == pytest.approx(
        0.4, rel=0.05
    )


MADE_UP = "made-up"
"""No pair of equivbench's own: what is stored of one must be what it declares."""


def verdicts(results: Path) -> dict[str, str]:
    findings = judge(load_evidence(results))
    return {each.claim: each.verdict for each in findings if each.weights == "annealed"}


def test_every_verdict_goes_with_its_evidence(tmp_path: Path) -> None:
    records = all_tasks(FALLS, pair=MADE_UP)
    paths = [write_record(record, tmp_path) for record in records]
    LANDSCAPES.keep([landscape(records[0], curvature(5.0), curvature(50.0))], tmp_path)
    assert verdicts(tmp_path) | {"C1": "held", "C3": "held"} == verdicts(tmp_path)
    paths[0].unlink()
    assert verdicts(tmp_path)["C3"] == "not measured"  # of its run only the analysis is left
    assert verdicts(tmp_path)["C1"] == "held"  # two other seeds
    for path in paths:
        if "voxel" in path.parts:
            path.unlink()
    assert verdicts(tmp_path)["C1"] == "not measured"


def test_an_empty_folder_measures_nothing_and_a_missing_one_is_a_mistake(tmp_path: Path) -> None:
    findings = judge(load_evidence(tmp_path))
    assert [(each.claim, each.verdict, each.machine_key) for each in findings] == [
        (each.id, "not measured", None) for each in CLAIMS
    ]
    assert "C6" in render_claims(findings)
    with pytest.raises(FailedError, match="is no folder"):
        load_evidence(tmp_path / "absent")


def test_trial_runs_other_tasks_and_broken_files_are_left_out_and_said(tmp_path: Path) -> None:
    # No two runs have one curve.
    trial = make_shared(preset="dev", loss=lambda place: 2.0 - place, pair=MADE_UP)
    for record in (trial, make_shared(task="toy", pair="pair"), make_shared(pair=MADE_UP)):
        write_record(record, tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "toy-cpu-2t" / "landscapes.jsonl").write_text("[]\n")
    write_lines(
        [msgspec.structs.replace(gradients(make_shared(), [(10, 0.1, 0.1)]), samples=0)],
        tmp_path / "toy-cpu-2t" / "gradients.jsonl",
    )
    evidence = load_evidence(tmp_path)
    assert [(machine.preset, len(machine.records)) for machine in evidence.machines] == [
        ("small", 1)
    ]
    for said in (
        "2 records of the preset dev or of tasks",
        "broken.json",
        "landscapes.jsonl, line 1",
        "gradients.jsonl: samples is 0",
    ):
        assert any(said in each for each in evidence.warnings), said


HOSTILE = "a|b`<script>alert(1)</script>\n# not a heading\n| x |"


def test_hostile_text_stays_text_on_the_page() -> None:
    records = all_tasks(
        FALLS,
        pair=HOSTILE,
        command=f"equivbench {HOSTILE}",
        run_id=HOSTILE,
        variant={HOSTILE: HOSTILE},
        preset=HOSTILE,
    )
    gaps = make_headline(contest(0.5, pair=HOSTILE, variant={HOSTILE: HOSTILE}))
    assert gaps
    page = render_claims(judge(gather_evidence(records)), gaps, [HOSTILE])
    lines = page.splitlines()
    assert all(line.startswith("    ") for line in lines if "<script" in line.replace(r"\<", "")), (
        "outside of code blocks"
    )
    assert not any(line.startswith(("# not", "| x")) for line in lines)
    # No cell is opened or closed by what a record says.
    wide = [line for line in lines if line.startswith("| C")]
    assert wide
    assert all(
        line.replace(r"\|", "").count("|") == len(claims_table([]).columns) + 1 for line in wide
    )


def test_rows_and_page_say_the_same_and_json_takes_it() -> None:
    findings = judge(gather_evidence([*all_tasks(FALLS), *contest(0.5)]))
    page = render_claims(findings)
    table = [line for line in page.splitlines() if line.startswith("| C")]
    assert [tuple(map(from_markdown, line[2:-2].split(" | "))) for line in table] == claims_table(
        findings
    ).rows
    assert [row[0] for row in claims_table(findings).rows] == [each.id for each in CLAIMS]
    assert "    equivbench run toy/pair" in page
    plain = msgspec.json.decode(msgspec.json.encode(findings))
    assert [each["verdict"] for each in plain] == [each.verdict for each in findings]


def test_the_headline_stands_on_the_page_at_every_budget_and_fraction() -> None:
    headlines = make_headline(
        [*contest(0.8), *contest(0.4, variant={"sweep": "data", "value": "0.25"})]
    )
    lines = render_claims([], headlines).splitlines()
    cells = [
        tuple(map(from_markdown, line[2:-2].split(" | ")))
        for line in lines
        if line.startswith("| forcefield")
    ]
    tables = [table(headlines).shown() for table in (headline_table, budget_table, scaling_table)]
    assert cells == [
        tuple(
            cell_text(cell, column, "n/a") for cell, column in zip(row, table.columns, strict=True)
        )
        for table in tables
        for row in table.rows
    ]
    data = [column.name for column in tables[0].columns].index("part")
    assert {row[data] for row in tables[0].rows} == {"1", "0.25"}
    assert "## The headline" not in render_claims(judge(gather_evidence(contest(0.8))))


def test_figures_are_shown_with_unit_interval_and_bound() -> None:
    shown = {
        "1234 (1000 or more) steps": ClaimFigure("steps", 1234.5, 1000.0, None, "steps"),
        "4.50%": ClaimFigure("share", 4.5, None, None, "%"),
        "more than 1.03": ClaimFigure("s*", 1.03, 1.03, None, "", censored="above"),
        "-": ClaimFigure("none", None, None, None, "s", "why"),
    }
    assert [figure_text(figure) for figure in shown.values()] == list(shown)


def test_claims_are_complete_data() -> None:
    assert [each.id for each in CLAIMS] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    for each in CLAIMS:
        assert all(
            (
                each.title,
                each.statement,
                each.measured,
                each.suffices,
                each.rule,
                each.as_published,
                each.weak,
                each.published,
            )
        )
        assert set(each.published) <= {*TASKS, "all"}
    assert claim(" c5 ").id == "C5"
    with pytest.raises(UsageError, match="unknown claim 'C7'"):
        claim("C7")
