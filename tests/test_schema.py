"""The typed configuration: what is refused, and in which words."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eqprop import hardware
from eqprop.errors import ConfigError
from eqprop.options import Adam, CenteredEstimator, Dynamics, Foreign, ForeignModel
from eqprop.schema import KNOWN, Config, all_keys, json_schema, validate
from eqprop.suggest import brief, nearest, one_line, show

PLAIN: dict[str, Any] = {
    "seed": 2019,
    "name": None,
    "resume": None,
    "rerun": None,
    "checkpoint": {"every": 1, "every_steps": None, "keep": 0, "share": 0.01},
    "model": {
        "_target_": "eqprop.ConditionalGaussian",
        "hidden": [1000],
        "activation": "sigmoid",
    },
    "cost": {"_target_": "eqprop.CrossEntropy"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "device": {
        "type": "auto",
        "index": 0,
        "dtype": "float32",
        "threads": None,
        "deterministic": False,
        "compile": False,
    },
    "dataset": {
        "_target_": "eqprop.data.MNIST5k",
        "batch_size": 100,
        "validation": 0.1,
        "limit": None,
        "normalize": [0.1307, 0.3081],
        "download": False,
    },
    "dynamics": {"_target_": "eqprop.relaxation.Euler", "dt": 0.1, "n_relax": 20},
    "estimator": {"_target_": "eqprop.estimator.EquilibriumPropagation", "beta": 1.0},
    "trainer": {
        "epochs": 20,
        "log_every": 50,
        "eval_every": 1,
        "eval_batch_size": 1000,
        "progress": None,
    },
    "tracking": {
        "project": "eqprop",
        "entity": None,
        "group": None,
        "tags": [],
        "notes": None,
        "trackers": {"wandb": {"_target_": "eqprop.tracking.WandbTracker", "mode": "offline"}},
    },
    "paths": {"data": "data", "outputs": "outputs"},
}
GONE = type("_Removed", (), {})


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    cfg = copy.deepcopy(PLAIN)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = cfg
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return cfg


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(changed(changes))
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert caught.value.exit_code == 2
    return text


def test_a_plain_dictionary_becomes_typed() -> None:
    config = validate(PLAIN)
    assert isinstance(config, Config)
    assert config.model.hidden == [1000]
    assert isinstance(config.optimizer, Adam)
    assert isinstance(config.dynamics, Dynamics)
    assert config.dynamics.tau == 1.0, "the class's own default"


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
        ({"optimizer.lr": 10**400}, ["optimizer.lr=1000", "finite"]),
        ({"optimizer.lr": 10**5000}, ["optimizer.lr=", "finite"]),
        ({"optimizer.betas": [0.9]}, ["optimizer.betas=[0.9]", "two numbers"]),
        ({"optimizer.betas": [0.9, 1.0]}, ["optimizer.betas=[0.9, 1.0]", "< 1"]),
        ({"optimizer.betas": [0.9, "a"]}, ["optimizer.betas=[0.9, 'a']"]),
        ({"dynamics.dt": -1}, ["dynamics.dt=-1", "> 0"]),
        ({"dynamics.dt": float("nan")}, ["dynamics.dt=nan", "finite"]),
        ({"dynamics.n_relax": 20.0}, ["dynamics.n_relax=20.0", "whole number"]),
        ({"dynamics.n_relax": True}, ["dynamics.n_relax=true", "whole number"]),
        ({"dynamics.n_nudged": 0}, ["dynamics.n_nudged=0", "null or"]),
        ({"dynamics.tol": -1e-9}, ["dynamics.tol=-1e-09", ">= 0"]),
        ({"dynamics.init": "normall"}, ["dynamics.init='normall'", "did you mean normal?"]),
        ({"model.hidden": []}, ["model.hidden=[]", "at least one"]),
        ({"model.hidden": 10}, ["model.hidden=10", "list"]),
        ({"model.hidden": [10, 0]}, ["model.hidden=[10, 0]", ">= 1"]),
        ({"model.activation": "sigmod"}, ["model.activation='sigmod'", "did you mean sigmoid?"]),
        ({"estimator.beta": 0}, ["estimator.beta=0", "other than 0"]),
        ({"dataset.batch_size": 0}, ["dataset.batch_size=0", ">= 1"]),
        ({"dataset.validation": 1.0}, ["dataset.validation=1.0", "< 1"]),
        ({"dataset.normalize": [0.0, 0.0]}, ["dataset.normalize=[0.0, 0.0]", "std > 0"]),
        ({"dataset.normalize": [1.0]}, ["dataset.normalize=[1.0]", "[mean, std]"]),
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
        ({"optimizer.lr": GONE}, ["missing key 'optimizer.lr'", "> 0"]),
        ({"optimizer": GONE}, ["missing key 'optimizer'", "optimizer=…"]),
        ({"model._target_": GONE}, ["missing key 'model._target_'"]),
        ({"seed": GONE}, ["missing key 'seed'"]),
        ({"optimizer.lrr": 1}, ["optimizer.lrr=1", "unknown", "did you mean optimizer.lr?"]),
        ({"dynamcis.dt": 0.1}, ["dynamcis.dt=0.1", "unknown", "did you mean dynamics.dt?"]),
        ({"lr": 0.1}, ["lr=0.1", "unknown", "did you mean optimizer.lr?"]),
        ({"new.key": 1}, ["new.key=1", "unknown", "there are: checkpoint, cost"]),
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
    estimator = validate(changed({"estimator._target_": target})).estimator
    assert isinstance(estimator, CenteredEstimator)
    assert "estimator.beta=-1" in refusal({"estimator._target_": target, "estimator.beta": -1})


def test_several_mistakes_are_counted() -> None:
    text = refusal({"optimizer.lr": "abc", "dynamics.dt": 0, "seed": -1})
    assert text.endswith("(and 2 more)")


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


FOREIGN = """
class Energy:
    def __init__(self, dimensions, c_energy, batch_size, phi, gain=1.0, *, width):
        pass

