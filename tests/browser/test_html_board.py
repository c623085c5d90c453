"""The board in a real browser: it sorts, filters, keeps its address, fits a phone, reads in the
dark, and lets nothing in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from factories import make_record, make_run
from toy_samples import kernel_samples
from waiting import comes_to

from equivbench.registry import board_units
from equivbench.report.html.page import to_html
from equivbench.report.publication import make_publication, publish

if TYPE_CHECKING:
    from conftest import Browser

LOSSES = {"birch": 0.9, "cedar": 0.7, "maple": 0.5}
"""Exponents of the pairs' learning curves: the larger, the lower the loss."""
HOSTILE = (
    '"\'><img src=x onerror="window.pwned=1"></script>'
    "<script>window.pwned=1;alert(1)</script><b id=injected>"
)
OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
CONTRASTS = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
RESULTS = Path(__file__).parents[2] / "results"
AA = 4.5
"""Least contrast of text (WCAG 2, level AA)."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks and two machines, a pair with a failed seed, one without any result, kernel
    samples."""
    runs = [
        make_run(
            arm,
            lambda step, p=exponent + (arm == "equivariant") / 30: 5.0 * step**-p,
            [10, 30, 100, 300],
            tau=0.1,
            seed=seed,
            pair=pair,
            task=task,
            environment={"machine_key": machine},
        )
        for task, machine in (("alpha", "cpu-a"), ("alpha", "cpu-b"), ("beta", "cpu-a"))
        for pair, exponent in LOSSES.items()
        for arm in ("equivariant", "augmented")
        for seed in (0, 1)
    ]
    lost: dict[str, Any] = {
        "trace": [],
        "final": None,
        "task": "beta",
        "environment": {"machine_key": "cpu-a"},
    }
    runs.append(make_record(pair="birch", arm="lost", status="failed", reason="no memory", **lost))
    samples = [
        kernel_samples([seconds], backend=name)
        for name, seconds in (("fast", 1e-3), ("slow", 1e-2))
    ]
    return write(tmp_path_factory, make_publication(runs, samples, units={"alpha": "nm^2"}))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [
        make_run(
            arm,
            lambda step: 1 / step,
            [10, 100],
            tau=0.1,
            task=HOSTILE,
            pair=HOSTILE,
            command=HOSTILE,
        )
        for arm in ("equivariant", "augmented", HOSTILE)
    ]
    return write(
        tmp_path_factory,
        make_publication(runs, [kernel_samples([1e-3], case=HOSTILE, backend=HOSTILE)]),
    )


def write(folder: pytest.TempPathFactory, publication: Any) -> Path:
    path = folder.mktemp("board") / "board.html"
    path.write_text(to_html(publication), encoding="utf-8")
    return path


def column(browser: Browser, table: str, name: str) -> list[str]:
    """The texts of a column, from the top."""
    return browser.shown(f"#{table} tbody.row [data-column={name}]")


def heading(browser: Browser, table: str, name: str) -> Any:
    return browser.one(f"#{table} thead [data-column={name}]")


def click_on_heading(browser: Browser, table: str, name: str) -> None:
    heading(browser, table, name).find_element("css selector", "button").click()


def sorted_as(browser: Browser, table: str, name: str) -> str | None:
    """What the table says of its order by a column: ascending, descending or None."""
    said: str | None = heading(browser, table, name).get_attribute("aria-sort")
    return said


def rows_shown(browser: Browser) -> int:
    return len(browser.shown("tbody.row > tr:first-child"))


def pairs_shown(browser: Browser) -> list[str]:
    return browser.shown(".board tbody [data-field=pair]")


def first_table(browser: Browser) -> str:
    return str(browser.all(".board table[data-sortable]")[0].get_attribute("id"))


