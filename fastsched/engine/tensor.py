"""The engine for learning rates that are tensors."""

from __future__ import annotations

import itertools
import operator
from math import nan
from typing import Any, Literal

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _C
from . import lr_buffer, ops
from .capture import refuse_capture
from .lr_buffer import LR_DTYPES, LRBuffer
from .metric import DECODED, as_plain, traced
from .momentum import HostMomentum, TensorMomentum, cycle_momentum, cycles_momentum
from .program import (
    LAST_LR,
    Children,
    Event,
    Node,
    Setting,
    contains_tensors,
    copies_of,
    copy_settings,
    has_values_for_groups,
    instance_dict,
    own_values,
    pack,
    same_settings,
    upload,
)
from .replica import Replica, joined
from .untraced import OFF_PATH, compiler_looks_on, untraced

_C.DirectStep.use(
    modes=torch._C._len_torch_dispatch_stack,
    profiling=torch._C._autograd._profiler_enabled,
    item=Tensor.item,
)
_C.OperatorStep.use(
    step=ops.call_step_,
    copy=torch._foreach_copy_,
    share_memory=torch._C._is_alias_of,  # type: ignore[attr-defined]
    dtypes=DECODED,
    strided=torch.strided,
)
_C.use_tensor_types([Tensor, torch.nn.Parameter])

DECLINED = _C.Declined()  # a step, before anything was read or changed


