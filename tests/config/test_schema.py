"""The typed configuration: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from configs import GONE, PLAIN, changed, refusal

from eqprop.config.schema import Config
from eqprop.config.validation import validate
from eqprop.run import hardware
from eqprop.run.text import show


def test_a_plain_dictionary_becomes_typed() -> None:
    config = validate(PLAIN)
    assert isinstance(config, Config)
    assert config.model.hidden == [1000]
    assert config.optimizer.constructor.__name__ == "Adam"
    assert config.dynamics.options() == {"dt": 0.1, "n_relax": 20}
    assert config.dynamics.model_dump()["tau"] == 1.0, "the class's own default"


def test_options_are_exactly_the_keys_given() -> None:
    assert validate(PLAIN).optimizer.options() == {"lr": 1e-3}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.lr": 1},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"name": "a run"},
        {"model.hidden": [500, 20, 1]},
        {"estimator.beta": -0.5},
        {"dataset.validation": 0},
        {"dataset.normalize": None},
        {"dataset.limit": 1},
        {"dataset.batch_size": 10**6},
        {"device.threads": 4},
        {"tracking.trackers": {}},
        {"tracking.tags": ["a", "b"]},
        {"trainer.progress": False},
        {"optimizer.fused": False},
        {"dynamics.init": "feedforward"},
        {"model._target_": "eqprop.RestrictedHopfield", "dynamics.init": "zeros"},
        {
            "optimizer": {
                "_target_": "torch.optim.SGD",
                "lr": 0.1,
                "momentum": 0.9,
                "nesterov": True,
            }
        },
    ],
    ids=show,
)
def test_accepted(changes: dict[str, Any]) -> None:
    validate(changed(changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer.lr": "abc"}, ["optimizer.lr='abc'", "number > 0"]),
        ({"optimizer.lr": "0.1"}, ["optimizer.lr='0.1'", "number > 0"]),
        ({"optimizer.lr": None}, ["optimizer.lr=null", "number > 0"]),
        ({"optimizer.lr": True}, ["optimizer.lr=true", "number > 0"]),
        ({"optimizer.lr": float("inf")}, ["optimizer.lr=inf", "finite"]),
        ({"optimizer.lr": 10**400}, ["optimizer.lr=1000", "> 0"]),
        ({"optimizer.betas": [0.9]}, ["optimizer.betas=[0.9]", "list"]),
        ({"optimizer.betas": [0.9, 1.0]}, ["optimizer.betas=[0.9, 1.0]", "< 1"]),
        ({"optimizer.betas": [0.9, "a"]}, ["optimizer.betas=[0.9, 'a']"]),
        ({"dynamics.dt": -1}, ["dynamics.dt=-1", "> 0"]),
        ({"dynamics.dt": float("nan")}, ["dynamics.dt=nan", "finite"]),
        ({"dynamics.n_relax": 20.0}, ["dynamics.n_relax=20.0", "whole number"]),
        ({"dynamics.n_relax": True}, ["dynamics.n_relax=true", "whole number"]),
        ({"dynamics.n_nudged": 0}, ["dynamics.n_nudged=0", "null"]),
        ({"dynamics.tol": -1e-9}, ["dynamics.tol=-1e-09", ">= 0"]),
        ({"dynamics.init": "normall"}, ["dynamics.init='normall'", "did you mean normal?"]),
        ({"model.hidden": []}, ["model.hidden=[]", "at least 1"]),
        ({"model.hidden": 10}, ["model.hidden=10", "list"]),
        ({"model.hidden": [10, 0]}, ["model.hidden=[10, 0]", ">= 1"]),
        ({"model.activation": "sigmod"}, ["model.activation='sigmod'", "did you mean sigmoid?"]),
        ({"model.feedback": "fix"}, ["model.feedback='fix'", "symmetric, fixed, learned"]),
        ({"estimator.beta": 0}, ["estimator.beta=0", "other than zero"]),
        ({"dataset.batch_size": 0}, ["dataset.batch_size=0", ">= 1"]),
        ({"dataset.validation": 1.0}, ["dataset.validation=1.0", "< 1"]),
        ({"dataset.normalize": [0.0, 0.0]}, ["dataset.normalize=[0.0, 0.0]", "> 0"]),
        ({"dataset.normalize": [1.0]}, ["dataset.normalize=[1.0]", "list"]),
        ({"seed": 2**70}, [f"seed={2**70}", "2^63"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"name": 7}, ["name=7", "quotes"]),
        ({"device.threads": 0}, ["device.threads=0"]),
        ({"device.dtype": "float16"}, ["device.dtype='float16'", "bfloat16"]),
        ({"trainer": None}, ["trainer=null"]),
        ({"optimizer": "adam"}, ["optimizer='adam'", "_target_"]),
        ({"tracking.project": "a/b"}, ["tracking.project='a/b'"]),
        ({"tracking.trackers": None}, ["tracking.trackers=null", "mapping"]),
        ({"tracking.trackers.wandb.mode": "of"}, ["tracking.trackers.wandb.mode='of'", "offline"]),
        ({"paths.data": ""}, ["paths.data=''"]),
        ({"paths.data": "a\0b"}, ["paths.data='a\\x00b'"]),
        ({"dataset.batch_size": GONE}, ["missing key 'dataset.batch_size'", ">= 1"]),
        ({"optimizer": GONE}, ["missing key 'optimizer'"]),
        ({"model._target_": GONE}, ["missing key 'model._target_'"]),
        ({"seed": GONE}, ["missing key 'seed'"]),
        ({"optimizer.lrr": 1}, ["optimizer.lrr=1", "unknown", "did you mean optimizer.lr?"]),
        ({"dynamcis.dt": 0.1}, ["dynamcis.dt=0.1", "unknown", "did you mean dynamics.dt?"]),
        ({"lr": 0.1}, ["lr=0.1", "unknown", "did you mean optimizer.lr?"]),
        (
            {"new.key": 1},
            ["new.key=1", "unknown", "there are: ablation, callbacks, checkpoint, cost"],
        ),
        (
            {"model._target_": "eqprop.RestrictedHopfield", "dynamics.init": "feedforward"},
            ["dynamics.init='feedforward'", "Hopfield", "auto"],
        ),
        (
            {"optimizer": {"_target_": "torch.optim.SGD", "lr": 1, "nesterov": True}},
            ["optimizer.nesterov=true", "optimizer.momentum > 0"],
        ),
    ],
    ids=show,
)
def test_refused_in_one_line(changes: dict[str, Any], words: list[str]) -> None:
    text = refusal(changes)
    for word in words:
        assert word in text


def test_the_centered_estimator_takes_no_negative_beta() -> None:
    target = "eqprop.estimator.CenteredEquilibriumPropagation"
    validate(changed({"estimator._target_": target}))
    assert "estimator.beta=-1" in refusal({"estimator._target_": target, "estimator.beta": -1})


def test_several_mistakes_are_counted() -> None:
    assert refusal({"optimizer.lr": "abc", "optimizer.eps": -1}).endswith("(and 1 more)")
    wrong = {"trainer.epochs": 0, "trainer.log_every": 0, "seed": -1}
    assert refusal(wrong).endswith("(and 2 more)")


@pytest.mark.parametrize("value", ["\x1b[31mred", "a\nb", "[bold]x[/bold]" * 50, "é" * 300])
def test_a_nasty_value_stays_one_short_line(value: str) -> None:
    assert len(refusal({"dynamics.init": value})) < 300


class TestGpu:
    @pytest.mark.parametrize(
        ("count", "device", "words"),
        [
            (0, {"device.type": "cuda"}, "device.type='cuda'"),
            (1, {"device.type": "cuda", "device.index": 1}, "device.index=1"),
            (1, {"device.type": "auto", "device.index": 3}, "device.index=3"),
        ],
    )
    def test_refused(
        self,
        monkeypatch: pytest.MonkeyPatch,
        count: int,
        device: dict[str, Any],
        words: str,
    ) -> None:
        monkeypatch.setattr(hardware, "gpu_count", lambda: count)
        assert words in refusal(device)

    def test_accepted_where_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "gpu_count", lambda: 2)
        validate(changed({"device.type": "cuda", "device.index": 1}))

    def test_the_driver_is_not_asked_for_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "gpu_count", lambda: pytest.fail("asked"))
        validate(changed({"device.type": "cpu", "device.index": 5}))
        validate(PLAIN)

    def test_none_is_visible(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert hardware.gpu_count.__wrapped__() == 0

    def test_the_count_is_torch_s(self) -> None:
        import torch

        if torch.version.cuda is None:
            pytest.skip("this torch is built without CUDA, so it counts no GPU anywhere")
        assert hardware.gpu_count() == torch.cuda.device_count()
