"""What every fastsched scheduler has in common: an engine that steps it and torch's face around that."""

from __future__ import annotations

import copyreg
import functools
import inspect
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from ..engine import lr_buffer
from ..engine.added_groups import take_in
from ..engine.arrivals import Arrivals
from ..engine.capture import refuse_capture
from ..engine.checkpoint import checked
from ..engine.host import DETACHED, Engine, Observer, StateAttribute, attach, take_numbers
from ..engine.metric import completed
from ..engine.program import LAST_LR, Table, contains_tensors, instance_dict, refuse_endless, whole
from ..engine.reduction import Reduction
from ..engine.representation import counted, described, shown
from ..engine.selection import LR, Selection, name_of, optimizers_of
from ..engine.tensor import TensorEngine
from ..engine.untraced import OFF_PATH, compiler_looks_on, untraced

if TYPE_CHECKING:
    from typing_extensions import Never

_log = logging.getLogger("fastsched")
# Slots of a scheduler that nothing has happened to.
_FIRST: Mapping[str, Any] = {
    "_engine": DETACHED,
    "_fallback": None,
    "_first_lrs": None,
    "_history": None,
    "_reduction": None,
    "_deferred": None,
    "_is_attended": False,
}


class _EngineScheduler(LRScheduler):
    """A torch scheduler that an engine steps where it can.

    A concrete class names its compiled schedule in ``_schedule`` and, in ``_replaces``, the torch methods whose
    work the engine does. Where one of those is not torch's, because a user's subclass overrides it or somebody
    replaced it on the object, torch's own code steps and calls it.
    """

    __slots__ = (
        "_begun_groups",
        "_deferred",
        "_engine",
        "_fallback",
        "_first_lrs",
        "_history",
        "_is_attended",
        "_logged",
        "_reduction",
    )

    _engine: Engine
    _fallback: tuple[str, Any] | None  # why torch's code made a step, and to which epoch
    _history: Observer | None
    _logged: set[str]  # what the log has been told of it
    _reduction: Reduction | None  # what is done to a metric before a step; None where nothing is
    _deferred: Arrivals | None  # metrics that are yet to be decided by; None where steps decide at once
    _is_attended: bool  # there is one of these two: steps look at this only
    _begun_groups: list[int]  # those without an initial LR when construction began
    _first_lrs: list[Any] | None  # the learning rates that construction left; None where it did not begin at epoch 0
    _schedule: ClassVar[str]
    _replaces: ClassVar[tuple[str, ...]]
    _hyperparameters: ClassVar[frozenset[str]] = frozenset()  # the attributes that engines read
    _counters: ClassVar[tuple[str, ...]] = ()
    _held: ClassVar[tuple[str, ...]] = ()  # the attributes that an engine holds while it is attached
    _optional: ClassVar[dict[str, Any]] = {}  # attributes that need not be there, and what they are then
    _native: ClassVar[dict[str, Any]] = {}  # what the attributes that engines replace or hold are by default
    _native_step: ClassVar[Any] = None
    _takes_metrics: ClassVar[bool] = False
    _why_off_path: ClassVar[str] = "it is the first step, or its settings changed; step once before capturing"
    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer",)  # what a state_dict leaves out

    if not TYPE_CHECKING:  # a checker would look at these arguments instead of at those of __init__

        def __new__(cls, *_args: object, **_kwargs: object) -> _EngineScheduler:
            scheduler = super().__new__(cls)
            object.__setattr__(scheduler, "_begun_groups", [])
            scheduler._put_slots(_FIRST)
            return scheduler

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What Python would take from __new__, which takes any.
        arguments = inspect.signature(cls.__init__)
        cls.__signature__ = arguments.replace(parameters=list(arguments.parameters.values())[1:])  # type: ignore[attr-defined]
        if "_schedule" in vars(cls):
            counters = _C.counter_names(cls._schedule)
            cls._optional = _C.optional_attributes(cls._schedule)
            cls._counters = tuple(name for name in counters if name not in cls._optional)
            window = _C.window_name(cls._schedule)
            cls._held = (*counters, LAST_LR, *([] if window is None else [window]))
            for name in cls._held:
                attribute = StateAttribute()
                attribute.__set_name__(cls, name)
                setattr(cls, name, attribute)
            cls._native_step = cls.step
            cls._hyperparameters = frozenset(_C.ATTRIBUTES[cls._schedule]).difference(cls._held)
            cls._native = {name: getattr(cls, name, None) for name in (*cls._held, *cls._replaces)}

    @untraced("engines take note of it")
    def __setattr__(self, name: str, value: Never) -> None:  # no value: a checker takes no name that is not declared
        if name in self._replaces:
            self._detach()
        elif name == "optimizer":  # torch's constructors set it first, and initial LRs then
            groups = getattr(value, "param_groups", ())
            begun = [index for index, group in enumerate(groups) if "initial_lr" not in group]
            object.__setattr__(self, "_begun_groups", begun)
        elif name == "base_lrs" and self._engine is DETACHED:
            attributes = instance_dict(self)
            if "optimizer" in attributes and "last_epoch" not in attributes:
                for optimizer in optimizers_of(self.optimizer):
                    # torch's constructor, which is at work, wraps methods only, and those of one optimizer.
                    _notice_steps(optimizer, methods=isinstance(self.optimizer, Selection))
        if name in self._hyperparameters:
            same = value is instance_dict(self).get(name) and type(value) in (float, int, str)
            super().__setattr__(name, value)
            if not same:
                self._engine.refresh(self)
        else:
            super().__setattr__(name, value)

    @_C.untraced_property
    @untraced("it copies counters and learning rates into the dict")
    def __dict__(self) -> dict[str, Any]:
        """The object's own dict with the whole state in it, for code that reads or writes that directly.

        With learning rates on a CUDA device, or with metrics on their way from one, this waits for the device.
        torch.compile, which looks at it while tracing, sees the dict as it is.
        """
        attributes = instance_dict(self)
        if not compiler_looks_on():
            self._catch_up()
            self._engine.expose_state(attributes)
        return attributes

    @_C.untraced_property
    @untraced("it looks at Python objects")
    def _followed(self) -> bool:
        """Whether tensors are there to step that hold what the user has set: what a compiled step stands on.

        Before each compiled step torch.compile reads this again, as one of its guards. So what was done since to
        attributes and groups, which compiled code cannot see, is followed just then. False where that gave other
        tensors than the code was compiled for, and where only an eager step can go on.
        """
        return self._engine.rebuild_between_steps(self)

    def _put_slots(self, values: Mapping[str, Any]) -> None:
        """Past what assignments mean to a scheduler."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _state(self) -> dict[str, Any]:
        attributes = instance_dict(self)
        while True:
            engine = self._engine
            engine.withdraw_state(attributes)
            state = {**engine.state(), **attributes}
            if self._engine is engine:  # and not another, which another thread has meanwhile put in charge
                for name, value in self._optional.items():
                    if name in state and state[name] == value:
                        del state[name]
                return state

    def __repr__(self) -> str:
        """Settings and where it is; what only a device knows is left there."""
        texts = {name: shown(value) for name, value in self._settings().items()}
        engine = self._engine
        devices = engine.devices if engine.steps_tensors else []
        if any(device != "cpu" for device in devices) or hasattr(self, "last_epoch"):
            texts["last_epoch"] = counted(devices, lambda: self.last_epoch)
        texts["engine"] = engine.kind
        return described(self, texts)

    def _settings(self) -> dict[str, Any]:
        """What the constructor was given, as far as attributes say it; torch calls what groups have by the plural."""
        attributes = instance_dict(self)
        settings = {}
        for name in inspect.signature(type(self).__init__).parameters:
            of_groups: Any = attributes.get(f"{name}s")
            value: Any = attributes.get(name, attributes.get(f"_{name}", of_groups))
            if isinstance(value, list) and value is of_groups and len(set(map(shown, value))) == 1:
                value = value[0]
            if value is not None and name != "optimizer" and name not in self._held:
                settings[name] = value
        if name_of(getattr(self, "optimizer", None)) != LR:
            settings["param_name"] = name_of(self.optimizer)
        if self._deferred is not None:
            settings["deferred"] = True
        return settings

    def __getstate__(self) -> Any:
        self._catch_up()
        slots = {
            name: getattr(self, name)
            for name in copyreg._slotnames(type(self))  # type: ignore[attr-defined]
            if name not in _EngineScheduler.__slots__ and hasattr(self, name)
        }
        if self._reduction is not None:
            slots["_reduction"] = self._reduction  # which leaves its process group here
        if self._deferred is not None:
            slots["_deferred"] = Arrivals()
        return (self._state(), slots) if slots else self._state()

    def __setstate__(self, state: Any) -> None:
        state, slots = state if isinstance(state, tuple) else (state, {})
        self._put_slots(_FIRST)
        instance_dict(self).update(state)
        self._put_slots(slots)
        self._attend()
        # An optimizer that is still being unpickled, because it refers back to its scheduler, has no groups
        # yet. Then, and where attaching fails, the first step attaches or says what is wrong.
        with suppress(AttributeError, RuntimeError):
            self._attach(restore=True)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state under torch's keys.

        Plain Python values: it loads into torch's scheduler of the same name, and from a file with
        ``torch.load(..., weights_only=True)``. Of a scheduler of another entry than ``"lr"`` it says which, under
        ``"param_name"``. Settings that are NumPy numbers stay that, because Python computes with
        them in another way; torch has to be told that they are safe. ``_last_lr`` holds the float64 learning rates, so
        that resuming loses nothing to the rounding of a float32 LR tensor.

        With learning rates on a CUDA device this waits for the device, and with ``deferred=True`` for all metrics.
        """
        self._catch_up()
        state = {name: _plain(value) for name, value in self._state().items() if name not in self._unsaved}
        return state if self.param_name == LR else {**state, "param_name": self.param_name}

    @property
    def param_name(self) -> str:
        """The entry of the param groups that this scheduler drives, ``"lr"`` if nothing else was asked for."""
        return name_of(instance_dict(self).get("optimizer"))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state from :meth:`state_dict`, of this class or of torch's.

        Never writes the optimizer's learning rates, and may be called before or after the optimizer's state is loaded.
        With as many param groups as were saved, tensors keep their storage, so that a captured CUDA graph goes on from
        the loaded state; with another number the next step does as torch's. Settings that the state lacks stay as they
        are, and what else is in it is kept as an attribute, as in torch. The state of a function is loaded into the
        function, and a composition's with those of all children. May wait for a device that settings or states are on.

        Raises:
            TypeError, ValueError, KeyError: a step could not go on from this state; names the key and what is expected.
                Then nothing is changed.
            RuntimeError: inside CUDA graph capture.
            Exception: whatever a child of another library raises; all children have their old state then.
        """
        if self._engine.steps_tensors:
            refuse_capture("a state is loaded; load it before the capture")
        state = self._checked(state_dict, "state_dict")
        self._write_lrs(state)
        self._load(state)

    def add_groups(self) -> None:
        """Take in the param groups that came after the scheduler was made: for unfreezing layers, for one.

        Without it they are as in torch, where some classes raise at the next step, and some when they need the base
        learning rate. With it each of these groups has for its base its ``initial_lr``, or else the learning rate that
        it has now, which is noted down as such; the schedule goes on from the present step. What else there is one of
        for each group is that of the last group before: bounds, ``swa_lr``, functions, momenta. ``max_lr`` and
        ``min_lr`` of a ``OneCycleLR`` have that one's ratio to the initial learning rate.

        Of a composition all children take them in, those of torch's too. A scheduler with ``groups=`` takes in those
        that the function is true of, and none if it was given positions; one of all groups takes in all.

        Raises:
            RuntimeError: inside CUDA graph capture; capture the graph again afterwards.
            ValueError, TypeError: a new group has no entry ``param_name``, or one that is not a number.

        Without new groups it changes nothing. Does not wait for the device. A compiled step is compiled again.

        Example::

            optimizer.add_param_group({"params": backbone.parameters(), "lr": 1e-4})
            scheduler.add_groups()
        """
        refuse_capture("groups are taken in; call add_groups() before the capture")
        for child in self._children():
            child.add_groups() if isinstance(child, _EngineScheduler) else take_in(child)
        self._detach()
        self._take_in_groups()
        self._attach()

    def lr_at(self, step: int) -> list[float]:
        """The learning rates after ``step`` steps from the beginning, one per param group, without stepping.

        With the settings as they are now, from the learning rates that construction left, or after loading a state
        from the initial ones; of what was written to learning rates in between nothing is known. Agrees with stepping
        to the last bit: it runs the same steps on the host, in a few nanoseconds each for every group.

        Args:
            step: how many calls of ``step()``; 0 gives the learning rates that construction leaves.

        Returns:
            Python numbers, rounded to the learning rate's dtype where that is a tensor.

        Raises:
            NotImplementedError: the learning rates do not depend on the step alone: a metric decides, or code of
                yours.
            TypeError, ValueError: ``step`` is not a whole number, or negative, or beyond what the schedule has, or so
                large that getting there would take more than about ten minutes, or gigabytes of memory.

        Changes nothing, and may be interrupted (Ctrl-C). Waits for the device if there are settings or initial learning
        rates on one.
        """
        if not isinstance(step, int) or isinstance(step, bool):
            raise TypeError(f"step must be an int, got {type(step).__name__}")
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        limit = self._epoch_limit()
        if limit is not None and step > limit:
            raise ValueError(f"step must be at most {limit}, the schedule's total_steps; got {step}")
        refuse_endless(self, step)
        groups = self.optimizer.param_groups
        initial = [float(lr) for lr in self._initial_lrs()]
        first = self._first_lrs if self._first_lrs is not None and len(self._first_lrs) == len(groups) else []
        lrs = _C.run_program(whole(self, step), initial, [float(lr) for lr in first], step)
        return [
            torch.tensor(lr, dtype=group["lr"].dtype, device="cpu").item() if isinstance(group["lr"], Tensor) else lr
            for lr, group in zip(lrs, groups, strict=True)
        ]

    def peek(self) -> dict[str, Any]:
        """The newest learning rates and counters that have reached the host, without waiting for a device.

        Returns:
            ``"lrs"``, one Python number per param group, and the counters by name: ``"last_epoch"``, and of a plateau
            ``"best"``, ``"num_bad_epochs"``, ``"cooldown_counter"``.

        With tensor learning rates on a CUDA device the first call waits, and has every later step, graph replays
        included, write its results to pinned memory as well; what a later call returns may be a step or two old. It
        cannot be called first inside graph capture. Otherwise it returns what there is now.
        """
        engine = self._engine
        if engine.steps_tensors:
            return engine.peek(self)
        state = self._state()
        counters = {name: state[name] for name in _C.counter_names(self._schedule) if name in state}
        return {"lrs": [float(group["lr"]) for group in self.optimizer.param_groups], **counters}

    def _step_unless(self, found_inf: Any, metrics: Any) -> None:
        """Step, unless ``found_inf`` is not 0: that is decided on the device, where the learning rates are."""
        if not isinstance(found_inf, Tensor):
            refuse_capture("found_inf is a number, which would be frozen; pass a tensor on the device")
            if not found_inf:
                self._step_plainly(metrics)
            return
        found_inf = one_element(found_inf)
        engine = self._engine
        if engine.steps_tensors:
            declined = engine.step(self, metrics, found_inf)
            if declined is None:
                return
            metrics = metrics if declined.metric is None else declined.metric
        self._step_unless_off_path(found_inf, metrics)

    @untraced(OFF_PATH)
    def _step_unless_off_path(self, found_inf: Tensor, metrics: Any) -> None:
        refuse_capture("found_inf is read by Python; step once before capturing")
        self._step_unless(bool(found_inf.item()), metrics)

    def _step_plainly(self, metrics: Any) -> None:
        """Step, with a metric that needs nothing done to it any more."""
        declined = self._engine.step(self, metrics)
        if declined is not None:
            self._step_off_path(declined, metrics)

    @untraced(OFF_PATH)
    def _step_off_path(self, declined: _C.Declined, metrics: Any = None) -> None:
        """Make a step that an engine has declined: something is not what it was when the engine was chosen.

        By the same engine where all it waited for was a look at the order of steps, by the one that is chosen now, or
        by torch's code.
        """
        refuse_capture(self._why_off_path)
        looked = self._warn_at_first_step()
        for attached_before in (True, False):
            if attached_before or self._attach():
                if declined.metric is not None:
                    metrics = declined.metric  # converted: it is read once
                self._check_order(metrics, looked)
                again = self._engine.step(self, metrics)
                if again is None:
                    return
                declined = again
            if declined.lrs is not None:
                self._finish(declined.lrs)
                return
            self._detach()
        self._fall_back()
        self._expect_step()
        self._step_as_torch(metrics if declined.metric is None else declined.metric)
        self._stepped_by_torch(metrics)

    def _warn_at_first_step(self) -> bool:
        """Look whether ``optimizer.step()`` came first, where torch does; whether this was such a step."""
        return False

    def _check_order(self, metrics: Any, looked: bool) -> None:
        """Let the engine step although it is the first step, which was looked at, or may be: a device knows which."""
        if looked or self._engine.steps_tensors:
            self._engine.check_order()

    def _finish(self, lrs: list[Any]) -> None:
        """Do the rest of a step whose learning rates the engine could only compute."""
        raise NotImplementedError

    def _step_as_torch(self, metrics: Any) -> None:
        """Step by torch's own code; all state is in ``__dict__``."""
        raise NotImplementedError

    def _attend(self, **what: Any) -> None:
        """Have steps do this to a metric first: what :attr:`_reduction` and :attr:`_deferred` are for."""
        self._put_slots(what)
        object.__setattr__(self, "_is_attended", self._reduction is not None or self._deferred is not None)

    def _catch_up(self) -> None:
        """Have all decided that metrics were given for, before the state is looked at; waits for them."""

    def _observe(self, history: Observer | None) -> None:
        object.__setattr__(self, "_history", history)

    def _expect_step(self) -> None:
        """Python is going to make a step."""
        if self._history is not None:
            self._history.expect(self)

    def _note(self, metrics: Any) -> None:
        """A step was made by Python; engines that hold the state record theirs themselves."""
        if self._history is not None:
            self._history.note(self, metrics)

    def _stepped_by_torch(self, metrics: Any) -> None:
        if self._fallback is not None:
            object.__setattr__(self, "_fallback", (self._fallback[0], instance_dict(self).get("last_epoch")))
        self._note(metrics)

    def _note_first_lrs(self) -> None:
        """Construction is over, and began at epoch 0."""
        engine = self._engine
        lrs: list[Any]
        lrs = list(engine.newest_lrs()) if engine.steps_tensors else lr_buffer.copied_lrs(self.optimizer)
        object.__setattr__(self, "_first_lrs", lrs)

    def _take_exact_bases(self) -> None:
        """Begin from the float64 learning rates, where torch's constructor has just copied their roundings."""
        begun, self._begun_groups = self._begun_groups, []
        if begun and lr_buffer.is_bound(self.optimizer):
            lrs = lr_buffer.exact(self.optimizer)
            groups, copies = self.optimizer.param_groups, lr_buffer.copies(lrs)
            for index in begun:
                if "initial_lr" in groups[index] and isinstance(lrs[index], Tensor):
                    groups[index]["initial_lr"] = lrs[index]
                    self.base_lrs[index] = copies[index]

    def _take_in_groups(self) -> None:
        if isinstance(self.optimizer, Selection):
            self.optimizer.take_in()
        take_in(self)

    def _children(self) -> Sequence[Any]:
        """The schedulers that a composition is made of."""
        return ()

    def _yet_to_begin(self) -> Iterator[Any]:
        """The schedulers in a composition that will begin in the middle of the run, by their closed form."""
        return iter(())

    def _initial_lrs(self) -> list[Any]:
        """Each group's LR where its schedule began."""
        bases = instance_dict(self).get("base_lrs", [])
        groups = self.optimizer.param_groups
        fallbacks = bases if len(bases) == len(groups) else [group["lr"] for group in groups]
        return [group.get("initial_lr", lr) for group, lr in zip(groups, fallbacks, strict=True)]

    def _group_values(self, name: str) -> list[Any]:
        """What the groups have under this name."""
        return [group[name] for group in self.optimizer.param_groups if name in group]

    def _fit_groups(self) -> None:
        """Bring per-group hyperparameters to the optimizer's number of groups, or raise as torch would."""

    def _table(self) -> Table | None:
        """The factors of a scheduler that calls functions, for stepping on the device; None if it cannot be so."""
        return None

    def _calls_functions(self) -> bool:
        """Whether functions of the user's give a factor for each group at every step."""
        return False

    def _factors(self) -> list[Any]:
        """What they give for the present epoch."""
        raise NotImplementedError

    def _tabulate(self, steps: int) -> Table | None:
        """The factors for epochs up to ``steps``, from functions called now."""
        return None

    def _epoch_limit(self) -> int | None:
        """The last epoch that there is, where stepping on is an error."""
        return None

    def _expressible(self) -> bool:
        """Whether this object's settings are among those that engines know."""
        return True

    def _state_without_engine(self, name: str) -> Any:
        """A counter or ``_last_lr`` that neither the engine nor ``__dict__`` has."""
        if name in self._optional:
            return self._optional[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _is_native(self) -> bool:
        """Whether an engine does what this object would do by its own code, ``step`` included."""
        if type(self).step is not type(self)._native_step or "step" in instance_dict(self):
            self._note_own_code("step")
            return False
        return self._decides_natively()

    def _decides_natively(self) -> bool:
        attributes = instance_dict(self)
        for name in self._replaces:
            if name in attributes:
                self._note_own_code(name)
                return False
        for name, attribute in self._native.items():
            if getattr(type(self), name, None) is not attribute:
                self._note_own_code(name)
                return False
        if not self._expressible():
            _C.note_reason("a function decides that was given to it, or written into it, for one that engines know")
            return False
        return True

    def _note_own_code(self, name: str) -> None:
        owner = next((kind.__name__ for kind in type(self).__mro__ if name in vars(kind)), "somebody")
        whose = f"the object's own `{name}`" if name in instance_dict(self) else f"{owner} overrides `{name}`, which"
        _C.note_reason(f"{whose} is Python code")

    def _require_function_of_step(self) -> None:
        """Raise NotImplementedError if the learning rates do not depend on the step alone."""
        name = type(self).__name__
        if _C.reads_metric(self._schedule):
            raise NotImplementedError(f"{name}.lr_at: a metric decides the learning rates; step it with the metrics")
        if not self._is_native():
            raise NotImplementedError(f"{name}.lr_at: its own code decides the learning rates; step it")
        for child in self._children():
            if not isinstance(child, _EngineScheduler):
                raise NotImplementedError(f"{name}.lr_at: {type(child).__name__} is not one of fastsched's schedulers")

    @untraced("it chooses an engine")
    def _attach(self, *, restore: bool = False) -> bool:
        """Put the engine in charge that fits the optimizer as it is now; False if none does.

        At every moment the state is in ``__dict__``, or with an engine that is in charge, or the same in both: whatever
        interrupts this (Ctrl-C, another thread) finds it whole.
        """
        if not self._decides_natively():
            return False
        if self._engine is DETACHED:
            engine = attach(self, restore=restore)
            if engine is not DETACHED:
                _C.put_in_charge(self, DETACHED, engine, self._held if engine.holds_state else ())
                if _log.isEnabledFor(logging.INFO):
                    self._tell_log(f"the {engine.kind} engine steps it")
        return self._engine is not DETACHED

    def _fall_back(self) -> None:
        """Leave this step to torch's code: keep the reason, which was noted where that was decided."""
        reason = _C.take_reason()
        object.__setattr__(self, "_fallback", (reason, None))
        if _log.isEnabledFor(logging.INFO):
            self._tell_log(f"torch's code steps it: {reason}")

    def _tell_log(self, message: str) -> None:
        """Once in a scheduler's life."""
        if not hasattr(self, "_logged"):
            object.__setattr__(self, "_logged", set())
        if message not in self._logged:
            self._logged.add(message)
            _log.info("%s: %s", type(self).__name__, message)

    def _follow_to_tensors(self) -> None:
        """Choose an engine again if use_tensor_lr came after the present one: the LRs to go on from are masters now."""
        if not self._engine.steps_tensors and lr_buffer.has_tensors(self.optimizer):
            self._detach()
            self._attach()

    def _detach(self) -> None:
        """Become a plain torch object, all state in ``__dict__``; what was written there meanwhile stands."""
        while self._engine is not DETACHED:
            engine = self._engine
            instance_dict(self).update(self._state())
            if _C.give_up(self, engine, DETACHED, self._counters):
                engine.leave()
                take_numbers(self)

    def _write_lrs(self, state: Mapping[str, Any]) -> None:
        """Set the optimizer's learning rates to those of a state that is about to be loaded, if the class does that."""

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A copy of a state as :meth:`_load` takes it, or an error that names ``where`` it is wrong."""
        return checked(self, state_dict, where)

    def _load(self, state: dict[str, Any]) -> None:
        """Write what :meth:`_checked` gave, what an engine holds into the storage it already has."""
        attributes = instance_dict(self)
        groups = len(self.optimizer.param_groups)
        for name, must_be in _C.ATTRIBUTES[self._schedule].items():
            values = state.get(name, attributes.get(name))
            if must_be != "per group" or values is None:
                continue
            if len(values) != groups:
                self._detach()  # for the next step, which chooses an engine again or raises as torch's
            elif name in state and len(attributes.get(name, ())) == groups:
                state[name] = _all_as_before(attributes[name], values, self._engine)
        if any(name in self._replaces for name in state):
            self._detach()
        held = {name for name in state if isinstance(self._native.get(name), StateAttribute)}
        attributes.update({name: value for name, value in state.items() if name not in held})
        object.__setattr__(self, "_first_lrs", None)  # those of the run that the state is from are not known
        self._follow_to_tensors()
        if not (self._engine.steps_tensors and self._engine.holds(self)):  # as where the run had the same settings
            self._engine.refresh(self)
        for name in held:
            setattr(self, name, state[name])
        self._engine.resume()


def one_element(found_inf: Tensor) -> Tensor:
    """The tensor that says whether a step is skipped, whole; ValueError if it is none."""
    found_inf = completed(found_inf)
    if found_inf.numel() != 1:
        raise ValueError(f"found_inf must hold exactly one element, got {found_inf.numel()}")
    return found_inf


def _notice_steps(optimizer: Any, *, methods: bool) -> None:
    """Have the optimizer note its steps, as torch has it, where ``step`` is a callable that torch cannot wrap.

    ``methods``: those as well that it can.

    Compiled code, ``functools.partial`` and the like have no ``__func__``; that of another object's method would be
    called with the optimizer for its ``self``.
    """
    step = optimizer.step
    own_method = hasattr(step, "__func__") and step.__self__ is optimizer
    if (own_method and not methods) or hasattr(step, "_wrapped_by_lr_sched"):
        return
    reference = weakref.ref(optimizer)
    if own_method:
        step = step.__func__  # the method itself would keep the optimizer alive

    @functools.wraps(step, updated=())  # what torch.compile notes on its functions is true of them alone
    def noticed(*args: Any, **kwargs: Any) -> Any:
        stepping = reference()
        if stepping is not None:
            stepping._opt_called = True
        return step(stepping, *args, **kwargs) if own_method else step(*args, **kwargs)

    noticed._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = noticed


def _plain(value: Any) -> Any:
    """Tensor learning rates in a list, ``base_lrs`` for one, as Python floats."""
    if type(value) is list and contains_tensors(value):
        return [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in value]
    return value


def _all_as_before(before: list[Any], values: list[Any], engine: Engine) -> list[Any]:
    """:func:`_as_before` for each; tensors that a tensor engine has in a row are read together."""
    if _C.types_of(before) <= {float, int}:
        return values
    row = engine.row_of(before) if engine.steps_tensors else None
    if row is not None and _C.types_of(values) == {float} and row.tolist() == values:
        return list(before)
    return [_as_before(*pair) for pair in zip(before, values, strict=True)]


def _as_before(before: Any, value: Any) -> Any:
    """The very tensor that was there, if that is its value: compiled steps and captured graphs hold on to it.

    Else a number as a tensor again, which :func:`_plain` wrote down, if a tensor like the one before holds it exactly.
    """
    if not isinstance(before, Tensor):
        return value
    if isinstance(value, Tensor):
        return before if value.dtype is before.dtype and value.item() == before.item() else value
    if before.item() == value:
        return before
    tensor = torch.tensor(value, dtype=before.dtype, device="cpu")
    return tensor.reshape(before.shape).to(before.device) if tensor.item() == value else value


_C.use_quick_calls(_EngineScheduler, TensorEngine)
