"""Files and words that were not meant for us: refused in one line, or kept harmless."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from running import QUICK, ROOT, Ran, rows, status, train
from test_resume import RUN, killed, learnt

import eqprop
from eqprop import checkpoint
from eqprop.checkpoint import CheckpointError, read


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole checkpoint of a few tensors."""
    path = tmp_path_factory.mktemp("small") / "last.pt"
    meta = {"kind": "training", "epoch": 2, "batches": 0}
    checkpoint.write(path, meta, {"a": torch.arange(5.0), "b": [1, "x"]})
    return path.read_bytes()


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        read(path).tensors()
    line = str(error.value)
    assert str(path) in line
    assert "\n" not in line
    return line


def sealed(meta: bytes, body: bytes) -> bytes:
    """A file whose checksum holds, whatever is in it."""
    rest = meta + b"\n" + body
    digest = hashlib.sha256(rest).hexdigest()
    return f"eqprop-checkpoint 1 {digest} {len(rest)}\n".encode() + rest


def test_truncated_anywhere(small: bytes, tmp_path: Path) -> None:
    for size in [*range(0, 120), *range(120, len(small), 37), len(small) - 1]:
        line = refused(tmp_path, small[:size])
        assert "truncated" in line or size == 0


def test_one_bit_flipped_anywhere(small: bytes, tmp_path: Path) -> None:
    for at in [*range(0, 120), *range(120, len(small), 23), len(small) - 1]:
        for bit in (0, 6):
            flipped = bytearray(small)
            flipped[at] ^= 1 << bit
            refused(tmp_path, bytes(flipped))


def test_something_after_the_end(small: bytes, tmp_path: Path) -> None:
    assert "damaged" in refused(tmp_path, small + b"\0")


def test_another_program_s(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(2)}, buffer)
    for data in (buffer.getvalue(), pickle.dumps({"a": 1}), b"\x89HDF\r\n", b"<html>", b"\n"):
        assert "not a checkpoint of eqprop" in refused(tmp_path, data)


def test_a_later_version_s(small: bytes, tmp_path: Path) -> None:
    later = small.replace(b"eqprop-checkpoint 1 ", b"eqprop-checkpoint 2 ", 1)
    assert "has format 2, this version of eqprop reads 1" in refused(tmp_path, later)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("way", ["zip", "pickle"])
