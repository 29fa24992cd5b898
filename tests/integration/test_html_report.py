"""The HTML report in a real browser. Screenshots and a print are kept in artefacts/html-report."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from exectrail.compliance.render import html
from exectrail.compliance.render import json as report_json
from exectrail.compliance.render.write import write_reports
from lab.vm import hostpackages

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "reports"
ARTEFACTS = ROOT / "artefacts" / "html-report"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDTHS = {"wide": 1280, "telephone": 390}


@dataclass
class Browser:
    driver: webdriver.Chrome
    pages: Path

    def open(self, name: str, *, width: str = "wide", scheme: str = "light") -> None:
        """Show the report of a fixture as a file, without a network."""
        page = self.pages / f"{name}.html"
        if not page.exists():
            page.write_text(html.render(report_json.load(FIXTURES / f"{name}.json")))
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTHS[width],
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.driver.get(page.as_uri())

    def command(self, name: str, /, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def script(self, source: str) -> Any:
        return self.driver.execute_script(source)

    def keep(self, name: str) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        (ARTEFACTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def texts(self, selector: str) -> list[str]:
        """Give the text of what is visible."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element.text for element in found if element.is_displayed()]

    def choose(self, **wanted: str) -> None:
        """Fill in the filter."""
        for name, value in wanted.items():
            field = self.driver.find_element(By.NAME, name)
            if field.tag_name == "select":
                Select(field).select_by_visible_text(value)
            else:
                field.clear()
                field.send_keys(value)

    def problems(self) -> list[str]:
        """Give what the console says, and every address asked for that is not the page's own."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        asked = [
            event["params"]["request"]["url"]
            for entry in self.driver.get_log("performance")
            if (event := json.loads(entry["message"])["message"])["method"]
            == "Network.requestWillBeSent"
        ]
        own = self.pages.as_uri()
        return said + [address for address in asked if not address.startswith(own)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not Path("/usr/bin/chromedriver").exists():
        hostpackages.install(["chromium", "chromium-driver"])
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Browser]:
    chromium.get("about:blank")
    opened = Browser(chromium, tmp_path)
    opened.problems()
    yield opened
    opened.command("Emulation.setScriptExecutionDisabled", value=False)
    assert opened.problems() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "telephone"])
@pytest.mark.parametrize("name", ["mixed", "fit", "hostile"])
def test_the_page_fits_the_screen(browser: Browser, name: str, width: str, scheme: str) -> None:
    browser.open(name, width=width, scheme=scheme)
    shown, room = browser.script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert shown <= room
    browser.keep(f"{name}-{width}-{scheme}")


CONTRAST = """
const parse = (colour) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const opaque = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return parse(getComputedStyle(document.documentElement).getPropertyValue("--paper"));
};
const light = (colour) => colour.slice(0, 3)
  .map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const low = [];
for (const element of document.querySelectorAll("body *")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  if (element.closest("script, option") || !element.checkVisibility()) continue;
  const [dark, bright] = [parse(getComputedStyle(element).color), opaque(element)]
    .map(light).sort((a, b) => a - b);
  const ratio = (bright + 0.05) / (dark + 0.05);
  if (ratio < 4.5) low.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Browser, scheme: str) -> None:
    browser.open("mixed", scheme=scheme)
    assert browser.script(CONTRAST) == []
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (int(paper.split("(")[1].split(",")[0]) > 127) is (scheme == "light")


def test_without_javascript_the_page_is_complete(browser: Browser) -> None:
    browser.open("mixed")
    with_script = browser.texts("article, #waivers tr, #checks tr, #nodes tr, .grid tr")
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open("mixed")
    without = browser.texts("article, #waivers tr, #checks tr, #nodes tr, .grid tr")
    assert len(without) == 39
    assert [text.replace("\nCopy", "") for text in with_script] == without
    assert browser.texts("#filter, button") == []
    browser.keep("mixed-without-javascript")


