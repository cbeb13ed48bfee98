"""A tab that is hidden, and one that is told much and nonsense."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from orlop.rpc.convert import pack
from orlop.wire.services import events_pb2, images_pb2
from orlop.wire.types_pb2 import Envelope
from tests.browser_fixture import Browser
from tests.status_fixture import Page, follow

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_HIDE = """
Object.defineProperty(document, "hidden", { configurable: true, get: () => arguments[0] });
document.dispatchEvent(new Event("visibilitychange"));
"""
_HOLD_FRAMES = """
window.frames_ = [];
window.real_ = window.requestAnimationFrame;
window.requestAnimationFrame = (draw) => window.frames_.push(draw);
"""
_GIVE_FRAMES = """
window.requestAnimationFrame = window.real_;
for (const draw of window.frames_) draw();
"""


def test_hidden_it_leaves_its_connections_to_others(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    _forward(page, "seen")
    browser.await_(lambda: _heard(page, browser, "seen"))
    with ExitStack() as stack:
        while follow(page, stack):
            pass
        browser.run(_HIDE, True)
        page.daemon.wait_for(partial(follow, page, stack), 20)
        page.daemon.wait_for(lambda: _is_at_rest(browser))  # what was asked before is answered
        asked = _requests(browser)
        _forward(page, "unseen", topic="/images/update")
        time.sleep(3)
        assert _requests(browser) == asked
    browser.run(_HIDE, False)
    browser.await_(lambda: "/v1/images" in _requests(browser)[len(asked) :])
    browser.await_(lambda: _heard(page, browser, "again"))
    assert "unseen" not in browser.text("#events-list")


def _is_at_rest(browser: Browser) -> bool:
    seen = _requests(browser)
    time.sleep(1)
    return _requests(browser) == seen


def _requests(browser: Browser) -> list[str]:
    """What the page has asked for and been answered, as paths."""
    found: list[str] = browser.run(
        "return performance.getEntriesByType('resource')"
        ".map((each) => new URL(each.name).pathname)"
        ".filter((path) => ['/v1/state', '/v1/images'].includes(path))"
    )
    return found


def _heard(page: Page, browser: Browser, subject: str) -> bool:
    _forward(page, subject)
    time.sleep(0.3)
    return subject in browser.text("#events-list")


def test_events_of_nonsense_stop_no_others(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    browser.await_(lambda: _heard(page, browser, "first"))
    _forward(page, "odd", seconds=253_402_300_799_000)
    _forward(page, "even")
    browser.await_(lambda: "even" in browser.text("#events-list"))
    (odd,) = [each for each in browser.all("#events-list li") if "odd" in each.text]
    assert "253402300799000" in odd.text
    assert browser.complaints() == []


def test_many_events_are_drawn_at_once(page: Page, browser: Browser) -> None:
    browser.open(page.url)
    browser.await_(lambda: _heard(page, browser, "first"))
    with _frames_held(browser):
        for number in range(5):
            _forward(page, f"number-{number}")
            time.sleep(0.2)
        browser.await_(lambda: browser.run("return frames_.length"))
        time.sleep(1)
        assert browser.run("return frames_.length") == 1
    browser.await_(lambda: "number-4" in browser.text("#events-list"))
    told = browser.text("#events-list")
    assert [f"number-{number}" in told for number in range(5)] == [True] * 5


@contextmanager
def _frames_held(browser: Browser) -> Iterator[None]:
    browser.run(_HOLD_FRAMES)
    yield
    browser.run(_GIVE_FRAMES)


def _forward(
    page: Page, subject: str, seconds: int | None = None, topic: str = "/images/create"
) -> None:
    """Tell of an event as a shim would, with a time that it says."""
    envelope = Envelope(
        namespace=page.daemon.namespace,
        topic=topic,
        event=pack(images_pb2.ImageCreate(name=subject)),
    )
    envelope.timestamp.seconds = int(time.time()) if seconds is None else seconds
    with page.daemon.connect() as connection:
        connection.events.forward(events_pb2.ForwardRequest(envelope=envelope))
