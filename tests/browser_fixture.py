"""Debian's Chromium without a window, driven by its own driver; it reaches nothing but loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.patience import patient

_DRIVER, _BROWSER = "/usr/bin/chromedriver", "/usr/bin/chromium"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--no-proxy-server",
)
EVIL = "evil.example"
"""A name that leads to this machine, as another site's may (DNS rebinding)."""


class Browser:
    """A tab."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What is seen of all that there is, a line each."""
        return "\n".join(each.text for each in self.all(selector))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def await_(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """What a condition gives when it holds; what vanishes meanwhile is asked again."""
        wait = WebDriverWait(
            self.driver,
            patient(seconds),
            poll_frequency=0.1,
            ignored_exceptions=[StaleElementReferenceException],
        )
        return wait.until(lambda _: condition())

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def prefer(self, scheme: str) -> None:
        """`scheme` is light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", features=features)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """The size of the page's window in CSS pixels, as a phone's may be."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def _devtools(self, command: str, **arguments: object) -> None:
        self.driver.execute_cdp_cmd(command, arguments)

    def complaints(self) -> list[str]:
        """What the console has shown of warnings and errors since the last time."""
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log]

    def photograph(self, path: Path) -> None:
        assert self.driver.save_screenshot(str(path))


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a profile in `folder`."""
    options = ChromeOptions()
    options.binary_location = _BROWSER
    rules = f"MAP {EVIL} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
    for flag in (*_FLAGS, f"--user-data-dir={folder}", f"--host-resolver-rules={rules}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    driver = Chrome(options, Service(_DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
