"""A gateway in trouble: full, without its collector or a reader of its log, and then on its way out."""

import threading
import time
from pathlib import Path

from .traffic import Client

PLACES = 12
# All but one, for which clients compete.
HELD_TUNNELS = PLACES - 1
# When it is told to end, and when its last tunnel has gone: before the policy's last change is asked for.
DRAINS_FROM, DRAINS_TO = 0.35, 0.6
PAUSE_SECONDS = 0.5


class Trouble:
    """Takes a gateway through it in the background, in shares of so many seconds."""

    def __init__(self, gate, client: Client, seconds: float) -> None:
        self.gate, self.client, self.seconds = gate, client, seconds
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    @staticmethod
    def command(outgate: Path) -> list[str]:
        """Whoever reads its log leaves as soon as the addresses are known."""
        return ["bash", "-c", """exec "$0" > >(exec sed --unbuffered '/"listener":"admin"/q')""", str(outgate)]

    @staticmethod
    def settings(nowhere: str) -> dict[str, str]:
        return {
            "OUTGATE_ALLOW": "allowed.test:*",
            "OUTGATE_ALLOW_ADDRESSES": "127.0.0.0/8",
            "OUTGATE_MAX_CONNECTIONS": str(PLACES),
            "OUTGATE_DRAIN_TIMEOUT": "10m",
            "OTEL_EXPORTER_OTLP_ENDPOINT": nowhere,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def run(self) -> None:
        try:
            begun = time.monotonic()
            self.client.hold(HELD_TUNNELS)
            while time.monotonic() < begun + DRAINS_FROM * self.seconds:
                with self.client.connect():
                    status = self.client.get()
                    assert status == 503, status
                # The place is given back in a moment, before or after this one asks for it.
                self.client.get()
                time.sleep(PAUSE_SECONDS)
            self.gate.program.process.terminate()
            while self.client.held:
                time.sleep((DRAINS_TO - DRAINS_FROM) * self.seconds / HELD_TUNNELS)
                self.client.held.pop().close()
            code = self.gate.program.process.wait(10)
            assert code == 0, code
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self.thread.join()
        if self.error:
            raise self.error