def test_nothing_is_asked_for_and_the_console_is_silent(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert [url for url in browser.requests() if not url.startswith("data:image/svg+xml,")] == [
        page.as_uri()
    ]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_no_width_scrolls_the_page_sideways(
    browser: Browser, page: Path, hostile: Path, width: int
) -> None:
    for each in (page, hostile):
        browser.open(each, width=width)
        browser.js(OPEN_ALL)
        inside, content = browser.js("[innerWidth, document.documentElement.scrollWidth]")
        assert inside == width
        assert content <= width


def test_tables_scroll_in_their_box_and_keep_the_names_of_their_rows(
    browser: Browser, page: Path
) -> None:
    browser.open(page, width=700)
    table = first_table(browser)
    box = f"document.querySelector('#{table}').parentElement"
    name, loss = (
        f"document.querySelector('#{table} tbody [data-column={each}]').getBoundingClientRect()"
        for each in ("pair", "total")
    )
    before = browser.js(f"{loss}.left")
    assert browser.js(f"{box}.scrollWidth > {box}.clientWidth")
    browser.js(f"({box}.scrollLeft = 250)")
    assert browser.js(f"{loss}.left") == before - 250
    assert browser.js(f"Math.abs({name}.left - {box}.getBoundingClientRect().left) < 1")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of the records that the project ships, where they are there."""
    if not RESULTS.is_dir():
        pytest.skip("the records are no part of a source archive")
    return write(tmp_path_factory, publish(RESULTS, units=board_units()))


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("board", ["page", "shipped"])
def test_no_column_is_cut_on_a_phone_or_a_desk(
    browser: Browser, board: str, width: int, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(board), width=width)
    boxes = "[...document.querySelectorAll('.scroll')].filter((e) => e.checkVisibility())"
    assert browser.js(f"{boxes}.length") > 10
    wider = f"{boxes}.filter((e) => e.scrollWidth > e.clientWidth)"
    assert browser.js(f"{wider}.map((e) => e.getAttribute('aria-label'))") == []


def test_on_a_phone_rows_are_cards_with_all_that_they_hold(browser: Browser, page: Path) -> None:
    browser.open(page, width=390)
    table = first_table(browser)
    for selector in (f"#{table} tbody.row", "#gap tbody.row", ".forest tbody"):
        cells = f"[...document.querySelector('{selector}').querySelectorAll('tr:first-child > *')]"
        places = browser.js(
            f"{cells}.map((e) => e.getBoundingClientRect()).map((r) => [r.left, r.right, r.top])"
        )
        assert len(places) > 5
        assert all(left >= 0 and right <= 390 for left, right, _ in places)
        tops = [top for *_, top in places]
        assert tops == sorted(tops)
        assert len(set(tops)) == len(tops), "each cell has a line of its own"
    cell = f"document.querySelector('#{table} td[data-column=explained]')"
    assert browser.js(f"getComputedStyle({cell}, '::before').content") == '"Explained"'
    best = f"document.querySelector('#{table} td.best')"
    assert "\u2605" in browser.js(f"getComputedStyle({best}, '::after').content")
    # To a screen reader they are tables as ever.
    wanted = {"table", "row", "rowheader", "cell"}
    assert wanted <= {role for role, _ in browser.to_a_screen_reader(wanted)}


def test_the_heads_of_a_long_table_stay_in_sight(browser: Browser, page: Path) -> None:
    browser.open(page)
    table = first_table(browser)
    box = f"document.querySelector('#{table}').parentElement"
    browser.js(f"({box}.style.maxHeight = '150px')")
    browser.js(f"({box}.scrollTop = 80)")
    assert browser.js(f"{box}.scrollTop") == 80
    top = f"document.querySelector('#{table} thead th').getBoundingClientRect().top"
    assert browser.js(f"Math.abs({top} - {box}.getBoundingClientRect().top) < 1")


def test_choosing_brings_the_first_result_into_view(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    first = "document.querySelector('[data-block]:not([hidden])').getBoundingClientRect().top"
    browser.open(page)
    assert browser.js(f"{first} > innerHeight")
    Select(browser.one("#task")).select_by_value("beta")
    assert comes_to(lambda: browser.js(f"0 <= {first} && {first} < innerHeight"), True)
    browser.open(page)
    query = browser.one("#query")
    query.send_keys("maple")
    before = browser.js("scrollY")
    assert comes_to(lambda: pairs_shown(browser), ["maple"] * 6) == ["maple"] * 6
    assert browser.js("scrollY") == before, "typing alone does not move the page"
    query.send_keys(Keys.ENTER)
    assert comes_to(lambda: browser.js(f"0 <= {first} && {first} < innerHeight"), True)


def test_the_leader_and_the_lowest_loss_are_marked_by_more_than_colour(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    table = first_table(browser)
    mark = "getComputedStyle(document.querySelectorAll('#{} [data-column=total]')[{}], '::before')"
    best, second = (browser.js(f"{mark.format(table, place)}.content") for place in (1, 2))
    assert "\u2605" in best
    assert "\u2605" not in second
    assert set(browser.shown("#gap [data-column=leads] .badge")) == {"no verdict"}  # two seeds


def test_a_click_sorts_and_the_next_turns_round(browser: Browser, page: Path) -> None:
    browser.open(page)
    table = first_table(browser)
    ranks = column(browser, table, "rank")
    assert ranks == ["1", "2", "3", "4", "5", "6"]
    assert heading(browser, table, "rank").get_attribute("aria-sort") == "ascending"
    for direction in ("ascending", "descending"):
        click_on_heading(browser, table, "explained")
        assert comes_to(lambda: sorted_as(browser, table, "explained"), direction) == direction
        values = [float(each) for each in column(browser, table, "explained")]
        assert values == sorted(values, reverse=direction == "descending")
        assert [
            each.get_attribute("data-column") for each in browser.all(f"#{table} [aria-sort]")
        ] == ["explained"]
    click_on_heading(browser, table, "pair")
    assert comes_to(lambda: sorted_as(browser, table, "pair"), "ascending") == "ascending"
    assert column(browser, table, "pair") == sorted(column(browser, table, "pair"))


@pytest.mark.parametrize("key", ["ENTER", "SPACE"])
def test_keys_sort_too_and_what_was_not_measured_stays_last(
    browser: Browser, page: Path, key: str
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    table = str(browser.all(".board table[data-sortable]")[-1].get_attribute("id"))
    button = heading(browser, table, "total").find_element("css selector", "button")
    for turned in (False, True):
        button.send_keys(getattr(Keys, key))
        direction = "descending" if turned else "ascending"
        assert comes_to(lambda: sorted_as(browser, table, "total"), direction) == direction
        *values, last = column(browser, table, "total")
        assert last == "n/a"
        assert list(map(float, values)) == sorted(map(float, values), reverse=turned)
    assert (
        browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    )  # the focus is seen


def test_the_tables_beside_the_boards_sort_too(browser: Browser, shipped: Path) -> None:
    browser.open(shipped)
    table = str(browser.all("#race table")[0].get_attribute("id"))
    ranked = column(browser, table, "loss")
    for direction in ("ascending", "descending"):
        click_on_heading(browser, table, "inference")
        assert sorted_as(browser, table, "inference") == direction
        speeds = [float(text) for text in column(browser, table, "inference")]
        assert speeds == sorted(speeds, reverse=direction == "descending")
    assert len(ranked) > 3
    assert sorted(column(browser, table, "loss")) == sorted(ranked)
    assert column(browser, table, "loss") != ranked


def test_words_and_choices_filter_rows_boxes_and_curves(browser: Browser, page: Path) -> None:
    from selenium.webdriver.support.select import Select

    browser.open(page)
    everything = rows_shown(browser)
    assert (
        browser.js("document.querySelector('#count').value")
        == f"{everything} of {everything} rows shown"
    )
    browser.one("#query").send_keys("cedar augm")
    assert comes_to(lambda: pairs_shown(browser), ["cedar"] * 3) == ["cedar"] * 3
    assert len(browser.shown(".board .by-seconds .series")) == 2 * 3
    assert browser.shown("#kernels-name") == []
    Select(browser.one("#task")).select_by_value("alpha")
    Select(browser.one("#machine")).select_by_value("cpu-b")
    assert comes_to(lambda: pairs_shown(browser), ["cedar"]) == ["cedar"]
    assert len(browser.shown(".board h3")) == 1
    assert [name.split()[0] for name in browser.shown("#gap tbody.row th")] == ["alpha/cedar"]
    browser.one("#query").send_keys(" nowhere")
    assert comes_to(lambda: browser.shown("#nothing") != [], True)
    browser.one("#filters button").click()
    assert comes_to(lambda: rows_shown(browser), everything) == everything
    assert browser.shown("#nothing") == []
    assert browser.one("#query").get_attribute("value") == ""
    assert [browser.one(each).get_attribute("value") for each in ("#task", "#machine")] == ["", ""]


def test_clearing_is_done_within_the_click(browser: Browser, page: Path) -> None:
    """Else a slow machine shows the cleared fields above the rows of the search before them."""
    browser.open(page)
    everything = rows_shown(browser)
    type_in = "(q, text) => { q.value = text; q.dispatchEvent(new Event('input')); }"
    browser.js(f"({type_in})(document.querySelector('#query'), 'nowhere')")
    assert rows_shown(browser) == 0
    count = "document.querySelector('#count').value"
    clear = "document.querySelector('#filters button').click()"
    assert browser.js(f"({clear}, {count})") == f"{everything} of {everything} rows shown"


def test_the_address_brings_the_view_back(browser: Browser, page: Path) -> None:
    from selenium.webdriver.support.select import Select

    browser.open(page)
    table = first_table(browser)
    browser.one("#query").send_keys("birch")
    Select(browser.one("#task")).select_by_value("alpha")
    click_on_heading(browser, table, "share")
    assert comes_to(lambda: sorted_as(browser, table, "share"), "ascending") == "ascending"
    browser.js("document.querySelector('.board .x-steps').click()")
    browser.js(
        "document.querySelector('nav a').click()"
    )  # going to a section loses nothing of the address
    hash = browser.js("location.hash")
    rows = "[...document.querySelectorAll('tbody.row, .panels')]"
    view = f"{rows}.filter((e) => e.checkVisibility()).map((e) => e.id + e.className)"
    before = browser.js(view)
    browser.open(page, hash)
    assert browser.js(view) == before
    assert browser.js("location.hash") == hash
    assert browser.one("#query").get_attribute("value") == "birch"
    browser.js("(location.hash = '')")
    ranked = ["1", "2", "3", "4", "5", "6"]
    assert comes_to(lambda: column(browser, table, "rank"), ranked) == ranked


@pytest.mark.parametrize(
    "hash",
    ["#task=__proto__&machine=&x=constructor&q=%F0%9F%98%80", "#q=%", "#gap=x.y&none", "#=&&&"],
)
def test_a_bad_address_does_no_harm(browser: Browser, page: Path, hash: str) -> None:
    browser.open(page, hash)
    assert browser.complaints() == []
    assert column(browser, first_table(browser), "rank") in ([], ["1", "2", "3", "4", "5", "6"])


def test_one_switch_changes_the_axis_of_all_curves(browser: Browser, page: Path) -> None:
    browser.open(page)
    for axis in ("samples", "steps", "seconds"):
        browser.js(f"document.querySelector('.board .x-{axis}').click()")
        panels = "[...document.querySelectorAll('.panels')]"
        kinds = f"{panels}.filter((e) => e.checkVisibility()).map((e) => e.className)"
        wanted = [f"panels by-{axis}"] * len(browser.all(".board"))
        assert comes_to(partial(browser.js, kinds), wanted) == wanted


def test_pointing_at_a_row_picks_out_its_curve(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(page)
    row = browser.all(".board tbody.row")[1]
    ActionChains(browser.driver).move_to_element(row.find_element("css selector", "th")).perform()
    drawn = "[...document.querySelectorAll('.board .series:not(.dim)')]"
    own: str = row.get_attribute("id")

    def clear_in_the_box() -> set[str]:
        clear = browser.js(f"{drawn}.map((e) => e.dataset.row)")
        return {each for each in clear if each.split("-")[0] == own.split("-")[0]}

    assert comes_to(clear_in_the_box, {own}) == {own}


def test_hostile_names_are_inert(browser: Browser, hostile: Path) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    browser.open(hostile)
    browser.one("#query").send_keys("img onerror")
    assert comes_to(lambda: pairs_shown(browser) != [], True)
    with pytest.raises(NoAlertPresentException):
        _ = browser.driver.switch_to.alert
    assert browser.js("[window.pwned, document.images.length, document.scripts.length]") == [
        None,
        0,
        1,
    ]
    assert browser.all("#injected") == []
    assert browser.complaints() == []
    assert HOSTILE in browser.shown(".board [data-field=pair]")  # it is there, as text


def test_without_its_script_the_page_is_plain_tables_with_curves(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    # A script that was changed is not the one whose hash the policy allows: it does not run, which
    # shows the policy too.
    changed = tmp_path / "changed.html"
    changed.write_text(
        page.read_text(encoding="utf-8").replace(
            '"use strict";', '"use strict"; window.pwned = 1;', 1
        ),
        encoding="utf-8",
    )
    browser.open(changed)
    policy = "Content Security Policy"
    assert comes_to(lambda: any(policy in each for each in browser.complaints()), True)
    assert browser.js("window.pwned") is None
    assert browser.all("thead button") == []
    assert browser.shown("#filters") == []
    assert column(browser, first_table(browser), "rank") == ["1", "2", "3", "4", "5", "6"]
    browser.all(".board .x-samples")[0].click()
    assert comes_to(lambda: len(browser.shown(".panels.by-samples")), 1) == 1
    browser.all("tbody.gap summary")[0].click()
    assert comes_to(lambda: len(browser.shown("tbody .provenance")), 1) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out_in_both_colour_schemes(
    browser: Browser, page: Path, dark: bool
) -> None:
    browser.open(page, dark=dark)
    browser.js(OPEN_ALL)
    weak, paper = browser.js(f"({CONTRASTS})({AA})")
    assert weak == []
    assert (paper < 0.05) is dark
    assert (paper > 0.8) is not dark


def test_the_keyboard_gets_past_the_head_and_reduced_motion_is_kept(
    browser: Browser, page: Path
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    assert browser.js("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    ActionChains(browser.driver).send_keys(Keys.TAB).perform()
    focused = "document.activeElement"
    skip = "Skip to the results"
    assert comes_to(lambda: browser.js(f"{focused}.textContent"), skip) == skip
    assert comes_to(lambda: browser.js(f"{focused}.getBoundingClientRect().top >= 0"), True)
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert comes_to(lambda: browser.js(f"{focused}.id"), "content") == "content"


def test_the_page_says_what_it_is_to_a_screen_reader(browser: Browser, page: Path) -> None:
    browser.open(page)
    landmarks = {"banner", "navigation", "search", "main", "contentinfo"}
    named = browser.to_a_screen_reader(landmarks)
    assert landmarks <= {role for role, _ in named}
    assert browser.js("document.documentElement.lang") == "en"
    # Whatever can be operated, seen as a picture or scrolled to has a name.
    operable = {
        "button",
        "link",
        "textbox",
        "searchbox",
        "combobox",
        "radio",
        "img",
        "image",
        "region",
        "DisclosureTriangle",
    }
    assert [role for role, name in named if role in operable and not name.strip()] == []
