"""What a scheduler did, step by step, recorded where it steps."""

from __future__ import annotations

import csv
import math
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau

from .. import _C
from ..engine.capture import refuse_capture
from ..engine.host import Recorder
from ..engine.lr_buffer import copied_lrs
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

    The step itself writes a row into a buffer where the learning rates are, in compiled steps and in replays of CUDA
    graphs as well; nothing waits for a device until the rows are read, which waits once.

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
        self._periods: list[_Period] = []
        first = getattr(scheduler, "last_epoch", 0)
        self._first = first + 1 if isinstance(first, int) else 1
        groups = scheduler.optimizer.param_groups
        self._groups = len(groups)
        self._names = names_of(groups)
        self._quantity = quantity_of(scheduler.optimizer)
        self._labels = labels_of(scheduler.optimizer)
        self._began_with = copied_lrs(scheduler.optimizer)
        self._steps_of_plateaus: dict[int, _Steps] = {}
        try:
            scheduler._observe(self)
            self.install(scheduler._engine.recorders())
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
            scheduler._observe(None)
        own = [part.rows for period in self._periods for part in period.parts]
        for recorder in scheduler._engine.recorders():
            if recorder.history is None or any(recorder.history is rows for rows in own):
                recorder.record(None)
        self._scheduler = None  # last, so that after an interrupt the next call finishes the work

    def __getstate__(self) -> dict[str, Any]:
        # A copy is closed: the scheduler keeps the original.
        periods = [_Period([part.copied() for part in period.parts]) for period in self._periods]
        return {**vars(self), "_scheduler": None, "_periods": periods}

    def __repr__(self) -> str:
        # Without waiting: only a CUDA device itself knows how many steps it has recorded.
        scheduler = None if self._scheduler is None else self._scheduler()
        of = "closed" if scheduler is None else type(scheduler).__name__
        devices = [str(period.parts[0].rows.device) for period in self._periods]
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

    def install(self, recorders: Sequence[Recorder]) -> None:
        """Make the steps of these record themselves (called by the scheduler's engine)."""
        if not recorders:
            return
        period = self._period([(recorder.positions, torch.device(recorder.device)) for recorder in recorders])
        for recorder, part in zip(recorders, period.parts, strict=True):
            if recorder.history is not part.rows:
                recorder.record(part.rows)

    def _period(self, layout: list[tuple[list[int], torch.device]]) -> _Period:
        """The newest period, or a new one if that has another layout."""
        if not self._periods or self._periods[-1].layout() != layout:
            self._periods.append(_Period([_Part.of(*part, self.capacity) for part in layout]))
        return self._periods[-1]

    @untraced("it keeps numbers on the host")
    def expect(self, scheduler: Any) -> None:
        """Note how far the plateaus are before Python makes a step (called by the scheduler)."""
        self._steps_of_plateaus = _steps_of(_plateaus(scheduler))

    @untraced("it keeps numbers on the host")
    def note(self, scheduler: Any, metric: Any) -> None:
        """Record a step that Python made (called by the scheduler)."""
        lrs = [group["lr"] for group in scheduler.optimizer.param_groups]
        best, reductions = math.nan, 0
        plateaus = _plateaus(scheduler)
        steps, before = _steps_of(plateaus), self._steps_of_plateaus
        for plateau in plateaus:
            if _has_stepped(before.get(id(plateau)), steps.get(id(plateau))):
                best = plateau.best
                reductions += self._has_reduced(plateau, lrs)
        device = next((lr.device for lr in lrs if isinstance(lr, Tensor)), torch.device("cpu"))
        part = self._period([(list(range(len(lrs))), device)]).parts[0]
        part.append([metric if plateaus and metric is not None else math.nan, best, reductions, *lrs])

    def _has_reduced(self, plateau: Any, lrs: list[Any]) -> bool:
        """Whether the plateau found in its last step that it was time to reduce."""
        reduced = getattr(getattr(plateau, "_engine", None), "reduced", None)
        if reduced is not None:
            return bool(reduced)
        # torch's code stepped: it does not say.
        rows = next((period.read() for period in reversed(self._periods) if period.steps()), None)
        before = [] if rows is None else rows[-1, _C.HISTORY_OWN :].tolist()
        return any(float(now) < was for now, was in zip(lrs, before, strict=False))

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


class _Part(NamedTuple):
    """The rows of the groups that one engine, or one replica of it, steps."""

    positions: list[int]  # of the groups among those that the scheduler drives; -1 for the others
    rows: Tensor  # laid out as csrc/schedule/report/history.h says

    @classmethod
    @torch.inference_mode(False)
    def of(cls, positions: list[int], device: torch.device, capacity: int) -> _Part:
        columns = _C.HISTORY_OWN + len(positions)
        rows = torch.empty(_C.HISTORY_HEADER + capacity * columns, dtype=torch.float64, device=device)
        rows[0], rows[1], rows[2] = capacity, columns, 0  # numbers: a copy of a tensor would wait for the device
        return cls(positions, rows)

    def append(self, numbers: list[Any]) -> None:
        """Add a row; what is on a device is not read."""
        rows = self.rows
        known = [0.0 if isinstance(number, Tensor) else float(number) for number in numbers]
        row = torch.tensor(known, dtype=torch.float64, device="cpu").to(rows.device, non_blocking=True)
        for column, number in enumerate(numbers):
            if isinstance(number, Tensor):
                row[column].copy_(number.detach().reshape(()), non_blocking=True)
        capacity, columns, steps = rows[: _C.HISTORY_HEADER]
        place = _C.HISTORY_HEADER + steps % capacity * columns + torch.arange(len(row), device=rows.device)
        rows.index_copy_(0, place.long(), row)
        rows[_C.HISTORY_HEADER - 1] += 1

    def read(self, until: int) -> Tensor:
        """The rows of the steps before ``until`` in order, shape (steps, columns), on the host."""
        rows = self.rows.cpu()
        capacity, columns, steps = map(int, rows[: _C.HISTORY_HEADER].tolist())
        table = rows[_C.HISTORY_HEADER :].view(-1, columns)
        ordered = table[:steps] if steps <= capacity else table.roll(-(steps % capacity), 0)
        return ordered[: len(ordered) - (steps - until)]

    def copied(self) -> _Part:
        """The same, no larger than the steps that were made."""
        capacity, columns, steps = map(int, self.rows[: _C.HISTORY_HEADER].tolist())
        return _Part(self.positions, self.rows[: _C.HISTORY_HEADER + min(steps, capacity) * columns].clone())


class _Period(NamedTuple):
    """Steps over the same groups on the same devices, each of them in every part."""

    parts: list[_Part]

    def layout(self) -> list[tuple[list[int], torch.device]]:
        return [(part.positions, part.rows.device) for part in self.parts]

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
