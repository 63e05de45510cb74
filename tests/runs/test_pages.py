"""Every block of every page, from the first to the last, in a folder of the page's own."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pages
import pytest
from reader import Reader, composed, given, known_flags, script
from running import QUICK, train

from eqprop.run import hardware
from eqprop.run.errors import ConfigError

GIVEN = {"README.md": "import torch\nx, y = torch.rand(100, 784), torch.eye(10).repeat(10, 1)\n"}
"""What a page's Python blocks take as given."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    cwd = tmp_path_factory.mktemp("made")
    train(*QUICK, "hydra.run.dir=run", cwd=cwd).succeeded()
    return cwd / "run"


@pytest.fixture
def reader(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 2)
    (tmp_path / "clone").mkdir()
    return Reader(tmp_path / "clone", made, monkeypatch)


BY_ITSELF = "docs/tutorial.md"  # test_tutorial.py runs it as it stands


@pytest.mark.parametrize(
    "page", [page for page in pages.PAGES if pages.name_of(page) != BY_ITSELF], ids=pages.name_of
)
def test_its_blocks_run(page: Path, reader: Reader) -> None:
    reader.read(page, GIVEN.get(pages.name_of(page), ""))


WRONG = {
    "no rule": "```bash\nfrobnicate outputs\n```\n",
    "a key": "```bash\npython scripts/train.py -m model.hiden=[16] seed=1,2\n```\n",
    "a download's key": "```bash\npython scripts/train.py experiment=gaussian_mnist sed=1\n```\n",
    "shell": "```bash\npython scripts/train.py 'seed=1\n```\n",
    "an extra": '```bash\npip install "eqprop[everything]"\n```\n',
    "Python": "1. A list\n\n    ```python\n    import eqprop\n    eqprop.Hopfeld\n    ```\n",
    "a language": "```console\n$ python scripts/train.py\n```\n",
    "YAML of its own": "```yaml\nmodel:\n  price: 1\n```\n",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_page_that_is_wrong_fails(what: str, tmp_path: Path, reader: Reader) -> None:
    page = tmp_path / "page.md"
    page.write_text(WRONG[what], encoding="utf-8")
    with pytest.raises((AssertionError, AttributeError, ConfigError, subprocess.SubprocessError)):
        reader.read(page)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_commands_in_its_text_exist(page: Path, reader: Reader) -> None:
    for command in pages.inline(page):
        words = shlex.split(given(command.replace("…", "")))
        reader.put_runs(" ".join(words))
        is_train, is_whole = script(words) == "train.py", "…" not in command
        (composed if is_train and is_whole else known_flags)(reader, words)