class TensorEngine:
    """Steps tensor learning rates with one operator call per device and dtype, reading nothing back.

    ``step`` may be captured in a CUDA graph. Counters, learning rates and hyperparameters all live in tensors
    that keep their storage for as long as the number of param groups stays the same.

    The engine of a composition has the programs and states of its children inside its own, where they go on
    in slices, so that one call steps all of them.
    """

    kind: Literal["tensor"] = "tensor"
    steps_tensors: Literal[True] = True
    holds_state: Literal[True] = True

    __slots__ = (
        "_children",
        "_counters",
        "_direct",
        "_epoch",
        "_epoch_limit",
        "_functions",
        "_group_count",
        "_guard",
        "_layouts",
        "_lent",
        "_momentum",
        "_replicas",
        "_schedule",
        "_settings",
        "_window",
        "order_unchecked",
        "reads_metric",
    )

    def __init__(self, schedule: str):
        self._schedule = schedule
        self._counters = _C.counter_names(schedule)
        self._window = _C.window_name(schedule)  # the attribute that has the last metrics, if they are kept
        self._replicas: list[Replica] = []
        self._layouts: list[object] = []
        self._settings: list[list[Setting]] = []  # of its own node, for each replica
        self._children: list[TensorEngine] = []
        self._group_count = 0
        self._lent: dict[str, Any] = {}
        self.order_unchecked = False
        self._direct: _C.DirectStep | _C.OperatorStep | None = (
            None  # steps, once what it is made from has been looked at
        )
        self._epoch = 0  # at least; graph replays may have gone on
        self._epoch_limit: int | None = None  # torch raises beyond
        self._momentum: HostMomentum | TensorMomentum | None = None
        self._functions = False  # are called by Python at each step
        self._guard = _C.Guard(schedule)
        self.reads_metric: bool = _C.reads_metric(schedule)

    @classmethod
    @torch.inference_mode(False)
    def attach(cls, scheduler: Any, *, restore: bool) -> TensorEngine | None:
        """An engine with a copy of the state in the scheduler's dict; None where that does not fit."""
        attributes = instance_dict(scheduler)
        engine = cls(scheduler._schedule)
        counters = _C.pack_counters(scheduler._schedule, attributes)
        window = attributes.get(engine._window or "", ())
        begins_with = [torch.tensor(numbers, dtype=torch.float64, device="cpu") for numbers in (counters, window)]
        if not counters or not engine._build(scheduler, *begins_with):
            return None
        engine._functions = scheduler._calls_functions()
        engine._epoch = attributes.get("last_epoch", 0)
        engine.order_unchecked = attributes.get("_step_count") == 1 or any(
            child.order_unchecked for child in engine._children
        )
        last_lr = attributes.get(LAST_LR)
        if not engine._children:
            if restore and engine.set(LAST_LR, last_lr):
                engine.resume()
            elif isinstance(last_lr, list):
                engine._take_last_lr(last_lr)
        return engine

    @property
    def device(self) -> torch.device:
        """Where the learning rates are, the first of them."""
        return self._replicas[0].buffer.device

    @property
    def devices(self) -> list[str]:
        """All of them, by name."""
        return sorted({str(replica.buffer.device) for replica in self._replicas})

    def step(self, scheduler: Any, metric: Any, found_inf: Tensor | None = None) -> _C.Declined | None:
        if is_dynamo_compiling():
            return self._step_compiled(scheduler, metric, found_inf)
        direct = self._direct
        if direct is not None and found_inf is None:
            alone = self._momentum is None
            stepped = direct.step(scheduler, metric) if alone else self._step_with_momentum(scheduler, direct)
            if stepped:
                if self._epoch_limit is not None:
                    self._epoch += 1
                return None
        return self._step(scheduler, metric, found_inf)

    def _step_with_momentum(self, scheduler: Any, direct: _C.DirectStep | _C.OperatorStep) -> bool:
        if not (direct.ready(scheduler) and self._momentum.step(scheduler, 0, 0.0)):  # type: ignore[union-attr]
            return False
        direct.run()
        return True

    def _step_compiled(self, scheduler: Any, metric: Any, found_inf: Tensor | None) -> _C.Declined | None:
        if self._functions or not scheduler._followed:
            return DECLINED
        metric, event = self._read(metric)
        if self._momentum is not None:
            self._momentum.step_compiled(self._replicas[0].state, event, 0.0, found_inf)
        if metric is not None:
            metric = traced(metric, self._replicas[0].buffer.device)
        self._call(metric, event, found_inf)
        return None

    def _read(self, metric: Any) -> tuple[Any, int]:
        if not self.reads_metric:
            return metric, 0
        if metric is None and self._children:
            return None, int(Event.UNMEASURED)
        return as_plain(metric), 0

    @untraced(OFF_PATH)
    def _step(self, scheduler: Any, metric: Any, found_inf: Tensor | None) -> _C.Declined | None:
        reads_metric = self.reads_metric
        metric, event = self._read(metric)  # first: reading it may run code of the user's
        by_python = self._functions or isinstance(self._momentum, HostMomentum)
        if found_inf is not None and (by_python or self._replicas[0].buffer.on_host):
            return None if found_inf.item() else self.step(scheduler, metric)
        stale = self._is_stale(scheduler)
        if (
            self.order_unchecked
            or (stale and not (self.rebuild(scheduler) and self.reads_metric == reads_metric))
            or (self._epoch_limit is not None and self._epoch >= self._epoch_limit)
            or (self._momentum is not None and not self._momentum.step(scheduler, event, 0.0, found_inf))
        ):
            return _C.Declined(metric)
        lrs = self._call_functions(scheduler, Event.STEP, self._epoch + 1) if self._functions else None
        if lrs is not None:
            return _C.Declined(metric, lrs)
        if (self._functions or self._epoch_limit is not None) and found_inf is None:
            self._epoch += 1
        self._call(metric, event, found_inf)
        self._prepare_direct()
        return None

    def _prepare_direct(self) -> None:
        """Have the next steps go without Python and, on the host, without the operator, if that can be."""
        if self._functions:
            return
        limit = float("inf") if self._epoch_limit is None else self._epoch_limit
        composite = bool(self._children)
        if all(replica.buffer.on_host and _on_host(replica.copied) for replica in self._replicas):
            self._direct = _C.DirectStep(self._guard, self._replicas, self.reads_metric, composite, limit)
            return
        copies = [copies_of(replica.program, replica.copied) if replica.copied else None for replica in self._replicas]
        steps_left = limit - self._epoch
        self._direct = _C.OperatorStep(self._guard, self._replicas, copies, self.reads_metric, composite, steps_left)

    def _call(self, metric: Any, event: int, found_inf: Tensor | None) -> None:
        for replica in self._replicas:
            replica.call(metric if self.reads_metric else None, event, found_inf)

    def move(self, scheduler: Any, event: Event, epoch: float = 0.0) -> bool:
        """Do what is not an ordinary step: see :class:`Event`. False, with nothing changed, if that cannot be done."""
        if self._is_stale(scheduler) and not self.rebuild(scheduler):
            return False
        if not has_values_for_groups(scheduler):
            return False  # torch raises where it needs the base LR of a group that was added later
        if self._epoch_limit is not None and epoch > self._epoch_limit:
            return False
        if self._momentum is not None and not self._momentum.step(scheduler, int(event), float(epoch)):
            return False
        if self._functions and not (event is Event.INITIAL and self._schedule == "MultiplicativeLR"):
            lrs = self._call_functions(scheduler, event, self._epoch + 1 if event is Event.INITIAL else epoch)
            if lrs is not None:
                scheduler._finish(lrs)
                return True
        self._direct = None
        if event is Event.INITIAL:
            self.order_unchecked = "_step_count" in self._counters  # warm restarts do not ask for an order
        for replica in self._replicas:
            buffer = replica.buffer
            copy_settings(replica.program, replica.settings)
            ops.step_(replica.program, replica.state, buffer.masters, buffer.lrs, None, float(epoch), int(event))
        self._epoch = self._epoch + 1 if event is Event.INITIAL else int(epoch)
        return True

    def _call_functions(self, scheduler: Any, event: Event, epoch: float) -> list[Any] | None:
        """Put the factors of this epoch into the program.

        As in torch the counters have gone on when the functions are called, and stay so if one raises.

        Returns:
            None; or, where a function has changed the scheduler or the groups, the learning rates that they are to get.
        """
        refuse_capture("it calls Python functions; give the scheduler total_steps=")
        attributes = instance_dict(scheduler)
        attributes["last_epoch"] = epoch
        groups = scheduler.optimizer.param_groups
        scaled = attributes["base_lrs"] if self._schedule == "LambdaLR" else [group["lr"] for group in groups]
        undisturbed = False
        try:
            factors = scheduler._factors()
            undisturbed = (
                attributes.get("last_epoch") == epoch and scheduler._engine is self and not self._is_replaced(groups)
            )
        finally:
            if undisturbed:
                attributes.pop("last_epoch", None)
            elif event is not Event.AT_EPOCH:
                attributes["_step_count"] = scheduler._step_count + 1
        if not undisturbed:
            return [lr * factor for lr, factor in zip(scaled, factors, strict=True)]
        numbers = [0.0 if isinstance(factor, Tensor) else float(factor) for factor in factors]
        for replica in self._replicas:
            at = replica.table(self._schedule)
            row = replica.program[at : at + len(numbers)]
            row.copy_(torch.tensor(numbers, dtype=torch.float64, device="cpu"), non_blocking=True)
            for column, factor in enumerate(factors):
                if isinstance(factor, Tensor):
                    row[column].copy_(factor.detach().reshape(()), non_blocking=True)
        return None

    def _is_replaced(self, groups: list[dict[str, Any]]) -> bool:
        """Whether a group has another LR tensor than the buffers say."""
        return (
            self._has_moved()
            or len(groups) != self._group_count
            or any(
                groups[position].get("lr") is not tensor
                for replica in self._replicas
                for position, tensor in replica.driven(replica.buffer.tensors)
            )
        )

    def check_order(self) -> None:
        self.order_unchecked = False
        for engine in self._children:
            engine.check_order()

    def get(self, name: str) -> Any:
        if name == LAST_LR:
            if not self._holds_children():
                raise AttributeError(name)
            lrs: list[Tensor] = [torch.empty(0)] * self._group_count
            for place, replica in enumerate(self._replicas):
                rounded = self._last_lr(place).to(replica.buffer.lrs.dtype, copy=True)
                for position, (lr, tensor) in replica.driven(
                    zip(rounded.unbind(), replica.buffer.tensors, strict=True)
                ):
                    lrs[position] = lr if tensor.dim() == 0 else lr.view(tensor.shape)
            return lrs
        if name == self._window:
            return self._replicas[0].window.tolist()
        counters = self._read_counters()
        if name not in counters:
            raise AttributeError(name)  # or one that need not be there
        return counters[name]

    def set(self, name: str, value: Any) -> bool:
        if name == LAST_LR:
            if self._children or not isinstance(value, (list, tuple)) or len(value) != self._group_count:
                return False
            value = list(value)
            if contains_tensors(value):
                self._take_last_lr(value)
                return True
            lrs = _floats(value, self._group_count)
            if lrs is None:
                return False
            lrs.append(nan)  # for entries of others, whose position is -1
            for replica in self._replicas:
                driven = [lrs[position] for position in replica.positions]
                values = torch.tensor(driven, dtype=torch.float64, device="cpu")
                replica.last_lr.copy_(replica.where_driven(values.to(replica.last_lr.device), replica.last_lr))
            return True
        if name == self._window:
            numbers = _floats(value, len(self._replicas[0].window))
            for replica in self._replicas if numbers is not None else []:
                replica.window.copy_(torch.tensor(numbers, dtype=torch.float64, device="cpu"))
            return numbers is not None
        packed = _C.pack_counter(self._schedule, name, value)
        if packed is None:
            return False
        if name == "_step_count":
            self._direct = None
            self.order_unchecked = value == 1
        elif name == "last_epoch":
            self._direct = None
            self._epoch = value
        for replica in self._replicas:
            replica.state[packed[0]] = packed[1]
        if self._momentum is not None:
            self._momentum.set(*packed)
        return True

    def peek(self, scheduler: Any) -> dict[str, Any]:
        """What :meth:`Replica.peek` reads, by name; ``"lrs"`` as the optimizer has them."""
        if self._has_moved() and not self.rebuild(scheduler):  # there are no tensors any more, for one
            scheduler._detach()
            scheduler._attach()
            return scheduler.peek()  # type: ignore[no-any-return]
        lrs = [0.0] * self._group_count
        counters: list[float] = []
        for replica in self._replicas:
            numbers = replica.peek()
            counters = counters or numbers[: _C.NODE_COUNTERS]
            masters = torch.tensor(numbers[_C.NODE_COUNTERS :], dtype=torch.float64, device="cpu")
            for position, lr in replica.driven(masters.to(replica.buffer.lrs.dtype).tolist()):
                lrs[position] = lr
        return {"lrs": lrs, **_C.unpack_counters(self._schedule, counters)}

    def state(self) -> dict[str, Any]:
        if not self._holds_children():
            return self._read_counters()
        lrs = [0.0] * self._group_count
        for place, replica in enumerate(self._replicas):
            for position, lr in replica.driven(self._last_lr(place).tolist()):
                lrs[position] = lr
        window = {} if self._window is None else {self._window: self._replicas[0].window.tolist()}
        return {**self._read_counters(), **window, LAST_LR: lrs}

    def expose_state(self, attributes: dict[str, Any]) -> None:
        self.withdraw_state(attributes)
        self._lent = {name: value for name, value in self.state().items() if name not in attributes}
        attributes.update(self._lent)

    def withdraw_state(self, attributes: dict[str, Any]) -> None:
        # Graph replays may have moved the state on since it was lent: an unchanged value is out of date, not new.
        lent, self._lent = self._lent, {}
        for name, value in lent.items():
            if attributes.get(name) is value:
                attributes.pop(name, None)  # or another thread has

    def by_python(self) -> list[str]:
        """What Python has to do at each step, and what to change."""
        reasons = []
        if self._functions:
            reasons.append("its functions are called by Python at each step; give it total_steps=")
        if isinstance(self._momentum, HostMomentum):
            reasons.append(
                "it cycles momentum that is a Python number, which Python writes; give the optimizer a tensor for it, "
                "or pass cycle_momentum=False"
            )
        return reasons

    def fits(self, scheduler: Any) -> bool:
        """Whether the next step can be made with what the tensors hold."""
        return not self._is_stale(scheduler) and (self._momentum is None or self._momentum.fits(scheduler))

    def holds(self, scheduler: Any) -> bool:
        """Whether the tensors hold all settings; unlike a step it looks for any of theirs that was moved elsewhere."""
        settings = itertools.chain.from_iterable(self._settings)
        return self.fits(scheduler) and not any(setting.scattered() for setting in settings)

    def row_of(self, tensors: list[Tensor]) -> Tensor | None:
        """The memory of tensors that are a setting."""
        settings = itertools.chain.from_iterable(self._settings)
        return next((setting.values for setting in settings if setting.is_of(setting.start, tensors)), None)

    def rebuild_between_steps(self, scheduler: Any) -> bool:
        """Follow what has changed, as the next eager step would; whether the same tensors go on as before.

        While torch.compile traces, nothing is changed, because what it has read by then would be out of date.
        """
        if self.fits(scheduler):
            return True
        if compiler_looks_on():
            return False
        before = self._compiled_for()
        try:
            followed = self.rebuild(scheduler)
        except Exception:
            return False  # which the eager step raises, that comes next
        after = self._compiled_for()
        return followed and len(before) == len(after) and all(map(operator.is_, before, after))

    def _compiled_for(self) -> list[object]:
        """What a compiled step has looked at, besides what the tensors hold."""
        looked_at: list[object] = [self.reads_metric, self._momentum]
        for replica in self._replicas:
            looked_at += (replica.program, replica.state, replica.buffer.masters, replica.buffer.lrs, replica.copied)
        if isinstance(self._momentum, TensorMomentum):
            looked_at += self._momentum.parts()
        return looked_at

    def refresh(self, scheduler: Any) -> None:
        """Upload the hyperparameters, so that compiled code and captured graphs see them at once."""
        if len(scheduler.optimizer.param_groups) != self._group_count or not has_values_for_groups(scheduler):
            return  # the next step makes new buffers, or finds that it cannot
        if self._has_moved():
            self.rebuild(scheduler)
            return
        refuse_capture("a hyperparameter was written; write it before the capture")
        # Where it does not go in place, the next step finds that and makes new buffers, or leaves the scheduler to
        # torch's code.
        buffers = [replica.buffer for replica in self._replicas]
        positions = [replica.positions for replica in self._replicas]
        if self._write_in_place(_nodes(scheduler, buffers, positions, self._children, self._settings)):
            self._collect_settings()
            if not self._fit_momentum(scheduler, self._replicas[0].counters):
                return  # the next step leaves the scheduler to torch's code
            self._epoch_limit = scheduler._epoch_limit()
            self._direct = None
            self._guard.record_attributes(scheduler)

    def newest_lrs(self) -> list[Tensor]:
        """Each group's learning rate in float64, a copy on its device."""
        lrs = [torch.empty(0)] * self._group_count
        for replica in self._replicas:
            for position, lr in replica.driven(replica.buffer.masters.clone().unbind()):
                lrs[position] = lr
        return lrs

    def resume(self) -> None:
        if self._has_moved() or not self._holds_children():
            return  # the next step chooses another engine
        for place, replica in enumerate(self._replicas):
            lrs = self._last_lr(place)
            replica.buffer.resume(replica.where_driven(lrs, lrs.new_tensor(nan)))  # of others' nothing is known

    def _lay_out(
        self,
        scheduler: Any,
        buffers: list[LRBuffer],
        positions: list[list[int]],
        nodes: list[Node],
        children: list[TensorEngine],
        counters: Tensor,
        window: Tensor,
    ) -> bool:
        """Make a program and a state for each buffer, those of the children inside; False where that cannot be.

        A state that fits is kept; all else gets new storage.
        """
        if not children and any(len(window) != node.window_size for node in nodes):
            _C.note_reason("the window of the last metrics has another size than before")
            return False
        last_lrs = {} if children or self._children else self._last_lr_by_group()
        replicas = []
        for place, (buffer, node) in enumerate(zip(buffers, nodes, strict=True)):
            parts = [engine._replicas[place] for engine in children]
            before = self._replicas[place] if not children and place < len(self._replicas) else None
            if before is not None and before.buffer is buffer:
                replicas.append(Replica(buffer, positions[place], node.program, before.state))
                replicas[-1].report_as(before)
                continue
            state = _state(counters, buffer, None if children else window)
            for slot, position in enumerate(positions[place]) if last_lrs else ():
                if position in last_lrs:
                    state[_C.NODE_STATE_SIZE + slot].copy_(last_lrs[position], non_blocking=True)
            program = torch.cat([node.program, *(part.program for part in parts)]) if parts else node.program
            state = joined([state, *(part.state for part in parts)]) if parts else state
            replicas.append(Replica(buffer, positions[place], program, state))
        for engine, child in zip(children, scheduler._children(), strict=True):
            engine.leave()
            engine._mark(child)
        self.leave()
        layouts = [replica.buffer.layout for replica in replicas]
        groups = len(scheduler.optimizer.param_groups)
        reads_metric = any(engine.reads_metric for engine in children) if children else self.reads_metric
        self._settings = [node.settings for node in nodes]
        # One statement, which no exception of a signal handler comes into: these belong together.
        self._replicas, self._layouts, self._children, self._group_count = replicas, layouts, children, groups
        self.reads_metric = reads_metric
        self._place_children()
        return True

    def _place_children(self) -> None:
        """Let the children go on in their slices."""
        for place, replica in enumerate(self._replicas):
            at = len(replica.program) - sum(len(engine._replicas[place].program) for engine in self._children)
            state_at = _C.NODE_STATE_SIZE
            for engine in self._children:
                own = engine._replicas[place]
                end, state_end = at + len(own.program), state_at + len(own.state)
                own.place(replica.program[at:end], replica.state[state_at:state_end])
                engine._direct = None
                at, state_at = end, state_end
        for engine in self._children:
            engine._place_children()

    def recorders(self) -> list[Replica]:
        return self._replicas

    def leave(self) -> None:
        self._guard.invalidate()
        self._guard = _C.Guard(self._schedule)
        self._direct = None

    def _write_in_place(self, nodes: list[Node] | None) -> bool:
        """Write new nodes over the old ones; False, with nothing written, if they have another size."""
        if nodes is None:
            return False
        olds = []
        for place, replica in enumerate(self._replicas):
            children = sum(len(engine._replicas[place].program) for engine in self._children)
            olds.append(replica.program[: len(replica.program) - children])
        if any(old.shape != new.program.shape for old, new in zip(olds, nodes, strict=True)):
            return False
        if not self._children and any(len(self._replicas[0].window) != new.window_size for new in nodes):
            return False
        for old, new in zip(olds, nodes, strict=True):
            old.copy_(new.program, non_blocking=True)
        settings = [node.settings for node in nodes]
        if not all(map(same_settings, settings, self._settings)):
            self.leave()  # a composition that has this in it copies the old ones
            self._settings = settings
        return True

    def _last_lr(self, place: int) -> Tensor:
        """Float64 learning rates as the schedule last left them; for a composition, as its last child did.

        What that child does not drive is as it is.
        """
        replica = self._replicas[place]
        if not self._children:
            return replica.last_lr
        last = self._children[-1:] if self._schedule == "ChainedScheduler" else self._children
        masters = replica.buffer.masters
        left = [engine._replicas[place].where_driven(engine._last_lr(place), masters) for engine in last]
        if len(left) == 1:
            return left[0]
        # Whose turn it was is known on the device only.
        at = replica.table(self._schedule)
        milestones = replica.program[at : at + len(self._children) - 1]
        turn = torch.bucketize(replica.counters[:1], milestones, right=True)
        return torch.stack(left).index_select(0, turn)[0]

    def _last_lr_by_group(self) -> dict[int, Tensor]:
        """A leaf's own last learning rates, by the positions that the groups had then."""
        return {position: lr for replica in self._replicas for position, lr in replica.driven(replica.last_lr.unbind())}

    def _fit_momentum(self, scheduler: Any, counters: Tensor) -> bool:
        """Cycle momentum or not, as the scheduler says now; False if it cannot be done."""
        if not cycles_momentum(scheduler):
            self._momentum = None
        elif self._momentum is None:
            self._momentum = cycle_momentum(scheduler, counters.tolist())
            self.leave()  # a composition that has this in it would not cycle it
            return self._momentum is not None
        else:
            return self._momentum.rebuild(scheduler)
        return True

    def _take_last_lr(self, lrs: list[Any]) -> None:
        """Keep the last LRs that another engine or torch's code left; in full precision where that is known.

        A learning rate in a tensor of fewer bits, loaded from a checkpoint for one, goes on from the number that the
        scheduler has for it.
        """
        for replica in self._replicas:
            buffer, last = replica.buffer, replica.last_lr
            masters, rounded = buffer.masters, buffer.lrs.detach()
            # Without those of another scheduler, and of groups that came later.
            known = [slot for slot, index in enumerate(replica.positions) if 0 <= index < len(lrs)]
            numbers = [slot for slot in known if not isinstance(lrs[replica.positions[slot]], Tensor)]
            tensors = sorted({*known}.difference(numbers)) if numbers else known
            if tensors:
                slots = torch.tensor(tensors, device=last.device)
                left = _in_a_vector([lrs[replica.positions[slot]] for slot in tensors], last.device)
                for better in (masters[slots], last[slots]):
                    left = torch.where(better.to(rounded.dtype) == left.to(rounded.dtype), better, left)
                last[slots] = left
            if numbers:
                slots = torch.tensor(numbers, device=last.device)
                floats = [float(lrs[replica.positions[slot]]) for slot in numbers]
                left = torch.tensor(floats, dtype=torch.float64, device=last.device)
                now, master = rounded[slots], masters[slots]
                agree = (master == now.double()) & (left.to(now.dtype) == now)
                last[slots] = left
                masters[slots] = torch.where(agree, left, master)

    def _read_counters(self) -> dict[str, Any]:
        # All replicas decide alike, so the first speaks for them.
        values: dict[str, Any] = _C.unpack_counters(self._schedule, self._replicas[0].counters.tolist())
        return values

    @torch.inference_mode(False)
    def rebuild(self, scheduler: Any) -> bool:
        """Catch up with whatever was done to the scheduler's attributes or the optimizer's groups."""
        refuse_capture("the scheduler's attributes or the optimizer's groups were changed; step once before capturing")
        if scheduler._engine is not self:
            return False  # another thread has given it to another engine
        attributes = instance_dict(scheduler)
        self.withdraw_state(attributes)
        for name in (*self._counters, LAST_LR, self._window):
            if name in attributes:
                if not self.set(name, attributes[name]):
                    return False
                attributes.pop(name, None)
        first = self._replicas[0]
        return bool(self._build(scheduler, first.counters, first.window))

    @untraced(OFF_PATH)
    def _build(self, scheduler: Any, counters: Tensor, window: Tensor) -> bool:
        """Make program and state fit the scheduler's attributes and the optimizer's groups, in place if possible.

        A new state begins with ``counters`` and, in a leaf, the last metrics, ``window``. False if it cannot be done.
        """
        scheduler._fit_groups()
        buffers = lr_buffer.bind(scheduler.optimizer)  # first: it may lay out those of its children anew
        children = _engines_of_children(scheduler, buffers) if buffers is not None else None
        if buffers is None or children is None:
            return False
        positions = lr_buffer.positions(scheduler.optimizer, buffers)
        nodes = _nodes(scheduler, buffers, positions, children)
        if nodes is None:
            return False
        in_place = (
            bool(self._replicas)
            and [replica.buffer for replica in self._replicas] == buffers
            and [replica.positions for replica in self._replicas] == positions
            and children == self._children
            and self._holds_children()
            and self._write_in_place(nodes)
        )
        if not in_place and not self._lay_out(scheduler, buffers, positions, nodes, children, counters, window):
            return False
        if not self._fit_momentum(scheduler, counters):
            return False
        self._epoch_limit = scheduler._epoch_limit()
        self._mark(scheduler)
        return True

    def _is_stale(self, scheduler: Any) -> bool:
        """Whether something that the buffers were built from is not what it was."""
        return self._has_moved() or not self._guard.holds(scheduler) or self._settings_moved()

    def _settings_moved(self) -> bool:
        return any(setting.moved() for replica in self._replicas for setting in replica.settings)

    def _has_moved(self) -> bool:
        """Whether the LR buffers are laid out in another way, or are not the optimizer's any more."""
        for replica, layout in zip(self._replicas, self._layouts, strict=True):
            if replica.buffer.layout is not layout:
                return True
        return False

    def _holds_children(self) -> bool:
        """Whether the children are still where they were put, within the state of this one."""
        here = self._guard.holds_children([engine._guard for engine in self._children])
        return here and all(engine._holds_children() for engine in self._children)

    def _collect_settings(self) -> None:
        """Have steps copy the settings that are tensors, those of the children too."""
        # A sequence begins its children on the device, which takes the base learning rates of all of them.
        begins = self._schedule == "SequentialLR"
        for place, replica in enumerate(self._replicas):
            settings = list(self._settings[place])
            copied = list(settings) if begins or _C.steps_use_own(self._schedule) else []
            at = len(replica.program) - sum(len(engine._replicas[place].program) for engine in self._children)
            for engine in self._children:
                own = engine._replicas[place]
                settings += [setting.within(at) for setting in own.settings]
                copied += [setting.within(at) for setting in (own.settings if begins else own.copied)]
                at += len(own.program)
            if not same_settings(settings, replica.settings):
                replica.settings = settings
                if not replica.buffer.on_host:
                    replica.keep([setting.values for setting in settings])  # captured graphs read them
            if not same_settings(copied, replica.copied):  # compiled steps were made for these very objects
                replica.copied = copied

    def _mark(self, scheduler: Any) -> None:
        self._direct = None
        self._collect_settings()
        self._layouts = [replica.buffer.layout for replica in self._replicas]
        if scheduler._history is not None:
            scheduler._history.install(self.recorders())
        self._guard.record_attributes(scheduler)
        self._guard.record_groups(scheduler.optimizer)
        self._guard.record_children(list(scheduler._children()), [engine._guard for engine in self._children])


