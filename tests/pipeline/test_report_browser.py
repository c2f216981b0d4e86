"""The page in a real Chromium: it opens without an error, asks for nothing, and nothing sticks out sideways.

The browser is driven through the DevTools protocol over a pipe: JSON texts, each ended by a zero byte.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import render

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
STICKS_OUT = """(() => {
  const scrolls = e => { for (let p = e.parentElement; p; p = p.parentElement)
    if (['auto', 'hidden', 'clip'].includes(getComputedStyle(p).overflowX)) return true; return false; };
  const found = [...document.body.querySelectorAll('*')].filter(e => {
    const box = e.getBoundingClientRect();
    return (box.right > innerWidth + 0.5 || box.left < -0.5) && box.width > 0 && !scrolls(e); });
  return JSON.stringify([document.documentElement.scrollWidth, innerWidth,
    found.slice(0, 5).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + e.textContent.slice(0, 60))]);
})()"""


class Browser:
    """One page of a headless Chromium. `events` holds all that it said without being asked."""

    def __init__(self, chromium: str, profile: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._id, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "chromium ended"
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, page: Path, width: int, scheme: str = "light", media: str = "screen") -> None:
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def said(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    opened = Browser(chromium, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["sample", "phone", "hostile"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(SAMPLE[request.param](), tmp_path_factory.mktemp("page") / "index.html")


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (760, "screen"), (390, "screen"), (740, "print")])
def test_nothing_sticks_out_sideways_with_all_details_open(
    browser: Browser, page: Path, width: int, media: str
) -> None:
    browser.open(page, width, media=media)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    scroll_width, inner_width, found = json.loads(browser.evaluate(STICKS_OUT))
    assert inner_width == width
    assert scroll_width <= width, found
    assert found == []


def test_paper_shows_what_is_folded_on_the_screen(browser: Browser, page: Path) -> None:
    folded = "document.querySelector('details:not([open]) table').checkVisibility()"
    seen = []
    for media in ("screen", "print"):
        browser.open(page, 740, media=media)
        seen.append(browser.evaluate(folded))
    assert seen == [False, True]


def test_the_check_for_overflow_sees_one(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    browser.evaluate("document.querySelector('h1').style.width = '900px'")
    scroll_width, _, found = json.loads(browser.evaluate(STICKS_OUT))
    assert scroll_width > 390
    assert any(text.startswith("H1") for text in found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_without_an_error_or_a_request(browser: Browser, page: Path, scheme: str) -> None:
    browser.open(page, 1280, scheme)
    requests = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith(("data:", page.as_uri()))] == []
    assert page.as_uri() in requests, "the check for requests sees nothing"
    assert browser.said("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []


def test_the_policy_of_the_page_stops_scripts_and_images(browser: Browser, page: Path) -> None:
    """Were an escape forgotten some day, nothing would run: shown by planting a script and an image."""
    planted = page.with_name("planted.html")
    attack = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x.png'></main>"
    planted.write_text(page.read_text(encoding="utf-8").replace("</main>", attack), encoding="utf-8")
    browser.open(planted, 1280)
    assert browser.evaluate("document.title") != "owned"
    texts = " ".join(event["entry"]["text"] for event in browser.said("Log.entryAdded"))
    assert "script" in texts
    assert "img-src" in texts


def test_hostile_names_make_no_elements(browser: Browser, tmp_path: Path) -> None:
    browser.open(render(SAMPLE["hostile"](), tmp_path / "index.html"), 1280)
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, object, [onerror]').length") == 0
    assert browser.evaluate("document.title").startswith("<script>alert('name')</script> takes")


def test_ink_is_legible_on_paper_in_both_schemes(browser: Browser, page: Path) -> None:
    """WCAG contrast of the body's and the soft text: 4.5 or more."""
    ratio = """(() => {
      const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = colour => {
        const [r, g, b] = colour.match(/[0-9.]+/g).map(v => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b; };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...['body', '.lede', '.good', '.bad', 'nav a'].map(selector => {
        const ink = light(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05); })); })()"""
    for scheme in ("light", "dark"):
        browser.open(page, 1280, scheme)
        assert browser.evaluate(ratio) >= 4.5
