"""What a scheduler did, step by step, recorded where it steps."""

from __future__ import annotations

import csv
import math
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau

from .. import _C
from ..engine.capture import refuse_capture
from ..engine.replica import Replica
from ..engine.representation import counted
from ..engine.selection import labels_of, quantity_of
from ..engine.untraced import untraced
from ..schedulers.base import _EngineScheduler
from .picture import canvas, finish
from .plotting import Scale, check_scale, draw, draw_metric, draw_reductions, lines_of, names_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


class History:
    """Records every step of a scheduler: the metric, the best one, reductions, and each group's learning rate.

    With tensor learning rates the step itself writes a row into a buffer on their device, in compiled steps and in
    replays of CUDA graphs as well; nothing waits for the device until the rows are read, which waits once. With Python
    numbers, and where torch's code steps, the row is kept on the host.

    Args:
        scheduler: one of fastsched's. A composition is recorded as a whole; a child may have a history of its own
            steps.
        capacity: how many of the latest steps to keep. Each takes 8 bytes times the number of param groups plus three.

    Raises:
        TypeError: ``scheduler`` is not one of fastsched's.
        ValueError: it already has a history, or ``capacity`` is less than 1.
        RuntimeError: inside CUDA graph capture. Construct it before or after the capture: graphs captured earlier
            record as well.

    Step numbers continue from the scheduler's ``last_epoch`` at construction. Copies of the scheduler have no history.

    Example::

        history = fastsched.History(scheduler)
        for epoch in range(epochs):
            train(model, optimizer)
            scheduler.step(validation_loss(model))
        history.to_csv("run.csv")
        history.plot("run.png")
    """

    def __init__(self, scheduler: _EngineScheduler, capacity: int = 10_000) -> None:
        if not isinstance(scheduler, _EngineScheduler):
            raise TypeError(
                f"scheduler must be one of fastsched's, got {type(scheduler).__module__}.{type(scheduler).__name__}; "
                "import it from fastsched.lr_scheduler"
            )
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
            raise ValueError(f"capacity must be a whole number of 1 or more, got {capacity!r}")
        if scheduler._history is not None:
            raise ValueError("the scheduler already has a history; close() that one first")
        refuse_capture("a history begins; construct it before the capture, or after")
        self.capacity = capacity
        self._scheduler: weakref.ref[_EngineScheduler] | None = weakref.ref(scheduler)  # which refers to this
        self._periods: list[_OnHost | _OnDevice] = []
        first = getattr(scheduler, "last_epoch", 0)
        self._first = first + 1 if isinstance(first, int) else 1
        groups = scheduler.optimizer.param_groups
        self._groups = len(groups)
        self._names = names_of(groups)
        self._quantity = quantity_of(scheduler.optimizer)
        self._labels = labels_of(scheduler.optimizer)
        self._began_with = [_number_of(group["lr"]) for group in groups]
        self._steps_of_plateaus = _steps_of(_plateaus(scheduler))
        try:
            scheduler._attend(_history=self)
            if scheduler._engine.steps_tensors:
                self.install(scheduler._engine._replicas)
        except BaseException:  # such as Ctrl-C: the caller has no object to close
            self.close()
            raise

    def close(self) -> None:
        """Stop recording. What was recorded stays, and captured graphs may still be replayed."""
        scheduler = None if self._scheduler is None else self._scheduler()
        if scheduler is None:
            return
        refuse_capture("a history ends; close it before the capture, or after")
        if scheduler._history is self:
            scheduler._attend(_history=None)
        if scheduler._engine.steps_tensors:
            own = [part.rows for period in self._periods if isinstance(period, _OnDevice) for part in period.parts]
            for replica in scheduler._engine._replicas:
                if replica.history is None or any(replica.history is rows for rows in own):
                    replica.record(None)
        self._scheduler = None  # last, so that after an interrupt the next call finishes the work

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_scheduler": None}  # a copy is closed: the scheduler keeps the original

    def __repr__(self) -> str:
        # Without waiting: only a CUDA device itself knows how many steps it has recorded.
        scheduler = None if self._scheduler is None else self._scheduler()
        of = "closed" if scheduler is None else type(scheduler).__name__
        devices = [str(period.parts[0].rows.device) for period in self._periods if isinstance(period, _OnDevice)]
        steps = counted(devices, lambda: len(self))
        return f"{type(self).__name__}({of}, steps={steps}, capacity={self.capacity})"

    def __len__(self) -> int:
        """How many steps there are to read. With tensor learning rates on a CUDA device this waits for the device."""
        return min(self.capacity, sum(period.steps() for period in self._periods))

    def to_numpy(self) -> NDArray[np.void]:
        """All rows, the oldest first, as a structured array.

        Fields: ``step``; ``metric``, NaN if there was none, or no plateau to read it; ``best``, that of the active
        plateau, NaN if there was none; ``reductions``, the number of plateaus that decided in this step to reduce
        (though ``min_lr`` and ``eps`` may have prevented it, and a ``GreedyLR`` may have restarted instead); ``lr``, of
        shape ``(groups,)``, what the optimizer has after the scheduler's step, NaN for a group that was added later. In
        a composition on tensor learning rates whose children are stepped one by one by Python, plateaus are not
        consulted: NaN and 0.

        Raises ImportError without NumPy. Waits for the device if learning rates are on one.
        """
        try:
            import numpy as np
        except ImportError as error:
            raise ImportError("History.to_numpy needs NumPy: pip install numpy") from error
        steps, table = self._read()
        groups = table.shape[1] - _C.HISTORY_OWN
        fields = [("step", "i8"), ("metric", "f8"), ("best", "f8"), ("reductions", "i8"), ("lr", "f8", (groups,))]
        rows = np.empty(len(table), dtype=fields)
        numbers = table.numpy()
        rows["step"] = steps
        rows["metric"], rows["best"], rows["reductions"] = numbers[:, : _C.HISTORY_OWN].T
        rows["lr"] = numbers[:, _C.HISTORY_OWN :]
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """The same as a DataFrame: ``step``, ``metric``, ``best``, ``reductions``, ``lr_0``, ``lr_1``, ...

        A group with a ``"name"`` is labelled with it, for example ``lr_head``; an entry other than the learning rate
        with its own name, for example ``weight_decay_0``.

        Raises ImportError without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("History.to_pandas needs pandas: pip install pandas") from error
        rows = self.to_numpy()
        columns = {name: rows[name] for name in ("step", "metric", "best", "reductions")}
        labels = self._labels_for(rows["lr"].shape[1])
        return pd.DataFrame(columns | {label: rows["lr"][:, group] for group, label in enumerate(labels)})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows to a file, with the columns of :meth:`to_pandas`; NaN is left empty."""
        steps, table = self._read()
        groups = table.shape[1] - _C.HISTORY_OWN
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "metric", "best", "reductions", *self._labels_for(groups)])
            for step, (metric, best, reductions, *lrs) in zip(steps, table.tolist(), strict=True):
                numbers = [metric, best, int(reductions), *lrs]
                writer.writerow([step, *("" if math.isnan(number) else number for number in numbers)])

    def _labels_for(self, groups: int) -> list[str]:
        return [*self._labels, *(f"lr_{group}" for group in range(len(self._labels), groups))]

    def plot(self, path_or_axes: Any = None, *, scale: Scale | None = None, title: str | None = None) -> Axes:
        """Draw the learning rates over the steps, the metric, and where plateaus lowered learning rates.

        Begins with the learning rates before the first step, unless ``capacity`` has dropped that step. Param groups
        are called by ``group["name"]``. The metric's axis is logarithmic if half of its values are below a thirtieth of
        the highest.

        Args:
            path_or_axes: as for :func:`fastsched.plot`.
            scale: of the learning rates, as for :func:`fastsched.plot`.
            title: written above the picture.

        Returns:
            The ``Axes`` with the learning rates.

        Raises:
            ValueError: there are no steps yet, or ``scale`` is not one of these.
            TypeError: ``path_or_axes`` is something else.
            ImportError: matplotlib is not installed.

        Waits for the device if learning rates are on one.
        """
        check_scale(scale)
        with canvas(path_or_axes) as axes:
            import numpy as np

            rows = self.to_numpy()
            if len(rows) == 0:
                raise ValueError("the history is empty: step the scheduler before plot()")
            first, lrs = int(rows["step"][0]), rows["lr"]
            if first == self._first:
                began = np.full((1, lrs.shape[1]), math.nan)
                began[0, : len(self._began_with)] = list(map(float, self._began_with))
                first, lrs = first - 1, np.concatenate([began, lrs])
            lowered = lrs[1:] < lrs[:-1]
            at = 1 + np.flatnonzero((rows["reductions"][-len(lowered) :] > 0) & lowered.any(1))
            lines = lines_of(0, self._quantity, lrs, self._names)
            draw(axes, lines, first=first, scale=scale, quantity=self._quantity)
            draw_reductions(axes, (first + at).tolist(), lrs[at].max(1, where=lowered[at - 1], initial=0.0).tolist())
            if not all(math.isnan(metric) for metric in rows["metric"]):
                draw_metric(axes, rows["step"].tolist(), rows["metric"].tolist())
            finish(axes, title)
        return axes

    def install(self, replicas: list[Replica]) -> None:
        """Make the steps of these replicas record themselves (called by the scheduler's engine)."""
        last = self._periods[-1] if self._periods else None
        if not (isinstance(last, _OnDevice) and last.fits(replicas)):
            last = _OnDevice([_Part.of(replica, self.capacity) for replica in replicas])
            self._periods.append(last)
        for replica, part in zip(replicas, last.parts, strict=True):
            if replica.history is not part.rows:
                replica.record(part.rows)

    @untraced("it keeps numbers on the host")
    def note(self, scheduler: Any, metric: Any) -> None:
        """Record a step that was made on the host (called by the scheduler)."""
        last = self._periods[-1] if self._periods else None
        if not isinstance(last, _OnHost):
            last = _OnHost(deque(maxlen=self.capacity))
            self._periods.append(last)
        lrs = [group["lr"] for group in scheduler.optimizer.param_groups]
        best, reductions = math.nan, 0
        plateaus = _plateaus(scheduler)
        steps, before = _steps_of(plateaus), self._steps_of_plateaus
        for plateau in plateaus:
            if _has_stepped(before.get(id(plateau)), steps.get(id(plateau))):
                best = plateau.best
                reductions += last.reduced(plateau, lrs)
        self._steps_of_plateaus = steps
        numbers = [metric if plateaus and metric is not None else math.nan, best, reductions, *lrs]
        last.add(list(map(_number_of, numbers)))

    def _read(self) -> tuple[range, Tensor]:
        """Step numbers, and the rows as a float64 tensor on the host."""
        tables = [period.read() for period in self._periods]
        columns = max(_C.HISTORY_OWN + self._groups, *(table.shape[1] for table in tables), 0)
        padded = [
            torch.nn.functional.pad(table, (0, columns - table.shape[1]), value=math.nan)
            for table in (*tables, torch.empty(0, columns, dtype=torch.float64, device="cpu"))
        ]
        rows = torch.cat(padded)[-self.capacity :]
        after = self._first + sum(period.steps() for period in self._periods)
        return range(after - len(rows), after), rows


