"""A headless Chromium that checks pages for console errors, external requests and accessibility (axe-core)."""

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
SIZES = {"phone": (390, 844), "desktop": (1280, 760)}
PRESENTATIONS = (*SIZES, "dark")
WAIT_TIMEOUT_S = 60.0
SHOTS = "DEMO_SCREENSHOTS"  # the folder for the screenshots of the docs
SHOWN = ("image-desktop", "server-desktop", "text-phone", "streamlit-phone")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which a root user needs
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


AXE = """
const done = arguments[0];
axe.run(document, {resultTypes: ['violations']}).then(
  result => done(result.violations),
  error => done([{id: String(error), impact: 'critical', nodes: []}]));
"""

# Colors in the middle of a transition must not be checked. Endless animations do not count.
STILL = """
return document.getAnimations().every(
  animation => animation.playState !== 'running' || animation.effect.getComputedTiming().endTime === Infinity);
"""


class Browser:
    """A headless Chromium. `check` checks the current page."""

    def __init__(self, chromium: str, driver: str, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=driver)
        self.driver = webdriver.Chrome(options=options, service=service)
        self._origin = ""

    def close(self) -> None:
        self.driver.quit()

    def open(self, url: str, presentation: str) -> None:
        """Open a page. `presentation` is phone, desktop, or dark (a desktop that prefers dark pages)."""
        size, dark = ("desktop", True) if presentation == "dark" else (presentation, False)
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self._origin = urlsplit(url).netloc
        self.driver.get(url)

    def until(self, find: Callable[[], T], what: str) -> T:
        """Return the result of `find` once it is truthy."""
        end = time.monotonic() + WAIT_TIMEOUT_S
        while True:
            try:
                result = find()
            except StaleElementReferenceException:  # the page has just been rendered again
                result = None
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not appear; the page's text: {self.text()[:2000]}")
            time.sleep(0.05)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def all(self, selector: str) -> list[WebElement]:
        """Return the visible elements."""
        elements = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in elements if element.is_displayed()]

    def one(self, selector: str, text: str | None = None) -> WebElement:
        """Wait for the first visible element, with exactly this text if it is not None."""

        def find() -> WebElement | None:
            return next((e for e in self.all(selector) if text is None or e.text.strip() == text), None)

        return self.until(find, f"{selector} {text or ''}")

    def click(self, selector: str, text: str | None = None) -> None:
        def press() -> bool:
            element = self.one(selector, text)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.until(press, f"a click on {selector} {text or ''}")

    def send(self, selector: str, value: str) -> None:
        """Type into an input, which may be hidden, such as a file input."""
        inputs = self.until(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), f"the input {selector}"
        )
        inputs[0].send_keys(value)

    def check(self) -> None:
        """Check for console errors, external requests, horizontal scrolling and serious axe-core findings."""
        errors = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, errors
        external = self._external_urls()
        assert not external, external
        wide, inner = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= inner, f"{wide} pixels wide in {inner}"
        self.until(lambda: self.driver.execute_script(STILL), "the end of the animations")
        serious = self.serious()
        assert not serious, json.dumps(serious, indent=1)

    def serious(self) -> list[dict[str, Any]]:
        """Return axe-core's serious and critical findings with their elements."""
        spec = importlib.util.find_spec("axe_playwright_python")
        assert spec
        assert spec.origin
        if not self.driver.execute_script("return window.axe !== undefined"):
            self.driver.execute_script(Path(spec.origin).with_name("axe.min.js").read_text())
        violations = self.driver.execute_async_script(AXE)
        return [
            {
                "rule": violation["id"],
                "where": [(node["html"][:300], node["failureSummary"]) for node in violation["nodes"][:4]],
            }
            for violation in violations
            if violation["impact"] in ("serious", "critical")
        ]

    def save(self, name: str) -> None:
        """Save a screenshot for the docs, if DEMO_SCREENSHOTS is set."""
        folder = os.environ.get(SHOTS)
        if folder and name in SHOWN:
            Path(folder).mkdir(parents=True, exist_ok=True)
            shrink(self.driver.get_screenshot_as_png(), Path(folder) / f"demo-{name}.png")

    def _external_urls(self) -> list[str]:
        """Return the requested URLs of other origins."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if url.startswith("http") and urlsplit(url).netloc != self._origin]


def shrink(png: bytes, path: Path) -> None:
    """Save a screenshot with a palette, because a page has few colors."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
