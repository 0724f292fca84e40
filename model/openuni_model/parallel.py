"""Several processes as one: who they are, and the model sharded over them (FSDP2)."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from openuni_model.dit import UnifiedDiT


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


def pick_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, or `cuda`: the GPU that `torchrun` gave this process."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """The world that `torchrun` describes in the environment, or this process alone; `device` as in `pick_device`.

    Leave it with nothing sharded still referenced: the groups' threads may hold the last reference to a tensor, and
    one that asks for the interpreter while that is ending aborts the process ("terminate called without an active
    exception") after all work was done. Collecting and destroying here ends those threads in time.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    here = pick_device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if size > 1:
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield World(rank, size, here)
    finally:
        if size > 1:
            gc.collect()
            dist.destroy_process_group()
            gc.collect()


def shard(model: UnifiedDiT, world: World) -> UnifiedDiT:
    """Shard parameters over the ranks, block by block (FSDP2); on a GPU computed in bf16 and reduced in float32."""
    if world.size == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    cuda = world.device.type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if cuda else MixedPrecisionPolicy()
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def rows_like(parameter: Tensor, rows: Mapping[int, float]) -> Tensor:
    """Zeros but for these values of whole rows, to be multiplied with `parameter` and sharded as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    values = torch.zeros(len(parameter), *[1] * (parameter.ndim - 1), device=parameter.device)
    for row, value in rows.items():
        values[row] = value
    if isinstance(parameter, DTensor):
        return distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return values


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 on a GPU; float32 on the CPU, where bf16 was measured to be slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
