"""Run by torchrun, one process per rank: trains, saves every epoch, and resumes from what was saved.

elastic_training.py FOLDER [RUN:EPOCH:MOMENT ...]     in that run, counted from 0, rank 1 kills itself: in that epoch,
before its "step" or before its "checkpoint"

At the end rank N writes FOLDER/rank-N.json: what the schedulers were at the end of every epoch.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed

import fastsched

EPOCHS = 10


class Training:
    """One model on all ranks, with different data on each; its learning rates are Python numbers or tensors."""

    def __init__(self, tensor_lrs: bool):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)
        parts = [{"params": [self.model.weight], "lr": 0.4}, {"params": [self.model.bias], "lr": 0.1}]
        self.optimizer = torch.optim.SGD(parts, lr=0.1, momentum=0.5)
        if tensor_lrs:
            fastsched.use_tensor_lr(self.optimizer, dtype=torch.float32)
        self.plateau = fastsched.ReduceLROnPlateau(
            self.optimizer, factor=0.7, patience=1, process_group=distributed.group.WORLD
        )
        self.trajectory: list[dict[str, object]] = []

    def train(self, rank: int, epoch: int) -> torch.Tensor:
        """A step of the optimizer, on the mean of the ranks' gradients; this rank's loss."""
        random = torch.Generator().manual_seed(1000 * rank + epoch)
        inputs = torch.randn(8, 3, generator=random)
        loss = (self.model(inputs).squeeze(1) - torch.randn(8, generator=random)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.model.parameters():
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()
        self.optimizer.step()
        return loss.detach()

    def note(self) -> None:
        self.trajectory.append(
            {
                "lrs": [float(group["lr"]) for group in self.optimizer.param_groups],
                "last_lrs": self.plateau.state_dict()["_last_lr"],
                "best": self.plateau.best,
                "bad_epochs": self.plateau.num_bad_epochs,
                "epoch": self.plateau.last_epoch,
                "weights": self.model.weight.tolist(),
            }
        )

    def state(self) -> dict[str, object]:
        parts = {"model": self.model, "optimizer": self.optimizer, "plateau": self.plateau}
        return {**{name: part.state_dict() for name, part in parts.items()}, "trajectory": self.trajectory}

    def load(self, state: dict[str, object]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.trajectory = state["trajectory"]


def main(folder: Path, deaths: list[str]) -> None:
    torch.set_num_threads(1)
    rank, ranks, run = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
    # Not torchrun's own store, which outlives a run: ranks might find addresses of dead ones there.
    store = f"file://{folder}/store-{run}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    trainings = [Training(tensor_lrs) for tensor_lrs in (False, True)]
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        for training, state in zip(trainings, torch.load(checkpoint, weights_only=True), strict=True):
            training.load(state)
        with (folder / f"resumed-{rank}.txt").open("a") as file:
            print(run, len(trainings[0].trajectory), file=file)

    def die_before(moment: str) -> None:
        if rank == 1 and f"{run}:{epoch}:{moment}" in deaths:
            os.kill(os.getpid(), signal.SIGKILL)

    for epoch in range(len(trainings[0].trajectory), EPOCHS):
        losses = [training.train(rank, epoch) for training in trainings]
        die_before("step")
        for training, loss in zip(trainings, losses, strict=True):
            training.plateau.step(loss)
            training.note()
        die_before("checkpoint")
        distributed.barrier()  # until all have got this far
        if rank == 0:
            torch.save([training.state() for training in trainings], checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    (folder / f"rank-{rank}.json").write_text(json.dumps([training.trajectory for training in trainings]))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    # Past the end of the interpreter, where gloo's threads abort one process in dozens ("terminate called without an
    # active exception", torch 2.13), after all is written.
    sys.stdout.flush()
    os._exit(0)
