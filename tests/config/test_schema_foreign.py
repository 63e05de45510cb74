"""Parts of somebody else's in a configuration: their keys are those of their signature."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from configs import changed, refusal

from eqprop.config.compose import Composer
from eqprop.config.validation import validate, validate_composed
from eqprop.run.errors import ConfigError
from eqprop.run.text import show

FOREIGN = """
from eqprop.network import LocalEnergy, Network
class Energy(Network):
    def __init__(self, dimensions, c_energy, batch_size, phi, tilt=1.0, *, width):
        pass

class Outer:
    class Loose(LocalEnergy):
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
        made = validate(changed(model("foreign_parts.Energy", tilt="much", width=[1]))).model
        assert made.options() == {
            "tilt": "much",
            "width": [1],
            "hidden": [3],
            "activation": "tanh",
        }
        assert made.hidden == [3]

    def test_keyword_arguments_accept_anything(self) -> None:
        validate(changed(model("foreign_parts.Outer.Loose", what=1, ever=2)))

    def test_a_function_makes_an_optimizer(self) -> None:
        changes = {"optimizer": {"_target_": "foreign_parts.make_optimizer", "speed": 3}}
        assert validate(changed(changes)).optimizer.options() == {"speed": 3}

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
            (model("foreign_parts.Energy", width=1, titl=2), ["model.titl=2", "model.tilt?"]),
            (model("foreign_parts.Energy"), ["missing key 'model.width'"]),
            (
                model("foreign_parts.Energy", width=1, batch_size=3),
                ["model.batch_size=3", "runner"],
            ),
            (model("foreign_parts.Energy", width=1, hidden=[]), ["model.hidden=[]"]),
            (model("foreign_parts.Missing"), ["model._target_='foreign_parts.Missing'", "has no"]),
            (model("foreign_parts.NUMBER"), ["model._target_=", "neither a class nor"]),
            (model("nowhere_at_all.Thing"), ["model._target_=", "nowhere_at_all"]),
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


@pytest.mark.parametrize(
    "words",
    [
        "dynamics._target_=eqprop.estimator.Backprop",
        "estimator._target_=eqprop.relaxation.Newton",
        "cost._target_=eqprop.network.Gaussian",
        "cost._target_=eqprop.network.Cost",  # no checkpoint of it could be loaded
        "optimizer._target_=torch.nn.Linear",
        "scheduler._target_=torch.nn.Linear",
        "model._target_=eqprop.SquaredError",
        "dataset._target_=eqprop.data.CropFlip",
        "noise=weights noise._target_=eqprop.data.Digits",
        "ablation=frozen_lower ablation._target_=eqprop.data.Digits",
        "+callbacks.x._target_=eqprop.data.Digits",
        "+tracking.trackers.x._target_=eqprop.data.Digits",
        "model.hidden=[{_target_:torch.nn.Linear}]",
    ],
)
def test_a_class_of_another_group_is_refused_before_there_is_a_folder(words: str) -> None:
    """One line that names key, class and what it should be derived from."""
    key = words.split()[-1].lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        validate_composed(Composer().load(words.split()))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(key)
    assert re.search(r"subclass of (eqprop|torch)\.", line)
