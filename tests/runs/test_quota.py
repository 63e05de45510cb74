"""How many threads a run takes: as its container lets it, and none that cannot be started."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
from interrupted import with_code
from running import QUICK

from eqprop.cli.device import try_threads
from eqprop.run.errors import RunError
from eqprop.run.hardware import processors

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(autouse=True)
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def machine(root: Path, lines: str, files: dict[str, str]) -> int:
    """The processors of a machine whose kernel says this of its control groups."""
    for name, text in {"proc/self/cgroup": lines, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return processors(root)


@pytest.mark.parametrize(
    ("lines", "files", "count"),
    [
        # docker run --cpus=2, v2, which shows the container its own group as the root
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        # a service of systemd's: the tightest of the groups around it
        (
            "0::/user.slice/a.service\n",
            {
                "sys/fs/cgroup/user.slice/cpu.max": "350000 100000\n",
                "sys/fs/cgroup/user.slice/a.service/cpu.max": "max 100000\n",
            },
            3,
        ),
        # docker, v1, which shows the container the host's path
        (
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        # v1 on the host, with the controller's short name
        (
            "1:cpu:/group\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/group/cpu.cfs_quota_us": "800000\n",
                "sys/fs/cgroup/cpu/group/cpu.cfs_period_us": "200000\n",
            },
            4,
        ),
        ("nonsense", {"sys/fs/cgroup/cpu.max": "0 0\n"}, 64),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 0\n"}, 64),
    ],
)
def test_a_quota(lines: str, files: dict[str, str], count: int, tmp_path: Path) -> None:
    assert machine(tmp_path, lines, files) == count


def test_without_control_groups(tmp_path: Path) -> None:
    assert processors(tmp_path) == 64


def test_it_decides_the_threads_and_is_recorded(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from eqprop.run import hardware\n"
        "os.sched_getaffinity = lambda _: set(range(8))\n"
        "hardware._quotas = lambda root: iter([3.5])\n"
        "os.environ.pop('OMP_NUM_THREADS', None)\n"
    )
    with_code(code, *QUICK, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    found = json.loads((tmp_path / "a" / "environment.json").read_text())["hardware"]
    assert (found["cores_usable"], found["threads"]) == (3, 3)


def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told beforehand: OpenMP's own way is to end the process."""

    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    try_threads(8)
    monkeypatch.setattr("threading.Thread.start", start)
    with pytest.raises(RunError, match=r"8 threads.*device\.threads=1"):
        try_threads(8)
    try_threads(1)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root")
def test_a_limit_on_processes(tmp_path: Path) -> None:
    """``ulimit -u`` holds for others than root."""
    import subprocess

    tmp_path.chmod(0o777)
    limit = ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups"]
    code = (
        "import sys\n"
        "from eqprop.cli.device import try_threads\n"
        "from eqprop.run.errors import RunError\n"
        "try:\n"
        "    try_threads(30)\n"
        "except RunError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [*limit, sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (8, 8)),
        capture_output=True,
        text=True,
    )
    if "Permission denied" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("this interpreter is not there for other users")
    assert "device.threads=1" in done.stderr, done.stderr
