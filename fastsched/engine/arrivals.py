"""Numbers on their way from a device to the host, which nobody waits for."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor


class Arrivals:
    """Numbers that were sent to the host, in order.

    Sending neither waits for the device nor has it wait; it may not be done inside CUDA graph capture.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[Any, Tensor]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, numbers: Tensor) -> None:
        """Copy these numbers, as they are once the device has done what it was told so far."""
        on_host = numbers.device.type == "cpu"
        memory = torch.empty(numbers.shape, dtype=numbers.dtype, device="cpu", pin_memory=not on_host)
        memory.copy_(numbers.detach(), non_blocking=True)
        self._sent.append((mark(numbers.device), memory))

    def forget(self, kept: int) -> None:
        """Keep only so many of the last."""
        while len(self._sent) > kept:
            self._sent.popleft()

    def wait(self, back: int) -> list[float]:
        """Those sent so many before the last. Waits for them, and for nothing after them."""
        event, memory = self._sent[-1 - back]
        event.synchronize()
        numbers: list[float] = memory.tolist()
        return numbers

    def take(self, *, wait: bool = False) -> list[float] | None:
        """The oldest, which are then gone from here; None if they have not arrived, or there are none."""
        if not self._sent:
            return None
        event, memory = self._sent[0]
        if wait:
            event.synchronize()
        elif not event.query():
            return None
        numbers: list[float] = memory.tolist()
        self._sent.popleft()
        return numbers


class _Done:
    """The event of a device that does everything at once."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


def mark(device: torch.device) -> Any:
    """An event that is over once the device has done what the current stream was told so far."""
    if device.type == "cpu":
        return _Done()
    event = torch.Event(device)
    event.record(torch.accelerator.current_stream(device))
    return event
