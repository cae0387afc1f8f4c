"""Numbers on their way from a device to the host, which nobody waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .capture import refuse_capture
from .reduction import world_size
from .untraced import untraced


class Decider(Protocol):
    """What decides by numbers once they have arrived."""

    @property
    def last_epoch(self) -> int:
        """Each decision moves it on, or changes nothing."""

    @property
    def _decide(self) -> Callable[..., None]:
        """Makes a step that was put off: called with the numbers."""


class Arrivals:
    """Numbers that were sent to the host, in order.

    Sending neither waits for the device nor has it wait; it may not be done inside CUDA graph capture.
    """

    def __init__(self) -> None:
        self._sent: deque[_Sent] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, *numbers: Tensor | float) -> None:
        """Copy these numbers, as they are once the device has done what it was told so far."""
        self._sent.append(_Sent(numbers))

    def forget(self, kept: int = 0) -> None:
        """Keep only so many of the last."""
        while len(self._sent) > kept:
            self._sent.popleft()

    def wait(self, back: int) -> list[Any]:
        """Those sent so many before the last. Waits for them, and for nothing after them."""
        return self._sent[-1 - back].read()

    def put_off(self, decider: Decider, *numbers: Tensor | float) -> None:
        """Send numbers to decide by, and decide by those before them that have arrived.

        By these too where they are on the host and none before them is left. Ranks have to decide at the same step:
        where there are several, this waits for all that were sent before.
        """
        refuse_capture("deferred=True sends the metric to the host; step it between replays")
        parts = [number.reshape(()) if is_away(number) else float(number) for number in numbers]  # type: ignore[union-attr]
        self.send(*parts)
        self.settle(decider, int(any(map(is_away, parts))), wait=world_size() > 1)

    @untraced("it may wait for metrics that are on their way")
    def settle(self, decider: Decider, kept: int = 0, *, wait: bool) -> None:
        """Have decided by the oldest, one after another, and forget them; the last ``kept`` stay.

        Goes as far as they have arrived, or waits for them. By each is decided once, also where something is raised in
        the midst of it, Ctrl-C for instance.
        """
        if len(self._sent) > kept:
            refuse_capture("it decides by metrics that were given before; call flush() before the capture")
        while (first := self._oldest(kept)) is not None:
            if not (wait or first.has_arrived()):
                return
            if first.in_hand:
                return  # of another thread, or of the decision, which may call code of the user's that asks
            try:
                first.in_hand = True
                numbers, epoch = first.read(), decider.last_epoch
                if first.found_epoch is None:
                    first.found_epoch = epoch
                if first.found_epoch == epoch:  # else it was decided, and something raised before it was forgotten
                    decider._decide(*numbers)
                if self._oldest(0) is first:
                    self._sent.popleft()
            except BaseException:
                first.in_hand = False
                raise

    def _oldest(self, kept: int) -> _Sent | None:
        try:
            return self._sent[0] if self._sent[-1 - kept] else None
        except IndexError:
            return None


class _Sent:
    """What was sent together."""

    __slots__ = ("_parts", "found_epoch", "in_hand")

    def __init__(self, numbers: tuple[Tensor | float, ...]):
        self._parts = [_copied(number) if isinstance(number, Tensor) else (_ARRIVED, number) for number in numbers]
        self.in_hand = False  # somebody is deciding by it
        self.found_epoch: int | None = None  # the last epoch before that

    def has_arrived(self) -> bool:
        return all(event.query() for event, _ in self._parts)

    def read(self) -> list[Any]:
        numbers = []
        for event, memory in self._parts:
            event.synchronize()
            numbers.append(memory.tolist() if isinstance(memory, Tensor) else memory)
        return numbers


class _Arrived:
    """The event of what is on the host already."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


_ARRIVED = _Arrived()


def _copied(numbers: Tensor) -> tuple[Any, Tensor]:
    """A copy on the host, and the event that it is there."""
    on_host = numbers.device.type == "cpu"
    memory = torch.empty(numbers.shape, dtype=numbers.dtype, device="cpu", pin_memory=not on_host)
    memory.copy_(numbers.detach(), non_blocking=True)
    return mark(numbers.device), memory


def mark(device: torch.device) -> Any:
    """An event that is over once the device has done what the current stream was told so far."""
    if device.type == "cpu":
        return _ARRIVED
    event = torch.Event(device)
    event.record(torch.accelerator.current_stream(device))
    return event


def check_deferred(value: Any) -> None:
    """Raise TypeError unless this is what ``deferred=`` may be."""
    if not isinstance(value, bool):
        raise TypeError(f"deferred must be True or False, got {value!r}")


def is_away(number: Any) -> bool:
    """Whether reading it would wait for a device."""
    return isinstance(number, Tensor) and number.device.type != "cpu"
