"""Restores a training run bit for bit, so that a trial run on the same objects leaves no trace."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import DataLoader

_MISSING = object()


@contextmanager
def preserved(modules: list[nn.Module], optimizer: Optimizer, loaders: list[Any]) -> Iterator[None]:
    """Restore these afterwards, whatever happens inside, even an exception.

    Of modules: parameters, buffers, gradients and training mode. Of the optimizer, and any optimizer that it wraps:
    groups, state and attributes. Of loaders: generators and persistent workers. And the global random state of torch,
    of every CUDA device, of Python, and of NumPy if that is imported.

    Tensors keep their identity and their storage, so captured graphs stay valid. A copy of each is held meanwhile, on
    its device. Other attributes of modules, and the state of datasets, are not restored: they may be tied to something
    outside, such as the handles of a wrapper that has communication under way.

    Waits for CUDA devices.
    """
    shards = sharded(modules)
    reshard(shards)
    state = _TrainingState(modules, optimizer, loaders)
    try:
        state.set_workers_aside()
        yield
    finally:
        reshard(shards)
        state.restore()


def sharded(modules: list[nn.Module]) -> list[Any]:
    """Those of the modules and submodules whose parameters FSDP2 (``fully_shard``) shards."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    if kind is None:
        return []
    return [module for root in modules for module in root.modules() if isinstance(module, kind)]


def reshard(shards: list[Any]) -> None:
    """Free the parameters that a forward has gathered: a root keeps them for a backward that may never come.

    Optimizers and copies know the shards; gathered parameters take their place in the modules.
    """
    for module in shards:
        module.reshard()


class _TrainingState:
    """The objects that a training run changes, and what they hold now."""

    def __init__(self, modules: list[nn.Module], optimizer: Optimizer, loaders: list[Any]):
        self._met: set[int] = set()  # containers and optimizers, which may refer to each other
        self._tensors: dict[int, _TensorContents] = {}
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        for root in modules:
            for module in root.modules():
                self._modes.append((module, module.training))
                self._save(module._parameters)
                self._save(module._buffers)
        self._save(optimizer)
        self._random_numbers = _GlobalRandomNumbers()
        self._loaders = [_LoaderState(loader) for loader in loaders]

    def set_workers_aside(self) -> None:
        for loader in self._loaders:
            loader.set_workers(None)

    def _save(self, value: Any) -> None:
        """Save what this holds: a tensor, an optimizer, or a container of them at any depth. Ignore all else."""
        if isinstance(value, (dict, list, Optimizer)):
            if id(value) in self._met:
                return
            self._met.add(id(value))
        if isinstance(value, Optimizer):
            self._save(vars(value))
            for entry in (value.param_groups, value.state):  # a wrapper's belong to another object
                self._save(entry)
        elif isinstance(value, Tensor):
            if id(value) not in self._tensors and not is_lazy(value):
                self._tensors[id(value)] = _TensorContents(value)
                if value.is_leaf:
                    self._grads[id(value)] = (value, value.grad)
                    self._save(value.grad)
        elif isinstance(value, dict):
            self._dicts.append((value, dict(value)))
            for entry in value.values():
                self._save(entry)
        elif isinstance(value, list):
            self._lists.append((value, list(value)))
            for entry in value:
                self._save(entry)
        elif isinstance(value, tuple):
            for entry in value:
                self._save(entry)

    @torch.no_grad()
    def restore(self) -> None:
        # Containers first: they determine which tensors are in place. What has not changed is not written, because
        # compiled code and schedulers watch dicts for changes.
        for mapping, entries in self._dicts:
            for key in [key for key in mapping if key not in entries]:
                del mapping[key]
            for key, entry in entries.items():
                if mapping.get(key, _MISSING) is not entry:
                    mapping[key] = entry
        for items, saved in self._lists:
            items[:] = saved
        for contents in self._tensors.values():
            contents.restore()
        for parameter, grad in self._grads.values():
            parameter.grad = grad
        for module, training in self._modes:
            if module.training is not training:
                module.training = training
        for loader in self._loaders:
            loader.restore()
        self._random_numbers.restore()


class _TensorContents:
    """What a tensor holds, and where."""

    __slots__ = ("copy", "storage", "tensor")

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.storage = tensor.detach()
        self.copy = distinct(self.storage).clone()

    def restore(self) -> None:
        if self.tensor.layout is torch.strided:
            distinct(self.storage).copy_(self.copy)
        else:  # detaching a sparse tensor makes a new one
            self.tensor.copy_(self.copy)
        # Some optimizers write `parameter.data = ...`.
        if self._is_plain() and self.tensor.data_ptr() != self.storage.data_ptr():
            self.tensor.data = self.storage

    def _is_plain(self) -> bool:
        return type(self.tensor) in (Tensor, nn.Parameter) and self.tensor.layout is torch.strided


def distinct(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Each element in memory only once: an expanded tensor cannot be written as a whole.

    ``like``: a tensor of the same shape whose strides say which elements those are; by default the tensor itself.
    """
    strided = tensor if like is None else like
    if strided.layout is not torch.strided or strided.is_nested or 0 not in strided.stride():
        return tensor
    return tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strided.stride())]


class _GlobalRandomNumbers:
    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = None if numpy is None else (numpy, numpy.random.get_state())

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        if self._numpy is not None:
            numpy, state = self._numpy
            numpy.random.set_state(state)


class _LoaderState:
    """A loader's generators, and its persistent workers, which are set aside while others serve."""

    def __init__(self, loader: Any):
        self._loader = loader
        found = (_attribute(loader, path) for path in _GENERATORS)
        self._generators = [(one, one.get_state()) for one in found if isinstance(one, torch.Generator)]
        self._workers = getattr(loader, "_iterator", None)

    def restore(self) -> None:
        self.set_workers(self._workers)
        for generator, state in self._generators:
            generator.set_state(state)

    def set_workers(self, workers: Any) -> None:
        if isinstance(self._loader, DataLoader):
            self._loader._iterator = workers


_GENERATORS = ("generator", "sampler.generator", "batch_sampler.generator", "batch_sampler.sampler.generator")


def _attribute(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