def _engines_of_children(scheduler: Any, buffers: list[LRBuffer]) -> list[TensorEngine] | None:
    """The engines of the scheduler's children, up to date; None where one cannot be part of one program over these."""
    children = scheduler._children()
    if not children and hasattr(scheduler, "_schedulers"):
        _C.note_reason("it has no schedulers left")
        return None  # torch raises there
    everything = _descendants(scheduler)
    if len({id(child) for child in everything}) != len(everything):
        _C.note_reason("a scheduler is in it twice, which has one state and not two; construct another")
        return None
    if not all(has_values_for_groups(child) for child in scheduler._yet_to_begin()):
        _C.note_reason("a scheduler that is yet to begin has no base learning rate for some param group")
        return None  # torch raises there
    engines = []
    for child in children:
        if not is_native(child):
            return None
        if not isinstance(child._engine, TensorEngine):
            child._detach()
            child._attach()
        engine = child._engine
        if not isinstance(engine, TensorEngine):
            _C.note_reason(f"{type(child).__name__}, which is one of its schedulers: {_C.take_reason()}")
            return None
        if engine._is_stale(child) and not engine.rebuild(child):
            return None
        if engine._momentum is not None or engine._functions:
            its = "cycles momentum" if engine._momentum is not None else "calls functions; give it total_steps="
            _C.note_reason(f"{type(child).__name__}, which is one of its schedulers, {its}")
            return None
        if [replica.buffer for replica in engine._replicas] != buffers:
            _C.note_reason(f"{type(child).__name__}, which is one of its schedulers, drives other groups or entries")
            return None
        engines.append(engine)
    return engines