@pytest.mark.parametrize(
    ("wanted", "findings", "rows"),
    [
        ({}, 10, 10),
        ({"host": "node10"}, 1, 1),
        ({"host": "NODE03"}, 2, 1),
        ({"host": "node02"}, 0, 1),
        ({"host": "nowhere"}, 0, 0),
        ({"host": "node1"}, 3, 4),
        ({"status": "fail"}, 5, 4),
        ({"status": "error"}, 1, 1),
        ({"status": "warn"}, 1, 1),
        ({"status": "waived"}, 1, 2),
        ({"status": "unreachable"}, 2, 2),
        ({"status": "pass"}, 0, 8),
        ({"check": "node.resolv-conf"}, 3, 10),
        ({"check": "node.resolv-conf", "status": "fail"}, 1, 1),
        ({"check": "node.python", "status": "fail"}, 0, 0),
        ({"host": "node04", "check": "node.kernel-version", "status": "fail"}, 1, 1),
    ],
)
def test_filter(browser: Browser, wanted: dict[str, str], findings: int, rows: int) -> None:
    browser.open("mixed")
    browser.choose(**wanted)
    assert len(browser.texts("article")) == findings
    assert len(browser.texts(".grid tbody tr")) == rows
    assert browser.texts("output") == [f"{findings} of 10 findings"]
    browser.driver.find_element(By.CSS_SELECTOR, "#filter button").click()
    assert browser.script("return new Promise(done => setTimeout(done, 50))") is None
    assert len(browser.texts("article")) == 10
    assert len(browser.texts(".grid tbody tr")) == 10


def test_filter_reaches_into_a_finding(browser: Browser) -> None:
    browser.open("mixed")
    browser.choose(host="node06", check="node.kernel-version")
    (variant,) = browser.texts(".variant")
    assert "4.19.0-27-amd64" in variant
    headings = browser.texts(".grid thead th")
    assert headings == ["Node", "node.kernel-version"]
    assert browser.texts("#waivers tbody tr") == []
    browser.keep("mixed-filtered")


def test_a_cell_leads_to_its_finding(browser: Browser) -> None:
    browser.open("mixed")
    cell = browser.driver.find_element(By.CSS_SELECTOR, ".grid td.error a")
    cell.click()
    (target,) = browser.texts("article:target")
    assert "node.static-pods" in target


def test_commands_can_be_copied(browser: Browser) -> None:
    browser.open("mixed")
    browser.script(
        "const button = document.querySelector('#f0 .command button');"
        "window.said = new Promise(done => new MutationObserver("
        "() => done([button.textContent, getSelection().toString()])"
        ").observe(button, {childList: true}))"
    )
    browser.driver.find_element(By.CSS_SELECTOR, "#f0 .command button").click()
    label, selected = browser.script("return window.said")
    assert label == "Copied" or selected == "dnf install kernel-ml\nsystemctl reboot"


def test_hostile_text_does_nothing(browser: Browser) -> None:
    browser.open("hostile")
    for alert in ("alert(1)", "alert(2)"):
        assert alert in browser.script("return document.body.textContent")
    assert browser.script("return document.querySelectorAll('img, main script').length") == 0
    browser.choose(host="node1<b>")
    assert len(browser.texts("article")) == 3


def test_a_range_that_no_fleet_has_does_not_hang_the_filter(browser: Browser) -> None:
    page = browser.pages / "mixed.html"
    saved = report_json.load(FIXTURES / "mixed.json")
    page.write_text(html.render(saved).replace("node[01-02,11-12]", "node[1-999999999999,7]"))
    browser.open("mixed")
    browser.choose(host="node7")
    assert len(browser.texts(".grid tbody tr")) == 1


def test_print_has_everything_on_light_paper(browser: Browser) -> None:
    browser.open("mixed", scheme="dark")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    printed = base64.b64decode(browser.driver.print_page())
    (ARTEFACTS / "mixed.pdf").write_bytes(printed)
    assert printed.startswith(b"%PDF")
    browser.command(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert browser.texts("#filter, button") == []
    assert len(browser.texts("article")) == 10
    ink = browser.script("return getComputedStyle(document.body).color")
    assert max(map(int, ink.removeprefix("rgb(").removesuffix(")").split(","))) < 80
    browser.command("Emulation.setEmulatedMedia", media="")


def test_the_written_file_is_the_page(browser: Browser) -> None:
    written = write_reports(report_json.load(FIXTURES / "fit.json"), browser.pages)["html"]
    browser.driver.get(written.as_uri())
    assert browser.texts("h1") == ["Nodes of a self-managed cluster"]
    assert browser.texts(".none") == ["None: every check passed on every node that it applies to."]
