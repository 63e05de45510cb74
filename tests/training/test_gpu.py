"""On a real GPU: its gradients against the CPU's, and the captured step against the plain one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from eqprop.cli.build import build_session
from eqprop.cli.device import build_step
from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.training.session import Session
from eqprop.training.step import Batch, CapturedStep, PlainStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

WAYS = {
    "pcn": "model=predictive_coding network=lenet estimator.beta=0.02 optimizer=sgd",
    "pcn centered": "model=predictive_coding network=lenet estimator=ep_centered "
    "estimator.beta=0.1",
    "strided": "model=predictive_coding network=strided optimizer=sgd optimizer.nesterov=true "
    "optimizer.momentum=0.9",
    "rate_hopfield": "model=rate_hopfield network=lenet dynamics=sweep dynamics.rule=exact "
    "estimator=ep_centered estimator.beta=0.3",
    "hopfield": "model=hopfield model.activation=hard_sigmoid network=lenet dynamics=exact",
    "average": "model=predictive_coding 'model.hidden=[{conv:8,kernel:5,pool:average}]'",
    "soft": "model=predictive_coding 'model.hidden=[{conv:8,kernel:5,pool:soft}]'",
    "dense": "model=hopfield dynamics=newton",
    "euler": "model=gaussian dynamics=euler",
    "backprop": "model=predictive_coding network=lenet estimator=backprop",
    "dual": "model=predictive_coding network=lenet estimator=dual_propagation",
    "fourpoint": "model=hopfield estimator=ep_fourpoint",
    "holomorphic": "model=hopfield estimator=holomorphic",
    "holomorphic pictures": "model=hopfield model.activation=tanh "
    "'model.hidden=[{conv:8,kernel:5,pool:average}]' estimator=holomorphic dynamics=newton",
    "coupled": "model=hopfield estimator=coupled estimator.variant=centered",
    "contrastive": "model=gaussian estimator=contrastive dynamics=newton",
    "continual": "model=gaussian estimator=continual dynamics=newton",
    "bptt": "model=rate_hopfield network=lenet dynamics=sweep dynamics.rule=exact estimator=bptt",
    "bptt euler": "model=gaussian dynamics=euler estimator=bptt",
}
DRAWN = {"random sign": "model=hopfield estimator=ep_random_sign"}
"""The two devices draw other numbers."""
AS_WRITTEN = {
    "implicit": "model=hopfield estimator=implicit",
    "asymmetric": "model=hopfield model.feedback=fixed estimator=asymmetric",
}
"""They ask the device for numbers within a step, or do not say that they ask for none."""
EXACT = {"implicit": 1e-5}
"""How close two devices come where equations are solved up to a tolerance: 1e-6 by default."""


def session_of(way: str, *more: str) -> tuple[Session, PlainStep]:
    overrides = [part.strip("'") for part in {**WAYS, **DRAWN, **AS_WRITTEN}[way].split()]
    cfg = compose([*overrides, "dataset.batch_size=16", "dataset.limit=200", *more])
    config = validate_composed(cfg)
    session = build_session(cfg, config)
    return session, build_step(config, session.device)


def batches(session: Session, steps: int) -> Sequence[Batch]:
    train = session.data.train
    return [Batch(x, y) for x, y in list(train.batches(16))[:steps]]


@pytest.mark.parametrize("way", [*WAYS, *AS_WRITTEN])
def test_the_gradient_is_the_cpu_s(way: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        session, _ = session_of(way, f"device={device}", "device.dtype=float64")
        torch.manual_seed(0)
        session.generator.manual_seed(0)
        [batch] = batches(session, 1)
        state = session.state(16)
        state.clamp(0, batch.x)
        target = torch.nn.functional.one_hot(batch.y, 10).to(batch.x)
        parts = session.network, state, session.solver, session.cost, target
        # the two devices draw other noise: every start but N(0, 1) is the same
        session.solver.init = "zeros" if session.solver.init == "auto" else session.solver.init
        if session.network.feedforward:
            session.solver.init = "auto"
        found.append([g.cpu().clone() for g in session.estimator.estimate(*parts).gradients])
    for ours, cpu in zip(found[1], found[0], strict=True):
        assert float(cpu.norm()) > 1e-6
        assert float((ours - cpu).norm()) <= EXACT.get(way, 1e-8) * float(cpu.norm())


@pytest.mark.parametrize("way", [*WAYS, *DRAWN])
def test_a_captured_step_trains_as_the_plain_one(way: str) -> None:
    trained = []
    for graph in ("false", "true"):
        session, step = session_of(
            way, "device=cuda", f"device.cuda_graph={graph}", "device.deterministic=true"
        )
        for batch in batches(session, 9):
            session.step += 1
            step(session, [], batch)
        if isinstance(step, CapturedStep):
            assert step._captured is not None
        trained.append([p.detach().clone() for p in session.network.parameters()])
    assert len(trained) == 2
    for captured, plain in zip(trained[1], trained[0], strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-4, atol=1e-6)
