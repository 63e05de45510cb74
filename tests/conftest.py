"""Fixtures that the tests share: a seed, networks beside their reference, the shared data."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import PHI, Reference
from running import git
from torch import Tensor

os.environ["OMP_NUM_THREADS"] = "1"
"""Two workers share the cores. Runs take as many threads as this says, within these processes too;
tensors are small here, and threads that wait for a core are up to fifteen times as slow."""

if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup: runs would ignore it as well
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

QUICK = {"core", "config", "data"}
"""The folders that plain ``pytest`` runs; what lies elsewhere is marked ``program``, unless it
compares estimators: ``estimators``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.parent.name
        if folder not in QUICK:
            item.add_marker("estimators" if folder == "estimators" else "program")


@pytest.fixture(autouse=True)
def _seed_and_one_thread() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a test may have set it


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Full MNIST beside the checkout, for the tests that want it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"full MNIST is not at {folder}")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of one commit, in which ``code.py`` is old."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def one_hot(batch: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.nn.functional.one_hot(torch.randint(n, (batch,)), n).to(dtype)


def reference_of(model: Any, kind: str, phi: list[Any], cost: str) -> Reference:
    """The reference with a float64 copy of the model's weights as they are now."""
    W = [connection.weight.detach().double().clone() for connection in model.W]
    b = [connection.bias.detach().double().clone() for connection in model.W]
    return Reference(kind, W, b, phi, cost)


def make_model(
    kind: str,
    sizes: list[int],
    batch: int,
    phi: Any = "tanh",
    cost: str = "squared_error",
    beta: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """A model with a random state, layer 0 clamped; `phi` a name or a function for all layers."""
    import eqprop

    energy = {"gaussian": eqprop.ConditionalGaussian, "hopfield": eqprop.RestrictedHopfield}[kind]
    c_energy = {"squared_error": eqprop.SquaredError, "cross_entropy": eqprop.CrossEntropy}[cost]
    model = energy(sizes, c_energy(beta), batch, ["identity"] + [phi] * (len(sizes) - 1))
    model = model.to(dtype)
    for i, n in enumerate(sizes):
        model.u[i] = torch.randn(batch, n, dtype=dtype)
    model.clamp_layer(0, torch.randn(batch, sizes[0], dtype=dtype))
    return model


@pytest.fixture
def pair() -> Callable[..., tuple[Any, Reference]]:
    """make(kind, sizes, batch, phi, cost, beta, dtype) -> (model, its reference)."""

    def make(
        kind: str, sizes: list[int], batch: int, phi: Any = "tanh", **kwargs: Any
    ) -> tuple[Any, Reference]:
        model = make_model(kind, sizes, batch, phi, **kwargs)
        function = PHI[phi] if isinstance(phi, str) else phi
        phis = [PHI["identity"]] + [function] * (len(sizes) - 1)
        return model, reference_of(model, kind, phis, kwargs.get("cost", "squared_error"))

    return make


@pytest.fixture
def state() -> Callable[[Any], list[Tensor]]:
    """A detached float64 copy of a model's layers."""
    return lambda model: [model.u[i].detach().double().clone() for i in range(model.n_layers)]


@pytest.fixture
def targets() -> Callable[..., Tensor]:
    """make(batch, n, dtype) -> random one-hot rows."""
    return one_hot
