"""The folder that Hydra makes of a run's name, without and within a multirun."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from eqprop.config.folder import conf_dir

APP = """
import sys
import hydra
from hydra.core.hydra_config import HydraConfig
from eqprop.config.compose import check, conf_dir, register_resolvers

register_resolvers()

@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(cfg):
    before = HydraConfig.get().runtime.output_dir
    assert HydraConfig.get().runtime.output_dir == before
    print("folder", before)

check(sys.argv[1:])
main()
assert not {"torchvision", "wandb", "numba"} & set(sys.modules), "loaded for nothing"
"""


def run_app(folder: Path, *arguments: str) -> list[Path]:
    app = folder / "app.py"
    app.write_text(textwrap.dedent(APP))
    done = subprocess.run(
        [sys.executable, str(app), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(conf_dir().parent), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return [Path(line[7:]) for line in done.stdout.splitlines() if line.startswith("folder ")]


def test_a_run_s_folder(tmp_path: Path) -> None:
    (folder,) = run_app(tmp_path, "name='../../../x'", "paths.outputs=out")
    assert (folder / "run.log").is_file()
    pattern = r"out/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-x-[0-9a-f]{6}"
    assert re.fullmatch(pattern, folder.relative_to(tmp_path).as_posix())


def test_a_multirun_s_folders(tmp_path: Path) -> None:
    folders = run_app(tmp_path, "-m", "hydra/sweeper=basic", "model=gaussian,hopfield", "seed=1,2")
    assert len({folder.parent for folder in folders}) == 1
    assert folders[0].parent.parent.parent == tmp_path / "outputs" / "multirun"
    models = ["gaussian", "gaussian", "hopfield", "hopfield"]
    for number, (folder, model) in enumerate(zip(folders, models, strict=True)):
        assert re.fullmatch(rf"{number}-{model}-mnist5k-[0-9a-f]{{6}}", folder.name)
    assert len({folder.name[-6:] for folder in folders}) == 4


def test_help_lists_groups_and_options(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(APP), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(conf_dir().parent)},
    )
    assert "optimizer: adagrad, adam, adamw, sgd" in done.stdout
    assert "--cfg job" in done.stdout
    assert not list(tmp_path.iterdir()), "help makes no folder"
