"""scripts/wandb_sweep.yaml: what W&B's own agent makes of it is a command that we accept."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from running import ROOT

from eqprop.config.compose import check

SWEEP = ROOT / "scripts" / "wandb_sweep.yaml"


@pytest.mark.parametrize("last", [0, -1])
def test_the_agent_s_command_is_ours(last: int) -> None:
    pytest.importorskip("wandb")
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep: dict[str, Any] = yaml.safe_load(SWEEP.read_text())
    chosen: dict[str, dict[str, Any]] = {}
    for name, parameter in sweep["parameters"].items():
        values = parameter.get("values") or [parameter.get("value", parameter.get("min"))]
        chosen[name] = {"value": values[last]}
    words = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    command = create_sweep_command(sweep["command"])
    assert command[-1] == "${args_no_hyphens}"
    check([*command[command.index("${program}") + 1 : -1], *words])
    assert (ROOT / sweep["program"]).is_file()
    assert sweep["metric"] == {"name": "best/accuracy/validation", "goal": "maximize"}
