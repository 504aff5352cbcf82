"""Programs that the checks start, and what they print."""

import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE_SECONDS = 30

T = TypeVar("T")


class Program:
    """A running program; its output goes to a file."""

    def __init__(self, log: Path, command: list[str], environment: dict[str, str]) -> None:
        self.log = log
        self.name = log.stem
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until the output matches."""

        def matches() -> re.Match[str] | None:
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found is None and self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended:\n{self.log.read_text(errors='replace')}")
            return found

        return eventually(f"{self.name} prints {pattern}", matches)

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def eventually(what: str, attempt: Callable[[], T | None]) -> T:
    """The first result of `attempt` that is not nothing."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if (result := attempt()) is not None:
            return result
        time.sleep(0.1)
    raise TimeoutError(f"not within {PATIENCE_SECONDS} s: {what}")


def answers(url: str) -> bool | None:
    """Whether a server answers 200; nothing while it does not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return True if response.status == 200 else None
    except OSError:
        return None


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot tell which one they were given."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def in_background(serve: Callable[[], None]) -> None:
    """Runs a server until the process ends."""
    threading.Thread(target=serve, daemon=True).start()