def is_native(child: Any) -> bool:
    """Whether an engine may step a composition's child without asking its Python."""
    if hasattr(type(child), "_schedule"):
        return child._is_native()  # type: ignore[no-any-return]
    _C.note_reason(f"{type(child).__name__} is not one of fastsched's schedulers; construct the one of that name")
    return False


def _descendants(scheduler: Any) -> list[Any]:
    found = []
    for child in scheduler._children():
        found.append(child)
        if hasattr(type(child), "_schedule"):
            found += _descendants(child)
    return found


def _nodes(
    scheduler: Any,
    buffers: list[LRBuffer],
    positions: list[list[int]],
    children: list[TensorEngine],
    known: list[list[Setting]] | None = None,
) -> list[Node] | None:
    """The scheduler's own node for each buffer, on its device; None if a hyperparameter is not a plain number.

    ``known`` are the settings of those before, for the same buffers.
    """
    if len(buffers) > 1 and _C.decides_by_all_groups(scheduler._schedule):
        _C.note_reason(
            "what it decides depends on all learning rates, and these are of several dtypes, or on several devices, "
            "where one operator does not see all of them"
        )
        return None
    table = scheduler._table()
    owns = own_values(scheduler, _C.own_params(scheduler._schedule), table)
    if owns is None:
        return None
    nodes = []
    for place, buffer in enumerate(buffers):
        parts = [engine._replicas[place] for engine in children]
        sizes = Children(
            len(children), sum(len(part.program) for part in parts), sum(len(part.state) for part in parts)
        )
        packed = pack(scheduler, owns, positions[place], table, sizes)
        if packed is None:
            return None
        before = known[place] if known is not None else ()
        nodes.append(upload(packed, owns, positions[place], buffer.device, before))
    return nodes