def _number_of(value: Any) -> Tensor | float:
    """A number to keep; one on a device is not read."""
    return value.detach().clone() if isinstance(value, Tensor) else float(value)


class _Part(NamedTuple):
    """The rows of the groups of one device and dtype."""

    positions: list[int]  # of the groups among those that the scheduler drives; -1 for the others
    rows: Tensor  # laid out as csrc/schedule/report/history.h says

    @classmethod
    @torch.inference_mode(False)
    def of(cls, replica: Replica, capacity: int) -> _Part:
        columns = _C.HISTORY_OWN + len(replica.positions)
        rows = torch.zeros(_C.HISTORY_HEADER + capacity * columns, dtype=torch.float64, device=replica.buffer.device)
        rows[0], rows[1] = capacity, columns
        return cls(replica.positions, rows)

    def read(self, until: int) -> Tensor:
        """The rows of the steps before ``until`` in order, shape (steps, columns), on the host."""
        rows = self.rows.cpu()
        capacity, columns, steps = map(int, rows[: _C.HISTORY_HEADER].tolist())
        table = rows[_C.HISTORY_HEADER :].view(capacity, columns)
        ordered = table[:steps] if steps <= capacity else table.roll(-(steps % capacity), 0)
        return ordered[: len(ordered) - (steps - until)]


