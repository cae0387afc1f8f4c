"""A device whose progress the test controls."""

from __future__ import annotations

import torch

from fastsched.engine import arrivals


class LateDevice:
    """While it is entered, float64 tensors are taken for its own; others stay those of the host.

    Attributes:
        sent: how many numbers it was told to send to the host.
        done: how many of them have arrived.
        waits: how often somebody waited for one that had not.
    """

    def __init__(self) -> None:
        self.sent = self.done = self.waits = 0

    def finish(self, count: int) -> None:
        self.done = min(self.done + count, self.sent)

    def mark(self, device: torch.device) -> Event:
        self.sent += 1
        return Event(self, self.sent)

    @staticmethod
    def is_away(number: object) -> bool:
        return isinstance(number, torch.Tensor) and number.dtype is torch.float64

    def __enter__(self) -> LateDevice:
        self._before = arrivals.mark, arrivals.is_away
        arrivals.mark, arrivals.is_away = self.mark, self.is_away
        return self

    def __exit__(self, *_: object) -> None:
        arrivals.mark, arrivals.is_away = self._before


class Event:
    """Complete once a given count of numbers has arrived."""

    def __init__(self, device: LateDevice, number: int):
        self._device, self._number = device, number

    def query(self) -> bool:
        return self._number <= self._device.done

    def synchronize(self) -> None:
        if not self.query():
            self._device.waits += 1
            self._device.done = self._number
