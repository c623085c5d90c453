"""The page of the board: hostile names stay text, nothing is loaded, partial and failed runs are
seen, nothing is lost."""

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from factories import make_record, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_samples import kernel_samples

from equivbench.records.schema import RunRecord
from equivbench.report.html.page import markup, to_html
from equivbench.report.publication import Publication, make_publication
from equivbench.report.words import HOME

LINKS = [("a", "href", f"{HOME}/blob/main/{page}") for page in ("README.md", "docs/submitting.md")]
"""To the project's own pages; they load nothing until a reader follows them."""
HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{display:none}</style>",
    "<svg onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'page.html' %}",
    "javascript:alert(1)",
    "]]><!-- -->",
    "&lt;b&gt;&#x3c;script&#x3e;",
    "http://evil.example/x",
    "`code` **bold**",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe\x00\x1b[2J\r\n",
    "constructor",
    "x" * 3000,
]
names = st.text(max_size=20) | st.sampled_from(HOSTILE)


class Page(HTMLParser):
    """Every element with its attributes, and the text of those asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def shape(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """How often each element occurs with which attributes, whatever these hold."""
        return Counter((tag, tuple(sorted(attributes))) for tag, attributes in self.elements)


def records_named(name: Any) -> list[RunRecord]:
    """Two arms, two seeds and a failed run, every free text of which is ``name()``."""
    made = []
    for seed in (0, 1):
        for arm, rate in (("equivariant", 0.6), ("augmented", 0.5)):
            record = make_run(
                arm, lambda step, p=rate: 5.0 * step**-p, [10, 30, 100, 300], tau=0.1, seed=seed
            )
            made.append(record)
    made.append(make_record(seed=2, arm="third", status="failed", reason="r", trace=[], final=None))
    task, pair, machine, preset, data, model, variant = (name() for _ in range(7))
    for record in made:
        record.task, record.pair, record.preset, record.command = task, pair, preset, name()
        record.environment.machine_key, record.environment.cpu, record.environment.packages = (
            machine,
            name(),
            {name(): name()},
        )
        record.dataset.name, record.dataset.version, record.model.name, record.model.kernels = (
            data,
            data,
            model,
            model,
        )
        record.variant, record.run_id, record.git.commit = {variant: variant}, name(), name()
        record.reason = name() if record.reason else None
    return made


def publication_named(name: Any) -> Publication:
    samples = [
        kernel_samples(
            [1e-3],
            case=name(),
            backend=name(),
            method=name(),
            dtype=name(),
            command=name(),
            mode=mode,
        )
        for mode in ("forward", "backward")
    ]
    return make_publication(records_named(name), samples, units={})


def test_only_its_own_style_sheet_and_script_may_run_and_nothing_is_loaded() -> None:
    text = to_html(publication_named(lambda: "plain"))
    page = Page(text)
    policy = next(
        attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv")
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not re.search(
            r"url\(|@import|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|insertAdjacentHTML",
            found[0],
        )
    for tag, attributes in page.elements:
        # The policy would block these anyway, so they would be dead: an attribute of style, a
        # handler of events.
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action", "srcset", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            if (tag, name, value) in LINKS:
                continue
            assert value is None or value.startswith("#") or (tag, value[:5]) == ("link", "data:")


@settings(max_examples=20)
@given(data=st.data())
def test_no_name_makes_an_element_or_an_attribute(data: st.DataObject) -> None:
    plain = iter("abcdefghijklmnopqrstuvwxyz" * 9)
    drawn = iter([data.draw(names) for _ in range(6)] * 40)
    calm, wild = (
        Page(to_html(publication_named(lambda source=source: next(source))))
        for source in (plain, drawn)
    )
    # How many options and lines there are depends on which names are equal, but no name makes a
    # kind of element.
    assert set(wild.shape) <= set(calm.shape)
    assert wild.comments == []
    assert len(wild.texts["script"]) == len(wild.texts["style"]) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_without_control_characters(name: str) -> None:
    page = Page(to_html(publication_named(lambda: name)))
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name
    )
    assert shown in page.texts["span"]
    assert shown in page.texts["option"]
    options = [attributes["value"] for tag, attributes in page.elements if tag == "option"]
    assert shown in options  # the choice that filters rows by their task
    named = [
        attributes["data-task"] for _, attributes in page.elements if "data-task" in attributes
    ]
    assert named == [shown] * 4  # a race, a frontier, a gap and a board


def test_every_row_says_how_many_of_its_runs_finished_and_why_the_others_did_not() -> None:
    runs = [make_record(pair=pair, seed=seed) for pair in ("whole", "part") for seed in (0, 1)]
    lost: dict[str, Any] = {"trace": [], "final": None}
    runs.append(make_record(pair="part", seed=2, status="failed", reason="out of memory", **lost))
    runs.append(
        make_record(pair="none", seed=0, status="diverged", reason="loss is not finite", **lost)
    )
    text = to_html(make_publication(runs))
    rows = {
        re.search(r'data-field="pair">(\w+)<', row)[1]: row
        for row in text.split('<tbody class="row"')[1:]
    }  # type: ignore[index]
    assert 'class="quiet small" data-field="status">complete<' in rows["whole"]
    assert 'class="badge warn" data-field="status">partial<' in rows["part"]
    assert "seed 2 failed: out of memory" in rows["part"]
    assert 'class="badge bad" data-field="status">no result<' in rows["none"]
    assert "seed 0 diverged: loss is not finite" in rows["none"]
    assert 'data-field="diverged">1</span> diverged' in rows["none"]
    assert "2 without a result" in text


def test_the_command_commit_and_versions_stand_with_every_row_gap_and_sample() -> None:
    runs = [
        make_run(
            arm,
            lambda step: 1 / step,
            [10, 100],
            tau=0.1,
            command=f"equivbench run {arm}",
            git={"commit": "c0ffee" + "0" * 34},
        )
        for arm in ("equivariant", "augmented")
    ]
    text = to_html(
        make_publication(runs, [kernel_samples([1e-3], command="equivbench kernels toy")])
    )
    rows = re.findall(r'<tbody class="row.*?</tbody>', text, flags=re.DOTALL)
    assert len(rows) == 4  # a sample, a gap and two arms
    for row in rows:
        assert re.search(r"<code>equivbench (?:run|kernels) \w+</code>", row)
        assert re.search("c0ffee|0{12}", row)
    assert all("torch 2.11.0" in row for row in rows[1:])


def test_gaps_of_the_same_pair_stay_apart_by_kernels() -> None:
    def run(arm: str, kernels: str, exponent: float) -> RunRecord:
        return make_run(
            arm,
            lambda step: 5.0 * step**-exponent,
            [10, 100, 1000],
            tau=0.1,
            model={"kernels": kernels},
        )

    runs = [
        run("equivariant", "fused", 0.6),
        run("equivariant", "torch", 0.55),
        run("augmented", "torch", 0.5),
    ]
    text = to_html(make_publication(runs))
    assert re.findall(r"(fused / torch|torch) kernels, [^<]*</span></th>", text) == [
        "fused / torch",
        "torch",
    ]
    # Each has two drawn intervals, whose numbers are read out.
    whole = r'<svg class="interval[^>]*role="img" aria-label="([^"]+)"'
    opening, _, section = text.partition('<section id="gaps"')
    drawn = re.findall(whole, section)
    assert len(drawn) == 4
    assert re.findall(whole, opening) == drawn[::2]
    assert drawn[0].startswith("0.501")  # 5 x 1000^-.6 over 5 x 1000^-.5


def test_the_page_is_the_same_each_time_and_settings_keep_their_address() -> None:
    first = to_html(publication_named(lambda: "plain"))
    assert to_html(publication_named(lambda: "plain")) == first
    more = [make_record(), make_record(task="another")]
    alone, beside = (
        re.findall(r'<table id="(b\w{8})"', to_html(make_publication(runs)))
        for runs in (more[:1], more)
    )
    assert alone[0] in beside


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = Page(to_html(publication_named(lambda: "plain")))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        targets = [
            attributes.get("aria-labelledby"),
            attributes.get("data-row"),
            (attributes.get("href") or "x")[1:],
        ]
        if (attributes.get("href") or "#").startswith("#"):
            assert set(filter(None, targets)) <= set(ids)


def test_what_there_is_nothing_of_is_said_or_left_out() -> None:
    nothing = make_record(
        status="failed", reason="no memory", trace=[], final=None, arm="augmented"
    )
    text = to_html(make_publication([nothing]))
    assert "there is no gap to show" in text
    assert "No finished run has a loss above zero to draw." in text
    assert 'id="kernels"' not in text


def test_rules_are_made_into_headings_lists_and_code() -> None:
    assert str(markup("# A\n1. one `x<y`\n2. two\n\nplain & simple")) == (
        "<h4>A</h4>\n<ol><li>one <code>x&lt;y</code></li><li>two</li></ol>\n"
        "<p>plain &amp; simple</p>"
    )
