"""What a scheduler drives: the learning rates of an optimizer, or other entries of its groups, or those of some groups.

The first is an :class:`~torch.optim.Optimizer` as it is. For anything else a :class:`Selection` stands in for the
optimizer. To torch's code, and to whoever looks at ``scheduler.optimizer``, it is an optimizer with one group for each
entry that is driven, in which that entry is the ``"lr"``; the engines see which entries those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

from torch import Tensor
from torch.optim import Optimizer

from .. import _C

LR = "lr"

#: One optimizer, or several that one schedule drives.
Optimizers: TypeAlias = "Optimizer | Sequence[Optimizer]"
#: Positions of param groups, or a function of a group that says whether.
Groups: TypeAlias = "Iterable[int] | Callable[[dict[str, Any]], bool] | None"


class Slot(NamedTuple):
    """One entry of one group.

    Attributes:
        optimizer: the place of the optimizer among those of the selection.
        group: the place of the group among the optimizer's.
        name: of the entry; an item of a tuple is ``"betas[0]"``.
    """

    optimizer: int
    group: int
    name: str


class Entry(NamedTuple):
    """Where an entry is: under a key, or at a place in the tuple there."""

    key: str
    item: int | None


@cache
def entry_of(name: str) -> Entry:
    """Take a name like ``"betas[0]"`` apart."""
    return Entry(*_C.entry_of(name))


_named_for: Callable[[str, str], str] = lru_cache(maxsize=None)(_C.named_for)


class GroupEntry(MutableMapping[str, Any]):
    """A param group in which another entry is the ``"lr"``; what belongs to that one is named after it.

    ``"initial_lr"`` is the group's ``"initial_weight_decay"`` for one. All else is as in the group.
    """

    __slots__ = ("_entry", "group", "name")

    def __init__(self, group: dict[str, Any], name: str):
        self.group = group
        self.name = name
        self._entry = entry_of(name)

    def __getitem__(self, key: str) -> Any:
        if key != LR:
            return self.group[_named_for(self.name, key)]
        value = self.group[self._entry.key]
        return value if self._entry.item is None else value[self._entry.item]

    def __setitem__(self, key: str, value: Any) -> None:
        if key != LR:
            self.group[_named_for(self.name, key)] = value
        elif self._entry.item is None:
            self.group[self._entry.key] = value
        else:
            items = self.group[self._entry.key]
            changed = [*items]
            changed[self._entry.item] = value
            self.group[self._entry.key] = changed if isinstance(items, list) else tuple(changed)

    def __delitem__(self, key: str) -> None:
        del self.group[self._entry.key if key == LR else _named_for(self.name, key)]

    def __iter__(self) -> Iterator[str]:
        yield LR
        for key in self.group:
            if key not in (self._entry.key, LR):
                yield key.removesuffix(self.name) + LR if key.endswith(f"_{self.name}") else key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group!r}, {self.name!r})"


class Selection(Optimizer):
    """Entries of the param groups of one or several optimizers, in the form of one optimizer.

    Attributes:
        optimizers: whose they are.
        slots: which they are; the compiled part.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        slots: Sequence[Slot],
        where: Groups = None,
        looked_at: Sequence[int] | None = None,
    ):
        self.optimizers = tuple(optimizers)
        self.slots = _C.Slots(list(slots))
        self._slots = list(slots)
        self._where = where  # the function that said which groups, for those that come later
        # How many groups of each optimizer it was asked of.
        counts = [len(one.param_groups) for one in optimizers] if looked_at is None else looked_at
        self._looked_at = list(counts)

    @property
    def param_groups(self) -> list[Any]:  # type: ignore[override]
        """A group for each entry: where that is the learning rate, the optimizer's own."""
        groups = self.slots.groups(self)
        if groups is None:
            at, group, name = next(
                slot for slot in self._slots if slot.group >= len(self.optimizers[slot.optimizer].param_groups)
            )
            raise RuntimeError(
                f"param_groups[{group}] of {type(self.optimizers[at]).__name__}, whose {name!r} is scheduled, is not "
                "there any more: make a new scheduler"
            )
        return [
            group if slot.name == LR else GroupEntry(group, slot.name)
            for group, slot in zip(groups, self._slots, strict=True)
        ]

    def places(self) -> list[Slot]:
        """Which entries these are."""
        return list(self._slots)

    def take_in(self) -> None:
        """Drive the entry in groups that came later, where the function of :func:`select` says so.

        Raises TypeError or ValueError, with nothing changed, if there is no such entry that is a number.
        """
        if not callable(self._where):
            return
        came = [
            (Slot(at, index, self._slots[0].name), one, group)
            for at, one in enumerate(self.optimizers)
            for index, group in enumerate(one.param_groups)
            if index >= self._looked_at[at] and self._where(group)
        ]
        for slot, one, group in came:
            _check(one, slot.group, group, slot.name)
        self._looked_at = [len(one.param_groups) for one in self.optimizers]
        self._slots = [*self._slots, *(slot for slot, _, _ in came)]
        self.slots = _C.Slots(list(self._slots))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "optimizers" not in vars(self):
            raise AttributeError(name)
        return getattr(self.optimizers[0], name)

    @property
    def step(self) -> Any:
        """The first optimizer's, for torch's constructors, which look whether its calls are noted."""
        return self.optimizers[0].step

    @property
    def _opt_called(self) -> bool:
        return any(getattr(optimizer, "_opt_called", False) for optimizer in self.optimizers)

    @_opt_called.setter
    def _opt_called(self, called: bool) -> None:
        for optimizer in self.optimizers:
            optimizer._opt_called = called  # type: ignore[attr-defined]

    def state_dict(self) -> Any:
        """The optimizer's."""
        return self._only("state_dict").state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """The optimizer's."""
        self._only("load_state_dict").load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of each optimizer."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """To the optimizer."""
        self._only("add_param_group").add_param_group(param_group)

    def _only(self, name: str) -> Optimizer:
        if len(self.optimizers) != 1:
            raise AttributeError(f"{name} of {len(self.optimizers)} optimizers: call it on each of them")
        return self.optimizers[0]

    def __reduce__(self) -> Any:
        return Selection, (self.optimizers, self._slots, self._where, self._looked_at)

    def __repr__(self) -> str:
        classes = [type(optimizer).__name__ for optimizer in self.optimizers]
        entries = ", ".join(f"{classes[slot.optimizer]}[{slot.group}][{slot.name!r}]" for slot in self._slots)
        return f"{type(self).__name__}({entries})"


_C.Slots.use(Selection)


def optimizers_of(optimizer: Any) -> tuple[Any, ...]:
    """The optimizers behind what a scheduler has as its optimizer."""
    return optimizer.optimizers if isinstance(optimizer, Selection) else (optimizer,)


def slots_of(optimizer: Any) -> list[Slot]:
    """The entries that a scheduler with this optimizer drives."""
    if isinstance(optimizer, Selection):
        return optimizer.places()
    return [Slot(0, group, LR) for group in range(len(optimizer.param_groups))]


def positions(part: Any, whole: Any) -> list[int]:
    """Where each entry that a scheduler with the optimizer ``part`` drives is among those of ``whole``."""
    if part is whole:
        return list(range(len(part.param_groups)))
    place = {key: index for index, key in enumerate(_keys(whole))}
    return [place[key] for key in _keys(part)]


def _keys(optimizer: Any) -> list[tuple[int, int, str]]:
    optimizers = optimizers_of(optimizer)
    return [(id(optimizers[slot.optimizer]), slot.group, slot.name) for slot in slots_of(optimizer)]


def name_of(optimizer: Any) -> str:
    """The name of the entries that a scheduler drives, which is the same for all of one that has no children."""
    slots = optimizer.places() if isinstance(optimizer, Selection) else []
    return slots[0].name if slots else LR


def quantity_of(optimizer: Any) -> str:
    """What a scheduler with this optimizer drives, in words."""
    names = {slot.name for slot in slots_of(optimizer)}
    if names <= {LR}:
        return "learning rate"
    return names.pop() if len(names) == 1 else "value"


def labels_of(optimizer: Any) -> list[str]:
    """A name for each entry that a scheduler drives, of the group's own ``"name"`` or else its number: ``lr_0``."""
    slots = slots_of(optimizer)
    called = [group.get("name") for group in optimizer.param_groups]
    numbers = list(range(len(slots))) if len(optimizers_of(optimizer)) > 1 else [slot.group for slot in slots]
    named = [name if isinstance(name, str) and name else number for name, number in zip(called, numbers, strict=True)]
    labels = [f"{slot.name}_{name}" for slot, name in zip(slots, named, strict=True)]
    return [
        f"{slot.name}_{number}" if labels.count(label) > 1 else label
        for label, slot, number in zip(labels, slots, numbers, strict=True)
    ]


