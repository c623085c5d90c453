"""One Chromium for all browser tests; where Selenium or Debian's Chromium is missing they are
skipped, saying so."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Browser:
    """A headless Chromium that can open no connection, with what tests ask of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, hash: str = "", *, width: int = 1280, dark: bool = False) -> None:
        """Load ``page`` anew at ``width`` pixels in a colour scheme. Motion is reduced, so that
        nothing moves under a click."""
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce",
        }
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=media)
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.driver.get("about:blank")  # else a change of the hash alone would not load the page
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # empties it
        self.driver.get(page.as_uri() + hash)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def js(self, code: str, *arguments: Any) -> Any:
        """What ``return code`` gives in the page."""
        return self.driver.execute_script(f"return {code}", *arguments)

    def all(self, selector: str) -> list[Any]:
        """The elements that ``selector`` finds."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The only element that ``selector`` finds."""
        (found,) = self.all(selector)
        return found

    def shown(self, selector: str) -> list[str]:
        """The texts of those that are displayed."""
        # checkVisibility knows closed details, but says yes to a part of an SVG that is not
        # displayed.
        seen = "(e) => e.checkVisibility() && e.getClientRects().length"
        found = f"[...document.querySelectorAll(arguments[0])].filter({seen})"
        code = f"{found}.map((e) => e.textContent.trim())"
        return list(self.js(code, selector))

    def to_a_screen_reader(self, roles: set[str]) -> list[tuple[str, str]]:
        """(role, name) of everything in the accessibility tree, once all ``roles`` are there and it
        has stood still: Chromium builds it piece by piece after it is first asked for. What it was
        last where they never come."""
        deadline = time.monotonic() + 60.0
        before: list[tuple[str, str]] = []
        while True:
            found = [
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in self.cdp("Accessibility.getFullAXTree")["nodes"]
                if not node["ignored"]
            ]
            whole = found == before and roles <= {role for role, _ in found}
            if whole or time.monotonic() > deadline:
                return found
            before = found
            time.sleep(0.1)

    def complaints(self) -> list[str]:
        """What the console said since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (pip install selenium)"
    )
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("Chromium is not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # CI runs as root in a container, where Chromium's own sandbox cannot start
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=chromedriver)
    )
    try:
        yield Browser(driver)
    finally:
        driver.quit()