class _OnDevice(NamedTuple):
    """Steps that recorded themselves, each of them in every part."""

    parts: list[_Part]

    def fits(self, replicas: list[Replica]) -> bool:
        return [(part.positions, part.rows.device) for part in self.parts] == [
            (replica.positions, replica.buffer.device) for replica in replicas
        ]

    def steps(self) -> int:
        return int(self.parts[0].rows[_C.HISTORY_HEADER - 1].item())

    def read(self) -> Tensor:
        # After an interrupted close() the first part may have stopped while others went on.
        steps = self.steps()
        tables = [part.read(steps) for part in self.parts]
        shortest = min(map(len, tables))
        tables = [table[len(table) - shortest :] for table in tables]
        groups = sum(position >= 0 for part in self.parts for position in part.positions)
        table = torch.empty(len(tables[0]), _C.HISTORY_OWN + groups, dtype=torch.float64, device="cpu")
        table[:, : _C.HISTORY_OWN] = tables[0][:, : _C.HISTORY_OWN]
        for part, rows in zip(self.parts, tables, strict=True):
            slots = [slot for slot, position in enumerate(part.positions) if position >= 0]
            columns = [_C.HISTORY_OWN + part.positions[slot] for slot in slots]
            table[:, columns] = rows[:, [_C.HISTORY_OWN + slot for slot in slots]]
        return table