class Outer:
    class Loose:
        def __init__(self, *args, **kwargs):
            pass

def make_optimizer(params, speed):
    pass

NUMBER = 3
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of somebody else's in the working directory, which the caller puts on sys.path."""
    (tmp_path / "foreign_parts.py").write_text(FOREIGN)
    (tmp_path / "broken_parts.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "raising_parts.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("foreign_parts", "broken_parts", "raising_parts"):
        sys.modules.pop(name, None)


def model(target: str, **keys: Any) -> dict[str, Any]:
    shared = {"_target_": target, "hidden": [3], "activation": "tanh"}
    return {"model": {**shared, **keys}}


@pytest.mark.usefixtures("foreign")
class TestForeign:
    def test_its_own_keys_are_free_in_type(self) -> None:
        made = validate(changed(model("foreign_parts.Energy", gain="much", width=[1]))).model
        assert isinstance(made, ForeignModel)
        assert made.options() == {
            "gain": "much",
            "width": [1],
            "hidden": [3],
            "activation": "tanh",
        }

    def test_keyword_arguments_accept_anything(self) -> None:
        validate(changed(model("foreign_parts.Outer.Loose", what=1, ever=2)))

    def test_a_function_makes_an_optimizer(self) -> None:
        changes = {"optimizer": {"_target_": "foreign_parts.make_optimizer", "speed": 3}}
        assert isinstance(validate(changed(changes)).optimizer, Foreign)

    def test_an_optimizer_of_torch_that_is_not_ours(self) -> None:
        target = "torch.optim.RMSprop"
        validate(changed({"optimizer": {"_target_": target, "lr": 0.01, "alpha": 0.9}}))
        text = refusal({"optimizer": {"_target_": target, "lr": 0.01, "alhpa": 0.9}})
        assert "optimizer.alhpa=0.9" in text
        assert "did you mean optimizer.alpha?" in text

    def test_the_feedforward_rule_is_ours_alone(self) -> None:
        changes = {**model("foreign_parts.Energy", width=1), "dynamics.init": "feedforward"}
        validate(changed(changes))

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (model("foreign_parts.Energy", width=1, gian=2), ["model.gian=2", "model.gain?"]),
            (model("foreign_parts.Energy"), ["missing key 'model.width'"]),
            (
                model("foreign_parts.Energy", width=1, batch_size=3),
                ["model.batch_size=3", "runner"],
            ),
            (model("foreign_parts.Energy", width=1, hidden=[]), ["model.hidden=[]"]),
            (model("foreign_parts.Missing"), ["model._target_='foreign_parts.Missing'", "has no"]),
            (model("foreign_parts.NUMBER"), ["model._target_=", "neither a class nor"]),
            (model("nowhere_at_all.Thing"), ["model._target_=", "no module nowhere_at_all"]),
            (model("broken_parts.Thing"), ["model._target_=", "no_such_package_anywhere"]),
            (model("raising_parts.Thing"), ["model._target_=", "RuntimeError: two lines"]),
            (model("a..b"), ["model._target_='a..b'", "dotted path"]),
            (model("eqprop.ConditionalGausian"), ["did you mean eqprop.ConditionalGaussian?"]),
            ({"cost": {"_target_": 5}}, ["cost._target_=5"]),
            (
                {"tracking.trackers": {"mine": {"_target_": "foreign_parts.Nope"}}},
                ["tracking.trackers.mine._target_="],
            ),
        ],
        ids=show,
    )
    def test_refused(self, part: dict[str, Any], words: list[str]) -> None:
        text = refusal(part)
        for word in words:
            assert word in text


class TestJsonSchema:
    def test_it_is_json_and_lists_every_key(self) -> None:
        schema = json_schema()
        json.dumps(schema)
        assert set(schema["properties"]) == set(Config.model_fields)

    @pytest.mark.parametrize("group", [group for group in KNOWN if "." not in group])
    def test_a_group_has_its_targets(self, group: str) -> None:
        *ours, foreign = json_schema(group)["anyOf"]
        assert [part["properties"]["_target_"]["const"] for part in ours] == list(KNOWN[group])
        assert foreign["properties"]["_target_"]["not"]["enum"] == list(KNOWN[group])

    def test_a_group_without_targets(self) -> None:
        assert "epochs" in json_schema("trainer")["properties"]


class TestWords:
    KEYS = all_keys(PLAIN)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("dynamcis.dt", "dynamics.dt"),
            ("dynamics.td", "dynamics.dt"),
            ("dynamics.n_relaxx", "dynamics.n_relax"),
            ("dt", "dynamics.dt"),
            ("optimiser", "optimizer"),
            ("Optimizer.LR", "optimizer.lr"),
            ("trainer.batch_size", "dataset.batch_size"),
            ("optimizer.something_else", None),
            ("zzz", None),
        ],
    )
    def test_nearest(self, name: str, meant: str | None) -> None:
        assert nearest(name, self.KEYS) == meant

    def test_show(self) -> None:
        assert [show(v) for v in (None, True, 1.5, "a")] == ["null", "true", "1.5", "'a'"]

    def test_one_line_and_brief(self) -> None:
        assert one_line("a\n\tb\x1b[0m") == "a b\\x1b[0m"
        assert len(brief("x" * 1000)) == 60
