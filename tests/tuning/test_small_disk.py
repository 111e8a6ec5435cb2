"""A disk that fills up during a study: one paragraph, and with more space the same command
completes it.

The disk is a small tmpfs. It is mounted in a namespace of its own, in which these tests run again.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.killing import Command, check_promise, in_state, kept, own_model, trials, unchanged
from support.soak import RANDOM, SOAK, repeatable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moments_of_its_own")]


INSIDE = "CHURNLAB_IN_A_NAMESPACE"
N = 12
ENGINES = (("engine=inline",), ("engine=processes", "engine.workers=2"))
ENOUGH = 64 * 2**20


def again_in_a_namespace(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Run a test where it may mount; the mounts end with the last process."""
    (tmp_path / "try").mkdir()
    for unshare in (["unshare", "--map-root-user", "--mount"], ["unshare", "--mount"]):
        try:
            mount = subprocess.run(
                [*unshare, "mount", "-t", "tmpfs", "tmpfs", tmp_path / "try"], capture_output=True
            )
        except FileNotFoundError:
            continue
        if mount.returncode == 0:
            break
    else:
        pytest.skip("no tmpfs can be mounted here, neither as root nor in a user namespace")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    ended = subprocess.run(
        [*unshare, sys.executable, "-m", "pytest", "-q", "-s", "-n0", "-p", "no:cacheprovider"]
        + [f"--basetemp={tmp_path}/inside", f"{request.path}::{request.node.name}"],
        capture_output=True,
        text=True,
        env=inherited | {INSIDE: "yes"},
        cwd=request.config.rootpath,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr


class Disk:
    """A tmpfs whose size can change."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True
        )

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def fill(self, left: int = 0) -> None:
        """Fill the disk except for ``left`` bytes, in whole pages."""
        while True:
            disk = os.statvfs(self.path)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_bsize
            mount = subprocess.run(
                ["mount", "-o", f"remount,size={used + left}", str(self.path)],
                capture_output=True,
                text=True,
            )
            if mount.returncode == 0:  # it fails if more was written in the meantime
                return


def refused(command: Command) -> None:
    """Check that the command ends with one paragraph for users, without technical terms."""
    ended = command.ended()
    assert ended.code in (1, 2), (ended.code, ended.err)
    assert ended.out == ""
    for technical in ("Traceback", "sqlite3", "sqlalche", "INSERT", "UPDATE", "SELECT", "[SQL"):
        assert technical not in ended.err, ended.err
    last = ended.err.splitlines()[-1]
    assert "space" in last or "full" in last or "Nothing can be written" in last, ended.err


def test_a_study_on_a_full_disk_says_so_and_resumes_when_there_is_space(request, tmp_path):
    """The disk is too small for the store, then full during a trial, then full before the
    figures."""
    if INSIDE not in os.environ:
        again_in_a_namespace(request, tmp_path)
        return
    disk = Disk(tmp_path / "disk", 2**18)
    home = disk.path / "home"
    words = [
        "tune",
        *own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=0.1),
        f"tune.n_trials={N}",
    ]
    with Command(home, *words, root=tmp_path) as command:
        refused(command)

    disk.resize(ENOUGH)
    for engine in ENGINES if SOAK else ENGINES[1:]:
        enough = len(kept(home).complete) + 2
        with Command(home, *words, *engine, root=tmp_path) as command:
            assert command.until(
                lambda enough=enough: len(in_state(trials(home), "COMPLETE")) >= enough, "a trial"
            )
            disk.fill()
            refused(command)
        disk.resize(ENOUGH)
    before = kept(home)
    assert 0 < len(before.complete) < N, "the disk was not full in the middle"

    with Command(home, *words, root=tmp_path) as command:
        assert command.until(lambda: len(in_state(trials(home), "COMPLETE")) == N, "the last trial")
        disk.fill(left=16384)
        refused(command)
    disk.resize(ENOUGH)
    with Command(home, *words, root=tmp_path) as command:
        check_promise(home, N, command.ended())
    assert unchanged(before, kept(home))


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_a_disk_of_any_size_that_fills_at_any_moment_does_no_harm(request, tmp_path):
    if INSIDE not in os.environ:
        again_in_a_namespace(request, tmp_path)
        return
    full = 0
    for study in range(SOAK // 4):
        root = tmp_path / str(study)
        disk = Disk(root / "disk", RANDOM.randrange(2**18, 2**21, 4096))
        home = disk.path / "home"
        words = [
            "tune",
            *own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=0.05),
            f"tune.n_trials={N}",
        ]
        with (
            Command(home, *words, *RANDOM.choice(ENGINES), root=root) as command,
            repeatable("of a fixed size"),
        ):
            if command.ended().code != 0:
                refused(command)
                full += 1
        for _ in range(2):
            disk.resize(ENOUGH)
            before = kept(home)
            moment, left = RANDOM.uniform(1, 12), 4096 * RANDOM.randrange(0, 32)
            with (
                Command(home, *words, *RANDOM.choice(ENGINES), root=root) as command,
                repeatable(moment, left),
            ):
                command.pause(moment)
                disk.fill(left)
                if command.ended().code != 0:
                    refused(command)
                    full += 1
            disk.resize(ENOUGH)
            assert unchanged(before, kept(home))
        with Command(home, *words, root=root) as command, repeatable("at the end"):
            check_promise(home, N, command.ended())
        subprocess.run(["umount", "-l", str(disk.path)], check=True)
    print(f"the disk was full {full} times")