class _OnHost:
    """Steps that were noted one by one."""

    def __init__(self, rows: deque[list[Any]]):
        self._rows = rows
        self._steps = 0

    def add(self, row: list[Any]) -> None:
        self._rows.append(row)
        self._steps += 1

    def reduced(self, plateau: Any, lrs: list[Any]) -> bool:
        """Whether the plateau decided in its last step to reduce."""
        reduced = getattr(getattr(plateau, "_engine", None), "reduced", None)
        if reduced is not None:
            return bool(reduced)
        before = self._rows[-1][_C.HISTORY_OWN :] if self._rows else lrs  # torch's code stepped and does not say
        return any(float(now) < float(was) for now, was in zip(lrs, before, strict=False))

    def steps(self) -> int:
        return self._steps

    def read(self) -> Tensor:
        columns = max((len(row) for row in self._rows), default=_C.HISTORY_OWN)
        rows = [[float(number) for number in row] + [math.nan] * (columns - len(row)) for row in self._rows]
        return torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(len(rows), columns)


def _plateaus(scheduler: Any) -> list[Any]:
    """The plateaus in it."""
    if isinstance(scheduler, TorchReduceLROnPlateau):
        return [scheduler]
    return [plateau for child in getattr(scheduler, "_schedulers", []) for plateau in _plateaus(child)]


class _Steps(NamedTuple):
    """How far a plateau is: by its engine's count, or by its epoch if the engine has changed."""

    engine: int
    made: int
    epoch: Any


def _steps_of(plateaus: list[Any]) -> dict[int, _Steps]:
    """By identity; without plateaus whose steps only a device can count."""
    steps = {}
    for plateau in plateaus:
        engine = getattr(plateau, "_engine", None)
        if isinstance(engine, _C.HostEngine):
            steps[id(plateau)] = _Steps(id(engine), engine.steps, plateau.last_epoch)
        elif engine is None or not engine.steps_tensors:
            steps[id(plateau)] = _Steps(0, 0, plateau.last_epoch)
    return steps


def _has_stepped(before: _Steps | None, now: _Steps | None) -> bool:
    if before is None or now is None:
        return False
    return now.made != before.made if now.engine == before.engine != 0 else now.epoch != before.epoch
