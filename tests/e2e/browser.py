"""A headless Chromium, spoken to through its DevTools pipe: pages are opened, clicked and asked for real."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1440,900")


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    return found


def _pipe() -> tuple[int, int]:
    """Reading and writing end; their numbers are not 3 and 4, which the browser will have."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


class Browser:
    """A browser with one page.

    Attributes:
        problems: what the page threw or logged as an error.
        requests: addresses that it asked for.
    """

    def __init__(self, profile: Path) -> None:
        (their_in, our_out), (our_in, their_out) = _pipe(), _pipe()
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        script = f'exec "$0" "$@" 3<&{their_in} 4>&{their_out} {their_in}<&- {their_out}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", script, *command],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._out, self._in = os.fdopen(our_out, "wb", buffering=0), os.fdopen(our_in, "rb")
        self._last, self._session = 0, ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        self._session = ""
        self.call("Browser.close")
        self.process.wait(20)
        self._out.close()
        self._in.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the DevTools protocol; its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._in.read(1)) not in (b"\0", b""):
            data += byte
        assert data, "the browser has gone"
        return json.loads(data)

    def _note(self, event: dict[str, Any]) -> str:
        """Keeps what an event tells of problems and requests; its name."""
        details = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(details["exceptionDetails"]))
        if event["method"] == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(details["entry"]["text"])
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        return event["method"]

    def open(self, file: Path) -> int:
        """Opens a report; milliseconds from the start of its loading until it was shown."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"file://{file}")
        while self._note(self._read()) != "Page.loadEventFired":
            pass
        return self.evaluate("report.then(() => Number(document.body.dataset.ready))")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression on the page, a promise's result included."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, timeout=20000
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector: str, index: int = 0) -> None:
        """Clicks in the middle of an element with the mouse."""
        place = f"document.querySelectorAll({json.dumps(selector)})[{index}]"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center'}})")
        self.evaluate("new Promise((done) => setTimeout(done, 50))")  # lists follow their scroll position
        x, y = self.evaluate(
            f"(() => {{ const r = {place}.getBoundingClientRect();"
            "return [r.x + Math.min(r.width, 200) / 2, r.y + r.height / 2] })()"
        )
        self.click_at(x, y)

    def click_at(self, x: float, y: float) -> None:
        """Clicks at a point of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Clicks an input and types into it, with Enter at the end."""
        self.click(selector)
        self.call("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **enter)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector means."""
        return self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
        )
