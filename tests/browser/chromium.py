"""A headless Chromium: pages at a size, what their consoles said, what they fetched, and an axe-core scan."""

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
LOOKS = (*SIZES, "dark")
PATIENCE = 30.0  # seconds
SHOTS = "DEMO_SCREENSHOTS"  # a folder: the tests save the images of the docs there
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
  found => done(found.violations),
  error => done([{id: String(error), impact: 'critical', nodes: []}]));
"""

# Colors on their way from one to another are nobody's choice; what turns for ever does not count.
STILL = """
return document.getAnimations().every(
  each => each.playState !== 'running' || each.effect.getComputedTiming().endTime === Infinity);
"""


class Browser:
    """Every page that it shows is checked for what must not be there by `check`."""

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

    def open(self, url: str, look: str) -> None:
        """`look`: phone, desktop, or dark (a desktop that asks for dark pages)."""
        size, dark = ("desktop", True) if look == "dark" else (look, False)
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
        """What `find` gives as soon as it is something."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = find()
            except StaleElementReferenceException:  # the page was just drawn anew
                found = None
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come; the page says: {self.text()[:2000]}")
            time.sleep(0.05)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def all(self, selector: str) -> list[WebElement]:
        """Those that can be seen."""
        return [each for each in self.driver.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]

    def one(self, selector: str, text: str | None = None) -> WebElement:
        """The first that can be seen, with exactly that text where one is given."""

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
        """To an input that may be hidden, as those for files are."""
        found = self.until(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), f"the input {selector}"
        )
        found[0].send_keys(value)

    def check(self) -> None:
        """No console error, nothing fetched from elsewhere, no sideways scrolling, nothing serious for axe."""
        errors = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, errors
        elsewhere = self._elsewhere()
        assert not elsewhere, elsewhere
        wide, inner = self.driver.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= inner, f"{wide} pixels wide in {inner}"
        self.until(lambda: self.driver.execute_script(STILL), "an end of what moves")
        serious = self.serious()
        assert not serious, json.dumps(serious, indent=1)

    def serious(self) -> list[dict[str, Any]]:
        """axe-core's serious and critical findings, each with the elements."""
        spec = importlib.util.find_spec("axe_playwright_python")
        assert spec
        assert spec.origin
        if not self.driver.execute_script("return window.axe !== undefined"):
            self.driver.execute_script(Path(spec.origin).with_name("axe.min.js").read_text())
        found = self.driver.execute_async_script(AXE)
        return [
            {
                "rule": each["id"],
                "where": [(node["html"][:300], node["failureSummary"]) for node in each["nodes"][:4]],
            }
            for each in found
            if each["impact"] in ("serious", "critical")
        ]

    def save(self, name: str) -> None:
        """An image of what is seen, where images are asked for and the docs show it."""
        folder = os.environ.get(SHOTS)
        if folder and name in SHOWN:
            Path(folder).mkdir(parents=True, exist_ok=True)
            shrink(self.driver.get_screenshot_as_png(), Path(folder) / f"demo-{name}.png")

    def _elsewhere(self) -> list[str]:
        """Addresses that the page asked for and that are not its own."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if url.startswith("http") and urlsplit(url).netloc != self._origin]


def shrink(png: bytes, path: Path) -> None:
    """With a palette: a page has few colors."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
