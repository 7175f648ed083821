import os
import signal
import subprocess
import sys
import time

import pytest

from kind_jax.errors import UserError
from kind_jax.train.lock import run_lock

OWNER = """
import os, sys, time
from kind_jax.train.lock import run_lock
with run_lock(sys.argv[1]):
    if os.fork() == 0:  # a worker that outlives its parent
        print(os.getpid(), flush=True)
        time.sleep(60)
    time.sleep(60)
"""


def test_released_after_the_block_and_after_an_error(tmp_path):
    run = tmp_path / "runs" / "a"
    for _ in range(2):
        with pytest.raises(RuntimeError), run_lock(run):
            raise RuntimeError
    with run_lock(run), pytest.raises(UserError, match=f"in use by process {os.getpid()} "), run_lock(run):
        pytest.fail("the block must not run")


def test_living_owner_blocks_and_killed_owner_does_not(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker = int(owner.stdout.readline())
    try:
        with pytest.raises(UserError, match=f"{tmp_path}.*process {owner.pid} on "), run_lock(tmp_path):
            pytest.fail("the block must not run")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.kill(worker, 0)  # the worker lives, and must not hold the lock
        with run_lock(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} ")
    finally:
        os.kill(worker, signal.SIGKILL)
        owner.kill()
        owner.stdout.close()


def test_forked_child_that_leaves_the_block_does_not_unlock(tmp_path):
    with run_lock(tmp_path):
        child = subprocess.run(
            [
                sys.executable,
                "-c",
                "import os, sys\n"
                "from kind_jax.train.lock import run_lock\n"
                "from kind_jax.errors import UserError\n"
                "with run_lock(sys.argv[1]):\n"
                "    pid = os.fork()\n"
                "    if pid: os.waitpid(pid, 0)\n"
                "    if pid:\n"
                "        assert open(sys.argv[1] + '/.lock').read().startswith(str(os.getpid()))\n"
                "        try:\n"
                "            with run_lock(sys.argv[1]): print('free')\n"
                "        except UserError: print('held')\n",
                tmp_path / "other",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    assert child.stdout == "held\n"


def test_unusable_directory_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"file.*could not be locked"), run_lock(tmp_path / "file"):
        pytest.fail("the block must not run")
    assert time.monotonic() - start < 1
