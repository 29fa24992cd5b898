"""What systemd wants to hear (sd_notify(3)); nothing where it does not listen."""

from __future__ import annotations

import os
import socket


class Notifier:
    """A way to systemd, if it started this process."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        period = os.environ.pop("WATCHDOG_USEC", "0")
        self.watchdog_seconds = int(period) / 2_000_000 if period.isdigit() else 0.0
        """How often systemd must hear ``WATCHDOG=1``; 0 for never."""

    def say(self, text: str) -> None:
        """Send assignments such as ``READY=1``, a line each."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(address)
                out.send(text.encode())
        except OSError:
            # systemd restarts what it no longer hears of; there is nobody else to tell.
            return