def select(optimizer: Optimizers, param_name: str = LR, groups: Groups = None) -> Any:
    """What a scheduler is to have as its optimizer.

    Args:
        optimizer: one, or several.
        param_name: the entry of each group to drive.
        groups: of which groups, by position, counted through all optimizers; all of them by default.

    Returns:
        The optimizer itself where that is all its learning rates, or where it is not an optimizer: torch's constructor
        says so.

    Raises:
        TypeError, ValueError: names the argument.
    """
    several = isinstance(optimizer, (list, tuple))
    if not several and isinstance(param_name, str) and param_name == LR and groups is None:
        return optimizer
    optimizers: list[Any] = list(cast(Any, optimizer)) if several else [optimizer]
    for index, one in enumerate(optimizers):
        if not isinstance(one, Optimizer):
            which = f"optimizer[{index}]" if several else "optimizer"
            raise TypeError(f"{which} must be an Optimizer, got {type(one).__name__}")
    if not optimizers:
        raise ValueError("optimizer must be an Optimizer or a list of some, got an empty list")
    if len({id(one) for one in optimizers}) < len(optimizers):
        raise ValueError("optimizer has the same optimizer in it twice")
    if not isinstance(param_name, str):
        raise TypeError(f"param_name must be the name of an entry of param groups, got {type(param_name).__name__}")
    if any(isinstance(one, Selection) for one in optimizers):
        raise TypeError("optimizer must be an Optimizer, got another scheduler's `optimizer`, which is a part of one")
    everywhere = [
        (at, group, entries) for at, one in enumerate(optimizers) for group, entries in enumerate(one.param_groups)
    ]
    chosen = _chosen(groups, [entries for _, _, entries in everywhere])
    for place in chosen:
        _check(optimizers[everywhere[place][0]], everywhere[place][1], everywhere[place][2], param_name)
    where = groups if callable(groups) else every_group if groups is None else None
    return Selection(optimizers, [Slot(*everywhere[place][:2], param_name) for place in chosen], where)


