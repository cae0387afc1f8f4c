"""What ``repr`` shows: settings in short, and counters, without waiting for a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

MOST_SHOWN = 4  # of the items of a list


def shown(value: Any) -> str:
    """A setting in short."""
    if isinstance(value, Tensor):
        return (
            f"{value.item()!r}" if value.device.type == "cpu" and value.numel() == 1 else f"<tensor on {value.device}>"
        )
    if isinstance(value, Counter):
        value = sorted(value.elements())
    if isinstance(value, (list, tuple)):
        few = [shown(item) for item in value[:MOST_SHOWN]]
        return f"[{', '.join([*few, '...'] if len(value) > MOST_SHOWN else few)}]"
    return str(getattr(value, "__qualname__", repr(value)))


def counted(devices: Iterable[str], read: Callable[[], Any]) -> str:
    """What ``read`` gives, or the device that alone knows it."""
    away = [device for device in devices if device != "cpu"]
    return f"<on {away[0]}>" if away else shown(read())


def described(thing: Any, texts: Mapping[str, str]) -> str:
    """The class, and what is to be said of it by name."""
    return f"{type(thing).__name__}({', '.join(f'{name}={text}' for name, text in texts.items())})"