def test_a_pickle_with_a_payload(
    variable: str | None, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    target = tmp_path / "owned"
    buffer = io.BytesIO()
    state = {"model": {"a": torch.zeros(1)}, "more": Payload(target)}
    torch.save(state, buffer, _use_new_zipfile_serialization=way == "zip")
    assert "refused" in refused(tmp_path, sealed(b"{}", buffer.getvalue()))
    assert "refused" in refused(tmp_path, sealed(b"{}", pickle.dumps(Payload(target))))
    assert not target.exists()


def test_the_payload_works_where_nobody_refuses(tmp_path: Path) -> None:
    """So that the test above tests something."""
    buffer = io.BytesIO()
    torch.save(Payload(tmp_path / "owned"), buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=False).close()
    assert (tmp_path / "owned").exists()


def test_both_variables_do_not_lock_us_out(
    small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "x.pt"
    path.write_bytes(small)
    assert read(path).tensors()["b"] == [1, "x"]


def test_tensors_that_unpack_to_more_than_there_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, buffer)
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(buffer) as archive,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    assert "compressed" in refused(tmp_path, sealed(b"{}", bomb.getvalue()))


@pytest.mark.parametrize("meta", [b"[]", b"nothing", b"[" * 100_000])
def test_a_second_line_that_is_nothing(meta: bytes, tmp_path: Path) -> None:
    assert "second line" in refused(tmp_path, sealed(meta, b""))


# in a run's folder


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the run `a`, killed in its third epoch, and the same left alone."""
    cwd = tmp_path_factory.mktemp("cut")
    train(*RUN, "hydra.run.dir=alone", cwd=cwd).succeeded()
    killed(30, *RUN, "checkpoint.keep=1", "hydra.run.dir=a", cwd=cwd)
    return cwd


@pytest.fixture
def cwd(cut: Path, tmp_path: Path) -> Path:
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    return tmp_path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it may be one file under two names
    path.write_bytes(bytes(data))


def test_the_newest_valid_one_is_used(cwd: Path) -> None:
    files = cwd / "a" / "checkpoints"
    damage(files / "last.pt")
    damage(files / "epoch-2.pt")
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 0
    warnings = [line for line in ran.out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert all("checksum does not hold; the one before it is used" in line for line in warnings)
    assert learnt(cwd / "a") == learnt(cwd / "alone")
    assert (files / "last.pt.aside").exists()


def test_of_an_explicitly_named_one_there_is_no_fallback(cwd: Path) -> None:
    damage(cwd / "a" / "checkpoints" / "last.pt")
    ran = train("resume=a/checkpoints/last.pt", cwd=cwd)
    assert ran.code == 2
    assert "last.pt is damaged" in ran.error
    assert status(cwd / "a")["state"] == "running"  # nothing was touched


def test_an_explicitly_named_one_is_used(cwd: Path) -> None:
    """It is the one of epoch 1; what lies after it is set aside, and comes out again."""
    ran = train("resume=a/checkpoints/last.previous.pt", cwd=cwd).succeeded()
    assert "epoch 2/3" in ran.out
    assert learnt(cwd / "a") == learnt(cwd / "alone")


def test_all_of_them_broken(cwd: Path) -> None:
    for path in (cwd / "a" / "checkpoints").glob("*.pt"):
        damage(path)
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 2
    assert "no other one to fall back on" in ran.error
    assert len(rows(cwd / "a")) > 10  # the metrics are still there


def test_one_of_another_network(cwd: Path) -> None:
    """Even under the right configuration: shapes are compared before anything is copied."""
    train(*RUN, "model.hidden=[8]", "hydra.run.dir=other", cwd=cwd).succeeded()
    files = cwd / "a" / "checkpoints"
    ours, theirs = read(files / "last.pt"), read(cwd / "other" / "checkpoints" / "last.pt")
    for path in files.glob("*.pt"):
        path.unlink()
    data = json.dumps(ours.meta).encode()
    (files / "last.pt").write_bytes(sealed(data, theirs.body))
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 2
    assert "of another network: W.0.weight is (8, 64) there, (16, 64) here" in ran.error


def test_a_checkpoint_names_no_code_to_run(cwd: Path) -> None:
    files = cwd / "alone" / "checkpoints"
    found = read(files / "last.pt")
    found.meta["config"]["model"] = {
        "_target_": "pathlib.Path.touch",
        "hidden": [16],
        "activation": "sigmoid",
    }
    (files / "last.pt").write_bytes(sealed(json.dumps(found.meta).encode(), found.body))
    with pytest.raises(CheckpointError, match="is no EnergyBasedModel"):
        eqprop.load(cwd / "alone")


# load and evaluate


def test_load_gives_the_model_that_was_trained(cwd: Path) -> None:
    model = eqprop.load(cwd / "alone")
    weights = read(cwd / "alone" / "checkpoints" / "last.pt").tensors()["model"]
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    model.resize(3)
    model.clamp_layer(0, torch.rand(3, 64))
    model.fast_init()
    assert model.u[-1].argmax(1).shape == (3,)
    best = eqprop.load(cwd / "alone", "best")
    assert best.dimensions == [64, 16, 10]


def test_load_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        eqprop.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read"):
        eqprop.load(tmp_path, "best")


def evaluate(cwd: Path, *arguments: str) -> Ran:
    return train(*arguments, cwd=cwd, script=ROOT / "scripts" / "evaluate.py")


def test_evaluating_again_gives_the_recorded_accuracy(cwd: Path) -> None:
    recorded = rows(cwd / "alone")[-1]
    ran = evaluate(cwd, "alone").succeeded()
    for line, split in zip(ran.out.splitlines(), ("validation", "test"), strict=True):
        percent = f"{100 * recorded[f'accuracy/{split}']:.2f} %"
        assert line.startswith(split)
        assert line.count(percent) == 2
    evaluate(cwd, "alone", "--checkpoint", "best").succeeded()


def test_evaluating_tells_when_it_does_not(cwd: Path) -> None:
    path = cwd / "alone" / "metrics.jsonl"
    *before, last = path.read_text().splitlines()
    changed = json.dumps({**json.loads(last), "accuracy/test": 0.5})
    path.write_text("\n".join([*before, changed]) + "\n")
    assert evaluate(cwd, "alone").code == 1


def test_evaluating_nothing(tmp_path: Path) -> None:
    ran = evaluate(tmp_path, "nowhere")
    assert ran.code == 2
    assert "holds no checkpoint" in ran.error


# words


@pytest.mark.parametrize(
    "name",
    ["../../../out", "/etc/x", "a\tb\x07c", "x" * 300, "<script>alert(1)</script>",
     "${oc.env:HOME}", "..", "~root", "a/b\\c", "\u202etxt.exe"],
)  # fmt: skip
def test_a_name_stays_in_the_output_folder(name: str, tmp_path: Path) -> None:
    from eqprop.command import quoted

    cwd = tmp_path / "here"
    cwd.mkdir()
    ran = train(*QUICK, f"name={quoted(name)}", cwd=cwd)
    assert ran.code == 0, ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["here"]
    assert [p.name for p in cwd.iterdir()] == ["outputs"]
    assert ran.folder.parent.parent == cwd / "outputs"
    assert len(ran.folder.name.encode()) <= 100


def refused_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(text)
    ran = train("--config-dir", "conf", "model=mine", *QUICK[2:], cwd=tmp_path)
    assert ran.code == 2
    assert not (tmp_path / "outputs").exists()
    return ran.error


def test_an_alias_bomb(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [{', '.join(['*a' + str(i - 1)] * 10)}]")
    error = refused_file(tmp_path, "\n".join(lines) + "\n")
    assert "mine.yaml grows beyond 100000 values by its aliases" in error


def test_a_file_of_ten_megabytes(tmp_path: Path) -> None:
    error = refused_file(tmp_path, "a: b\n" + "# x\n" * 2_600_000)
    assert "mine.yaml is larger than 1000000 bytes" in error


def test_aliases_in_moderation_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    text = (ROOT / "conf" / "model" / "gaussian.yaml").read_text()
    text = text.replace("hidden: [1000]", "hidden: &h [4]\nactivation: &a sigmoid")
    lines = [x for x in text.splitlines() if not x.startswith("activation: sigmoid")]
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("\n".join(lines))
    ran = train("--config-dir", "conf", "model=mine", "--cfg", "job", cwd=tmp_path)
    assert ran.code == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=1e400", "optimizer.lr=inf: must be a finite number > 0"),
        (f"seed={2**70}", "must be a whole number from 0 to 2^63 - 1"),
        ("seed=2**70", "seed='2**70': must be a whole number"),
        ("checkpoint.keep=-1", "checkpoint.keep=-1: must be a whole number >= 0"),
        ("checkpoint.share=0", "checkpoint.share=0: must be a number > 0 and <= 1"),
        ("checkpoint.every_steps=0", "checkpoint.every_steps=0: must be null or a whole number"),
    ],
)
def test_numbers_out_of_this_world(override: str, words: str, tmp_path: Path) -> None:
    ran = train(*QUICK, override, cwd=tmp_path)
    assert ran.code == 2
    assert words in ran.error
    assert list(tmp_path.iterdir()) == []


# secrets

KEY = "5ec2e7" * 6 + "abcd"
PASSWORD = "hunter2-hunter2"


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    """A key in the environment and the configuration, a password in a URL: nowhere on the disk."""
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    url = f"https://me:{PASSWORD}@example.org/x.git"
    subprocess.run(["git", "remote", "add", "origin", url], cwd=tmp_path, check=True)
    notes = f"tracking.notes='{KEY} at {url}'"
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    for more, code in (
        ([], 0),
        (["+wrong=" + KEY], 2),
        (["dataset=mnist", f"paths.data={KEY}"], 2),
    ):
        ran = train(
            *(QUICK[:3] if code == 0 else QUICK[1:3]),
            *("tracking=wandb_online", notes, "name='${oc.env:WANDB_API_KEY}'"),
            *more,
            cwd=tmp_path,
            env=env,
        )
        assert ran.code == code, ran.out + ran.err
        assert KEY not in ran.out
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        data = path.read_bytes()
        assert KEY.encode() not in data, path
        assert PASSWORD.encode() not in data, path
        assert KEY not in str(path)
