"""A small driver of headless Chromium over its debugging pipe, without any package; every wait has an end."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1200,1000", "--hide-scrollbars",
)  # fmt: skip


class BrowserError(Exception):
    """The browser ended, did not answer in time, or refused a command."""


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browser(timeout_s: float = 60) -> Iterator[Browser]:
    """A browser with an empty profile; it and all its processes have ended after the block."""
    program = find_browser()
    assert program is not None, "ask find_browser first"
    with tempfile.TemporaryDirectory(prefix="fusion_jax_browser_", ignore_cleanup_errors=True) as folder:
        running = Browser(program, pathlib.Path(folder), timeout_s)
        try:
            yield running
        finally:
            running.stop()


class Browser:
    """A running browser; see `browser`. Commands are those of the Chrome DevTools Protocol."""

    def __init__(self, program: str, profile: pathlib.Path, timeout_s: float):
        self.timeout_s, self._next_id, self._rest = timeout_s, 0, b""
        self._waiting: list[dict] = []  # events not looked at yet
        its_input, self._to = os.pipe()
        self._from, its_output = os.pipe()
        # The browser reads fd 3 and writes fd 4; copies above them keep one dup2 from closing the other's source.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (its_input, its_output)]
        log = os.open(profile / "log.txt", os.O_CREAT | os.O_WRONLY, 0o600)
        redirect = [
            (os.POSIX_SPAWN_DUP2, source, fd) for source, fd in zip((*high, log, log), (3, 4, 1, 2), strict=True)
        ]
        # posix_spawn, as fork would warn beside jax's threads; a group of its own, so that all of it can be ended.
        self._pid = os.posix_spawn(
            program,
            [program, *_FLAGS, f"--user-data-dir={profile / 'profile'}", "about:blank"],
            os.environ | {"HOME": str(profile)},
            file_actions=redirect,
            setpgroup=0,
        )
        for fd in (its_input, its_output, *high, log):
            os.close(fd)

    def open(self, path: pathlib.Path) -> Page:
        """Loads a file in a new page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        page.load(path.absolute().as_uri())
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict:
        """Sends a command and waits for its result."""
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.timeout_s
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._next_id:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self._waiting.append(answer)

    def events(self, session: str) -> list[dict]:
        """The events of a page since the last call."""
        while select.select([self._from], [], [], 0)[0] or b"\0" in self._rest:
            self._waiting.append(self._read(time.monotonic() + self.timeout_s))
        found = [event for event in self._waiting if event.get("sessionId") == session]
        self._waiting = [event for event in self._waiting if event.get("sessionId") != session]
        return found

    def stop(self) -> None:
        """Ends the browser: asks, waits a little, then kills all processes of its group."""
        with contextlib.suppress(OSError):
            os.write(self._to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        deadline = time.monotonic() + 5
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                break
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):  # helpers that outlived it
            os.killpg(self._pid, signal.SIGKILL)
        os.close(self._to)
        os.close(self._from)

    def _read(self, deadline: float) -> dict:
        """The next message."""
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]:
                raise BrowserError(f"no answer within {self.timeout_s} s")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise BrowserError("the browser has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class Page:
    """A page with what went wrong in it: `problems` are errors in the console, exceptions and refused requests."""

    def __init__(self, owner: Browser, session: str):
        self._browser, self._session = owner, session
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict:
        """Sends a command to this page and waits for its result."""
        result = self._browser.call(method, self._session, **params)
        for event in self._browser.events(self._session):
            self._note(event["method"], event["params"])
        return result

    def load(self, url: str) -> None:
        """Goes to `url` and waits until everything is there."""
        self.call("Page.bringToFront")  # the one behind draws no frames
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON would give it back."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + self._browser.timeout_s
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                raise BrowserError(f"not true within {self._browser.timeout_s} s: {expression}; {self.problems}")
            time.sleep(0.05)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is in the window, after scrolling to it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        left, top, width, height = self.evaluate(
            f"(box => [box.left, box.top, box.width, box.height])({element}.getBoundingClientRect())"
        )
        return left + width / 2, top + height / 2

    def click(self, selector: str) -> None:
        """Clicks the middle of an element."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, x, y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], by: tuple[float, float], steps: int = 8) -> None:
        """Moves the mouse from `start` by (x, y) px with its left button held, a frame for each step."""
        self._mouse("mouseMoved", *start)
        self._mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for step in range(1, steps + 1):
            self._mouse("mouseMoved", *(s + b * step / steps for s, b in zip(start, by, strict=True)), buttons=1)
            self.evaluate("new Promise(done => requestAnimationFrame(() => done()))")
        self._mouse("mouseReleased", start[0] + by[0], start[1] + by[1], button="left", clickCount=1)

    def screenshot(self) -> bytes:
        """The whole page as a PNG file."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _note(self, method: str, params: dict) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
