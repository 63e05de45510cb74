"""What a run computes on: the device, its threads, random numbers and captured steps."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from eqprop.config.schema import Config
from eqprop.config.validation import graph_obstacle
from eqprop.run import environment
from eqprop.run.errors import ConfigError, RunError
from eqprop.run.hardware import can_start, processors
from eqprop.training.session import Session
from eqprop.training.step import CapturedStep, CudaGraphs, PlainStep


def prepare_device(config: Config) -> torch.device:
    """The device asked for, with its threads, determinism and seeds set; ConfigError without it."""
    wanted = config.device
    usable = wanted.type != "cpu" and torch.cuda.is_available()
    if wanted.type == "cuda" and not usable:
        raise ConfigError("device.type='cuda': torch finds no usable GPU; choose device=cpu")
    threads = wanted.threads or default_threads()
    try_threads(threads)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(wanted.matmul)
    torch.backends.cudnn.allow_tf32 = wanted.matmul != "highest"  # convolutions have their own
    if wanted.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted.deterministic)  # loads the compiler: seconds
    # an energy of somebody else's may draw from any of them
    torch.manual_seed(config.seed)
    np.random.seed(np.random.SeedSequence(config.seed).generate_state(4))
    random.seed(config.seed)
    return torch.device("cuda", wanted.index) if usable else torch.device("cpu")


def try_threads(count: int) -> None:
    """Start and end so many threads. RunError if they cannot be: OpenMP would exit on the spot."""
    if not can_start(count):
        limit = "there is a limit on processes or memory (ulimit -u, a container's pids)"
        raise RunError(f"cannot start {count} threads: {limit}; set device.threads=1")


def default_threads() -> int:
    """As many as this process may use processors, or as OpenMP is told."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) or 1 if told.isdigit() else processors()


def captures(config: Config, device: torch.device) -> bool:
    """Whether the training step is to become a CUDA graph; what is not ours, only if asked for."""
    wanted = config.device.cuda_graph
    if wanted is False or device.type != "cuda":
        return False
    parts = [config.model, config.cost, config.dynamics, config.estimator, config.optimizer]
    parts += [] if config.noise is None else [config.noise]
    ours = all(part.target.startswith(("eqprop.", "torch.optim.")) for part in parts)
    return wanted is True or (ours and graph_obstacle(config) is None)


def build_step(config: Config, device: torch.device) -> PlainStep:
    """The captured step, where it can be; one that was asked for must succeed."""
    if not captures(config, device):
        return PlainStep()
    return CapturedStep(CudaGraphs(device), strict=config.device.cuda_graph is True)


def rounding(session: Session) -> dict[str, Any]:
    """What decides a run's last digits and may be other when it is resumed."""
    device = session.device
    on_gpu = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else environment.hardware()["cpu"],
        "matmul": torch.get_float32_matmul_precision(),
        "compiled": session.solver.compiled or session.network.compiled,
    }
