"""The page as a person has it, in a real browser. `make screenshots` has its pictures kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from orlop.client import Connection
from orlop.client.names import LABEL
from orlop.wire.services import images_pb2, namespaces_pb2
from tests.browser_fixture import EVIL, Browser
from tests.daemon_fixture import BUSYBOX
from tests.registry_fixture import free_port
from tests.status_fixture import COMING, HOST, Fleet, Page, Shipyard, fleet, shown

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_PICTURES = os.environ.get("ORLOP_SCREENSHOTS")
"""The folder for pictures to keep; they get some history to show."""
_HISTORY = 150.0 if _PICTURES else 0.0
_HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
_ROW = "#containers-rows tr"


@pytest.fixture
def ships(tmp_path: Path, yard: Shipyard) -> Iterator[Fleet]:
    with fleet(tmp_path, yard) as made:
        yield made


@contextmanager
def _crew(page: Page, archive: Path, *names: str, label: str = "a=b") -> Iterator[str]:
    """Containers of that name, of an image whose name it gives."""
    page.daemon.ctr("images", "import", str(archive))
    try:
        for name in names:
            page.daemon.ctr("run", "-d", "--label", label, BUSYBOX, name, "/bin/sleep", "1000")
        yield BUSYBOX
    finally:
        for name in names:
            page.daemon.ctr("task", "rm", "-f", name, check=False)
            page.daemon.ctr("container", "rm", name, check=False)


def test_what_there_is_is_seen(ships: Fleet, browser: Browser, tmp_path: Path) -> None:
    daemon = ships.page.daemon
    browser.resize(1280, 1240)
    browser.prefer("light")
    browser.open(ships.url)
    browser.await_(lambda: len(browser.all(_ROW)) == 5)
    _check_plots_move(browser)
    _check_images(browser)
    time.sleep(_HISTORY)
    with ships.pull() as pull:
        browser.await_(lambda: COMING in browser.text("#pulls-list"))
        first = browser.await_(lambda: _progress(browser))
        browser.await_(lambda: _progress(browser) > first)
        assert browser.await_(lambda: len(browser.all("#pulls-list .parts li")) >= 4)
        daemon.orlop("restart", "-t", "0", "mail")
        browser.await_(lambda: "tasks start mail" in browser.text("#events-list"))
        _photograph(browser, Path(_PICTURES or tmp_path))
        pull.terminate()
    browser.await_(lambda: "Nothing is being pulled" in browser.text("#pulls"))
    # Containers that go are gone.
    daemon.orlop("rm", "-f", "mail")
    browser.await_(lambda: len(browser.all(_ROW)) == 4)
    assert browser.complaints() == []


def _row(browser: Browser, name: str) -> str:
    """What the row of a container says."""
    rows = (each.text for each in browser.all(_ROW))
    return next((text for text in rows if text.splitlines()[0] == name), "")


def _check_plots_move(browser: Browser) -> None:
    """What a container does is plotted, and what it does not is not."""
    browser.await_(lambda: "healthy" in _row(browser, "web"))
    assert f"{HOST}/shop/web:2.4" in _row(browser, "web")
    assert "exited (3)" in _row(browser, "migrate")
    for kind in ("cpu", "memory", "net"):
        plot = partial(_plot, browser, "web", kind)
        seen = browser.await_(plot)
        browser.await_(lambda plot=plot, seen=seen: plot() != seen)  # type: ignore[misc]
    browser.await_(lambda: "KiB/s" in _row(browser, "web"))
    label = browser.find("#containers-rows .plot.cpu").get_attribute("aria-label")
    assert label is not None
    assert label.startswith("Processor, last ")
    assert "%" in browser.text("#tiles")


def _plot(browser: Browser, name: str, kind: str) -> str:
    """The line of a plot, once it is one."""
    for row in browser.all(_ROW):
        if row.text.startswith(f"{name}\n"):
            (path,) = row.find_elements("css selector", f".plot.{kind} .line:not(.second)")
            line = path.get_attribute("d") or ""
            return line if "L" in line else ""
    return ""


def _check_images(browser: Browser) -> None:
    browser.await_(lambda: len(browser.all("#images-rows tr")) == 5)
    api = next(each for each in browser.all("#images-rows tr") if "shop/api:1.9" in each.text)
    assert "4 layers, 3 shared" in api.text
    parts = api.find_elements("css selector", ".strip span")
    widths = [part.size["width"] for part in parts]
    assert widths[1] > widths[2] > widths[3], "as they are large"
    api.find_element("css selector", "summary").click()
    layers = api.find_elements("css selector", ".layers li")
    assert ["in 5 images" in layers[0].text, "in 3 images" in layers[1].text] == [True, True]
    assert "only here" in layers[3].text
    api.find_element("css selector", "summary").click()


def _progress(browser: Browser) -> float:
    return float(browser.find("#pulls-list progress").get_attribute("value") or 0)


def _photograph(browser: Browser, folder: Path) -> None:
    """Both colour schemes, and a phone; each fits its window, and looks different."""
    folder.mkdir(parents=True, exist_ok=True)
    grounds = []
    browser.resize(1280, browser.run("return document.documentElement.scrollHeight"))
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
        browser.photograph(folder / f"status-{scheme}.png")
    assert len(set(grounds)) == 2
    browser.prefer("light")
    browser.resize(390, 1500)
    _check_nothing_sticks_out(browser)
    browser.photograph(folder / "status-phone.png")
    browser.resize(320, 800)
    _check_nothing_sticks_out(browser)
    browser.resize(1280, 1240)


def _check_nothing_sticks_out(browser: Browser) -> None:
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    width, room = browser.run(script)
    assert width <= room


def test_names_are_text_whatever_is_in_them(
    page: Page, browser: Browser, busybox_archive: Path
) -> None:
    browser.open(page.url)
    browser.await_(lambda: "live" in browser.text("#link"))
    with (
        _crew(page, busybox_archive, "odd", label=f"{LABEL}={_HOSTILE}") as image,
        page.daemon.connect() as connection,
    ):
        target = connection.images.get(images_pb2.GetImageRequest(name=image)).image.target
        evil = images_pb2.Image(name=_HOSTILE, target=target)
        connection.images.create(images_pb2.CreateImageRequest(image=evil))
        for part in ("#containers-rows", "#images-rows", "#events-list"):
            browser.await_(lambda part=part: _HOSTILE in browser.text(part))  # type: ignore[misc]
        assert browser.all("main img, main script, main iframe") == []
        assert "owned" not in browser.driver.title
        assert browser.complaints() == []
        connection.images.delete(images_pb2.DeleteImageRequest(name=_HOSTILE))


def test_the_keyboard_reaches_all(page: Page, browser: Browser, busybox_archive: Path) -> None:
    with _crew(page, busybox_archive, "aft", "bow"):
        _check_the_way(page, browser)
        _check_what_keys_do(page, browser)


def _check_the_way(page: Page, browser: Browser) -> None:
    browser.resize(1280, 900)
    browser.open(page.url)
    browser.await_(lambda: len(browser.all(_ROW)) == 2 and browser.all("#images-rows summary"))
    walk = _walk(browser)
    assert walk[0] == "Skip to the containers"
    if walk[-1] == "Events":
        walk.pop()  # there are some, and so they can be scrolled
    titles = ["Container", "State", "Processor", "Memory", "Network", "Disk", "Processes"]
    assert [each.accessible_name for each in browser.all("#containers-head button")] == titles
    assert walk[1:] == ["Containers", "Pulls", "Images", "Events", "Pause", "Filter",
                        *titles, "1 layer"]  # fmt: skip


def _check_what_keys_do(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    browser.await_(lambda: len(browser.all(_ROW)) == 2)
    # The link over the head leads to the first container's table.
    browser.press(Keys.TAB, Keys.ENTER)
    browser.await_(lambda: browser.focused().get_attribute("id") == "containers")
    browser.press(Keys.TAB, "bow")
    browser.await_(lambda: [each.text[:3] for each in browser.all(_ROW)] == ["bow"])
    browser.press(*[Keys.BACKSPACE] * 3, Keys.TAB, Keys.ENTER)
    browser.await_(lambda: [each.text[:3] for each in browser.all(_ROW)] == ["bow", "aft"])
    head = browser.find("#containers-head th")
    assert head.get_attribute("aria-sort") == "descending"
    assert "Sorted by container, descending" in (
        browser.find("#said").get_attribute("textContent") or ""
    )
    # A pause is a pause, and what happens meanwhile comes after it.
    browser.await_(lambda: bool(browser.all("#images-rows tr")))
    images = len(browser.all("#images-rows tr"))
    browser.find("#pause").send_keys(Keys.SPACE)
    assert browser.find("#pause").get_attribute("aria-pressed") == "true"
    page.daemon.orlop("tag", BUSYBOX, f"{HOST}/busy:2")
    page.daemon.ctr("task", "rm", "-f", "bow")
    page.daemon.ctr("container", "rm", "bow")
    time.sleep(2.5)
    assert len(browser.all(_ROW)) == 2
    assert len(browser.all("#images-rows tr")) == images
    browser.press(Keys.SPACE)
    browser.await_(lambda: len(browser.all(_ROW)) == 1)
    browser.await_(lambda: len(browser.all("#images-rows tr")) == images + 1)
    browser.await_(lambda: "containers delete bow" in browser.text("#events-list"))
    page.daemon.orlop("rmi", f"{HOST}/busy:2")


def _walk(browser: Browser) -> list[str]:
    """What the tab key comes by, until it leaves the page; each can be seen to have the focus."""
    found: list[str] = []
    while True:
        browser.press(Keys.TAB)
        here = browser.focused()
        if here.tag_name == "body" or len(found) > 50:
            return found
        labelled = here.get_attribute("aria-labelledby")
        label = browser.find(f"#{labelled}").text if labelled else ""
        found.append(here.text.splitlines()[0] if here.tag_name in ("a", "button", "summary")
                     else label or here.get_attribute("placeholder") or here.tag_name)  # fmt: skip
        outline = here.value_of_css_property("outline-style")
        assert outline == "solid", f"{found[-1]} does not show that it has the focus"


def test_tables_are_tables_on_phones_too(
    page: Page, browser: Browser, busybox_archive: Path
) -> None:
    page.daemon.ctr("images", "import", str(busybox_archive))
    browser.resize(390, 900)
    browser.open(page.url)
    browser.await_(lambda: browser.all("#images-rows tr"))
    roles = browser.run(
        "return ['table', 'thead', 'tr', 'td']"
        ".flatMap((name) => [...document.querySelectorAll(`#images ${name}`)])"
        ".map((each) => each.getAttribute('role'))"
    )
    assert set(roles) == {"table", "rowgroup", "row", "cell", "rowheader"}
    browser.resize(1280, 900)


def test_the_door(tmp_path: Path, browser: Browser) -> None:
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    with shown(tmp_path, f'token = "{secret}"') as page:
        browser.open(page.url)
        field = browser.await_(lambda: browser.find("#door-token"))
        browser.await_(field.is_displayed)
        assert browser.focused() == field
        # The second Escape closes it whatever the page says.
        for _ in range(3):
            browser.press(Keys.ESCAPE, Keys.ESCAPE)
        browser.await_(field.is_displayed)
        browser.press("barley", Keys.ENTER)
        browser.await_(lambda: "not the token" in browser.text("#door-wrong"))
        browser.press("open sesame", Keys.ENTER)
        browser.await_(lambda: "live" in browser.text("#link"))
        browser.await_(lambda: "No containers" in browser.text("#containers"))
        assert not browser.find("#door").is_displayed()
        # This tab remembers it, and tells nobody else.
        browser.open(page.url)
        browser.await_(lambda: "live" in browser.text("#link"))
        assert browser.driver.get_cookies() == []
        browser.run("sessionStorage.clear()")


def test_no_other_name_leads_here(page: Page, browser: Browser) -> None:
    browser.open(f"http://{EVIL}:{page.port}/")
    assert "call this page by an address" in browser.text("body")
    assert browser.all("main") == []


def test_a_daemon_that_goes_and_comes_again(tmp_path: Path, browser: Browser) -> None:
    with shown(tmp_path, f'address = "127.0.0.1:{free_port()}"') as page:
        browser.open(page.url)
        browser.await_(lambda: "live" in browser.text("#link"))
        page.daemon.stop()
        browser.await_(lambda: "orlopd does not answer" in browser.text("#link"))
        assert browser.find("#said").get_attribute("textContent") == "orlopd does not answer"
        page.daemon.start()
        browser.await_(lambda: "live" in browser.text("#link"))
        with page.daemon.connect("elsewhere") as connection:
            browser.await_(lambda: _heard_of(browser, connection))


def _heard_of(browser: Browser, connection: Connection) -> bool:
    """The events are followed again, too."""
    name = f"port-{time.monotonic_ns()}"
    made = namespaces_pb2.Namespace(name=name)
    connection.namespaces.create(namespaces_pb2.CreateNamespaceRequest(namespace=made))
    time.sleep(0.5)
    return name in browser.text("#events-list")