def every_group(_: dict[str, Any]) -> bool:
    """What says which groups where nobody has said."""
    return True


def _chosen(groups: Groups, all_groups: list[dict[str, Any]]) -> list[int]:
    if groups is None:
        return list(range(len(all_groups)))
    if callable(groups):
        chosen = [place for place, group in enumerate(all_groups) if groups(group)]
    elif isinstance(groups, Iterable) and not isinstance(groups, (str, bytes)):
        chosen = list(groups)
    else:
        _refuse_groups(groups)
    for place in chosen:
        if not isinstance(place, int) or isinstance(place, bool):
            _refuse_groups(groups)
        if not 0 <= place < len(all_groups):
            raise ValueError(f"groups must be positions from 0 to {len(all_groups) - 1}, got {place}")
    if not chosen:
        raise ValueError("groups must have at least one param group, got none")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"groups has a position twice: {chosen}")
    return chosen


def _refuse_groups(groups: object) -> NoReturn:
    raise TypeError(f"groups must be a list of positions of param groups, or a function of a group, got {groups!r}")


def _check(optimizer: Optimizer, index: int, group: dict[str, Any], name: str) -> None:
    """Raise where the group has no such entry, or one that is not a number."""
    key, item = entry_of(name)
    where = f"param_groups[{index}] of {type(optimizer).__name__}"
    if key not in group:
        raise ValueError(f"param_name: {where} has no {key!r}; it has {', '.join(k for k in group if k != 'params')}")
    value = group[key]
    if item is not None:
        if not isinstance(value, (tuple, list)) or item >= len(value):
            raise ValueError(f"param_name: {key!r} in {where} has no item {item}: it is {value!r}")
        value = value[item]
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        hint = f"; name an item of it, '{key}[0]' for one" if isinstance(value, (tuple, list)) else ""
        raise TypeError(f"param_name: {name!r} in {where} must be a number, got {value!r}{hint}")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"param_name: {name!r} in {where} must have one element, got shape {tuple(value.shape)}")


def union(optimizer: Any, parts: Iterable[Any]) -> Any:
    """What a composition has as its optimizer whose schedulers have these.

    Args:
        optimizer: the one, or the list of them, that it was made with.
        parts: the optimizers of its schedulers, all of them known to belong to it.
    """
    parts = list(parts)
    optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else list(optimizers_of(optimizer))
    if len(optimizers) == 1 and not any(isinstance(part, Selection) for part in parts):
        return optimizers[0]
    slots = []
    for part in parts:
        at = [next(i for i, one in enumerate(optimizers) if one is own) for own in optimizers_of(part)]
        slots += [Slot(at[slot.optimizer], slot.group, slot.name) for slot in slots_of(part)]
    return Selection(optimizers, list(dict.fromkeys(slots)))
