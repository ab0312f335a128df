"""The report in a real browser: hostile text does nothing, filters filter, nothing overflows, no request leaves."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kepo.reports.report import write_html_report
from tests.unit.reports.study import ARMS, write_study

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    arms = {name: ARMS[name] for name in ("zero-shot", "sft", "grpo", "kepo")}
    write_study(folder, arms, seeds=1, steps=12, rollouts=8, questions=32, hostile=True)
    return write_html_report([folder], folder / "report.html", max_rollouts=90)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser: Any, report: Path) -> Callable[..., Any]:
    def open_at(width: int = 1000, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # Without motion, or the driver would click where an element was while the page still scrolls.
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(report.as_uri())
        return browser

    return open_at


def shown(page: Any) -> tuple[int, int]:
    """(rollouts found, cards in the page)."""
    found = page.find_element("id", "count").text.split(" of ")[0]
    return int(found), len(page.find_elements("css selector", "#cards article"))


def choose(page: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", f"f-{name}")).select_by_value(value)


def cards(page: Any) -> list[dict[str, Any]]:
    return json.loads(page.execute_script("return document.getElementById('data').textContent"))["cards"]


def test_no_error_no_violation_and_no_hostile_script(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.execute_script("for (const box of document.querySelectorAll('details')) box.open = true")
    more = page.find_element("id", "more")
    while more.is_displayed():
        page.execute_script("arguments[0].click()", more)
    assert shown(page) == (90, 90)
    assert page.get_log("browser") == []
    assert page.execute_script("return window.pwned === undefined")
    # What came in as text is there as text.
    text = page.find_element("id", "cards").text
    for hostile in ("<script>window.pwned", "{{7*7}}", "<img src=x onerror", "\\x1b[31mred", "\\u202egnp"):
        assert hostile in text, hostile


def test_no_request_leaves_the_file(open_page: Callable[..., Any], report: Path, browser: Any) -> None:
    browser.get_log("performance")
    open_page()
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert report.as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert {url for url in asked if url.startswith("file")} == {report.as_uri()}


@pytest.mark.parametrize("width", [1000, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    page = open_page(width, scheme)
    page.execute_script("for (const box of document.querySelectorAll('details')) box.open = true")
    inner, needed = page.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner == width
    assert needed <= width


def test_filters_change_what_is_shown(open_page: Callable[..., Any]) -> None:
    page = open_page()
    all_cards = cards(page)
    page.find_element("id", "f-injected").click()
    injected = sum(card["injected"] for card in all_cards)
    assert 0 < injected < 90
    assert shown(page)[0] == injected
    choose(page, "correct", "false")
    assert shown(page) == (0, 0)
    page.find_element("id", "f-reset").click()
    assert shown(page) == (90, 20)
    choose(page, "gate", "open")
    choose(page, "task", "Count")
    assert shown(page)[0] == sum(card["gate"] > 0 and card["task"] == "Count" for card in all_cards)


def test_search_finds_text_and_more_shows_the_rest(open_page: Callable[..., Any]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page = open_page()
    page.find_element("id", "f-text").send_keys("Disease CYST")
    found = sum("disease cyst" in json.dumps(card).lower() for card in cards(page))
    WebDriverWait(page, 20).until(lambda _: shown(page)[0] == found)
    assert 20 < found < 90
    page.find_element("id", "more").click()
    assert shown(page)[1] == min(found, 40)
    page.find_element("id", "f-text").send_keys(" no such text")
    WebDriverWait(page, 20).until(lambda _: shown(page) == (0, 0))


def test_the_two_themes_differ_and_text_stands_out(open_page: Callable[..., Any]) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        page = open_page(1000, scheme)
        low = page.execute_script(CONTRAST)
        assert low == [], low[:5]
        seen.add(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def test_a_tab_key_reaches_the_filters_in_order(open_page: Callable[..., Any]) -> None:
    page = open_page()
    focusable = "document.querySelectorAll('#rollouts select:not([hidden]), #rollouts input, #rollouts button')"
    names = page.execute_script(
        f"return [...{focusable}].map((e) => e.labels?.[0]?.textContent.trim() ?? e.textContent)"
    )
    assert all(names)
    assert page.execute_script("return [...document.querySelectorAll('.scroll')].every((e) => e.tabIndex === 0)")


def test_the_picture_is_not_blank(open_page: Callable[..., Any]) -> None:
    page = open_page(390, "dark")
    image = base64.b64decode(page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    assert len(image) > 10_000
    assert page.execute_script("return [...document.querySelectorAll('figure svg')].every((e) => e.clientHeight > 100)")


# WCAG 2.2, 1.4.3: the ratio of the relative luminances, at least 4.5; for every element with text of its own.
CONTRAST = """
const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  let color = [255, 255, 255];
  for (const [r, g, b, a = 1] of layers.reverse()) color = [r, g, b].map((v, i) => v * a + color[i] * (1 - a));
  return color;
};
const low = [];
for (const element of document.querySelectorAll("main *, header *, footer *")) {
  if (element.closest("svg, nav") || !element.getClientRects().length) continue;
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own) continue;
  const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push(`${element.tagName}.${element.className} ${element.textContent.slice(0, 30)} ${ratio}`);
}
return low;
"""