def _on_host(settings: list[Setting]) -> bool:
    return all(setting.values.is_cpu and setting.values.dtype in LR_DTYPES for setting in settings)


def _state(counters: Tensor, buffer: LRBuffer, window: Tensor | None) -> Tensor:
    """A state tensor on the buffer's device: counters, room for a step, a leaf's last learning rates and metrics."""
    buffer.adopt_external_writes()
    groups = 0 if window is None else len(buffer.indices)
    state = torch.zeros(_C.NODE_STATE_SIZE + groups, dtype=torch.float64, device=buffer.device)
    state[: _C.NODE_COUNTERS].copy_(counters, non_blocking=True)
    if window is None:
        return state
    state[_C.NODE_STATE_SIZE :].copy_(buffer.masters)
    return torch.cat([state, window.to(buffer.device, non_blocking=True)]) if len(window) else state


def _in_a_vector(lrs: list[Tensor], device: torch.device) -> Tensor:
    """Tensors of one number each in one of float64."""
    if lr_buffer.place_of_all(lrs) is None:
        lrs = [lr.to(device, torch.float64, non_blocking=True) for lr in lrs]
    return lr_buffer.stack_scalars(lrs).to(device, torch.float64, non_blocking=True)


def _floats(lrs: Any, count: int) -> list[float] | None:
    if not isinstance(lrs, (list, tuple)) or len(lrs) != count:
        return None
    lrs = list(lrs)
    return lrs if _C.types_of(lrs) == {float} else list(map(float, lrs))
