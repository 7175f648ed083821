"""Several processes, one fate: when one is lost or fails, the others end soon, with one sentence.

Left to themselves they would wait for the lost one in a collective or a barrier, until JAX aborts them with a stack
trace. Every process tells the coordinator each second that it lives; the first process notices who fell silent and
tells the others; all of them notice when the first one is gone. Threads do this, so that it does not matter what a
process is waiting for. A process whose threads live while its computation hangs is not noticed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from kind_jax.errors import UserError
from kind_jax.train.ending import die

BEAT = 1.0  # seconds between signs of life
SILENCE = 30.0  # seconds without one after which a process is lost
GRACE = 5.0  # seconds for the others to come to the same error by themselves

CLIENT = ("key_value_set", "key_value_dir_get", "wait_at_barrier")  # what is used of JAX's client
_KEYS = "kind_jax"
_BROKEN = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL|UNAVAILABLE|UNKNOWN): ")
_RESTART = "Checkpoints are intact: start all hosts again with the same command, and the run continues."


class Watch:
    """The threads of one process; ``client`` is JAX's connection to the coordinator."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        self._client, self.index, self.count = client, index, count
        self._over, self._cut = threading.Event(), False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._talk, self._judge)]
        self._names: dict[int, str] = {}
        self._said: dict[int, dict[str, Any]] = {}  # by process: what ended it
        self._told = self._heard = False  # the main thread has an error to say; the coordinator has it
        # Silence is counted in wakeful ticks, not on a clock: a process that was suspended must not blame the others.
        self._unheard = 0.0  # since the coordinator answered
        self._beats: dict[int, str] = {}
        self._silent = dict.fromkeys(range(count), 0.0)  # known to the first process only

    def start(self) -> None:
        """From now on the others see that this process lives."""
        for thread in self._threads:
            thread.start()
        atexit.register(self.leave)  # comes before JAX's own, which was registered earlier

    def cut(self) -> bool:
        """Note that the coordinator has hung up; whether that is a loss, and not the end of the run."""
        self._cut = not self._over.is_set()
        return self._cut

    def leave(self, *, done: bool = False) -> None:
        """Wait until all have come to the end, if this one is ``done`` or failed with all; then nobody is missed."""
        if self._over.is_set():
            return
        if done or self._told:
            # No time limit of its own: if one does not come, a thread ends this.
            self._client.wait_at_barrier(f"{_KEYS}/end", 24 * 3600 * 1000)
        self._over.set()
        for thread in self._threads:  # threads that return from C++ into an interpreter that has ended would crash
            thread.join(2 * BEAT)

    def failed(self, error: Exception) -> None:
        """Tell the others of an error of this process; returns if all have one, and else ends the process.

        A collective breaks where another process was lost, so before such an error counts, the loss may show.
        """
        if self._told or self._over.is_set():
            return
        self._told = True
        user, sure = isinstance(error, UserError), not _may_be_broken_collective(error)
        text = " ".join(str(error).split()) if user else f"{type(error).__name__}: {str(error).strip()[:300]}"
        said = {"text": text.splitlines()[0] if text else "", "user": user, "sure": sure}
        self._said[self.index] = said  # sent by the other thread: the main thread must not wait for an answer
        for _ in range(int((GRACE + 3 * BEAT if sure else SILENCE + GRACE) / 0.1)):
            if self._all_alike(dict(self._said)):
                return  # they stop by themselves, each with its own words
            if sure and self._cut and (user or self._heard):
                break
            time.sleep(0.1)
        if user:
            die(text, 2)
        if sure:
            traceback.print_exception(error)
            die(f"process {self.index} of {self.count} failed alone, see above.", 1)
        self._heard, self._said[self.index] = False, said | {"sure": True}
        time.sleep(3 * BEAT)
        die(f"the hosts of this run have lost each other ({said['text'].rstrip('.')}). {_RESTART}")

    def _read(self, kind: str) -> dict[int, str]:
        found = self._client.key_value_dir_get(f"{_KEYS}/{kind}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in found}

    def _talk(self) -> None:
        beat = 0
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{_KEYS}/name/{self.index}", socket.gethostname())
        while not self._over.is_set():
            with contextlib.suppress(Exception):  # whatever it is: the coordinator counts as silent meanwhile
                beat += 1
                self._client.key_value_set(f"{_KEYS}/beat/{self.index}", str(beat), allow_overwrite=True)
                if not self._heard and (said := self._said.get(self.index)):
                    self._client.key_value_set(f"{_KEYS}/said/{self.index}", json.dumps(said), allow_overwrite=True)
                    self._heard = True
                for index, said in self._read("said").items():
                    if index != self.index or json.loads(said).get("lost"):
                        self._said[index] = json.loads(said)
                if len(self._names) < self.count:
                    self._names = self._read("name")
                if self.index == 0:
                    beats = self._read("beat")
                    for index in beats:
                        if beats[index] != self._beats.get(index):
                            self._silent[index] = 0.0
                    self._beats = beats
                self._unheard = 0.0
            self._over.wait(BEAT)

    def _judge(self) -> None:
        tick, said_for = 0.2, 0.0
        while not self._over.is_set():
            self._over.wait(tick)
            self._unheard += tick
            if self._over.is_set():
                return
            for index in self._silent:
                self._silent[index] += tick
            said = dict(self._said)
            certain = [i for i in sorted(said) if said[i]["sure"] and (i != self.index or said[i].get("lost"))]
            own = said.get(self.index, {})
            if own.get("sure") and not own.get("lost") and not self._all_alike(said) and (own["user"] or self._heard):
                continue  # the main thread ends it
            if certain and not self._all_alike(said):
                said_for += tick
                lost = [index for index in certain if said[index].get("lost")]
                if lost or said_for > GRACE or self._cut or self.index in said:
                    self._end_because_of(said, (lost or certain)[0])
            elif self._cut or (self.index and self._unheard > SILENCE):
                how = "closed its connection" if self._cut else "does not answer"
                ago = f"and was last heard {self._unheard:.0f} s ago"
                die(f"{self._name(0)} is lost: it {how}, {ago}. {_RESTART}")
            elif self.index == 0:
                silent = [i for i in range(1, self.count) if self._silent[i] > SILENCE and i not in certain]
                if silent:
                    self._lost(silent)

    def _all_alike(self, said: dict[int, dict[str, Any]]) -> bool:
        """Whether all processes have an error, and not some of them only since another one's broke a collective."""
        return len(said) == self.count and len({what["sure"] for what in said.values()}) == 1

    def _lost(self, silent: list[int]) -> None:
        names = ", ".join(self._name(i) for i in silent[:5]) + (", …" if len(silent) > 5 else "")
        text = f"{names} {'is' if len(silent) == 1 else 'are'} lost: nothing was heard for {SILENCE:.0f} s. {_RESTART}"
        said = json.dumps({"text": text, "user": False, "sure": True, "lost": True})
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{_KEYS}/said/{silent[0]}", said, allow_overwrite=True)
        if self.count - len(silent) > 1:
            time.sleep(3 * BEAT)  # the others read it from this process
        die(text)

    def _end_because_of(self, said: dict[int, dict[str, Any]], index: int) -> None:
        what = said[index]
        if what.get("lost"):
            die(what["text"])
        if what["user"]:
            die(f"{self._name(index)} stopped, and this one with it: {what['text']}", 2)
        die(f"{self._name(index)} failed: {what['text'].rstrip('.')}. {_RESTART}")

    def _name(self, index: int) -> str:
        where = f" (host {self._names[index]})" if index in self._names else ""
        return f"process {index} of {self.count}{where}"


def _may_be_broken_collective(error: BaseException | None) -> bool:
    import jax  # late: what uses this module to no effect should not wait for it

    while error is not None:
        if _BROKEN.match(str(error)):  # depending on the call, JAX makes a ValueError of it
            return True
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


_watch: Watch | None = None


def begin(watch: Watch) -> None:
    """Make ``watch`` the one of this process."""
    global _watch
    _watch = watch
    watch.start()


@contextlib.contextmanager
def one_fate() -> Iterator[None]:
    """What fails in here on one host alone ends the others as well, and does not wait for them.

    An error that all hosts have passes, so that each cleans up and ends in its own way. Can be nested: the innermost
    comes first, and belongs inside everything that waits for other hosts when it is left. Without other hosts it does
    nothing.
    """
    try:
        yield
    except Exception as e:
        if _watch is not None:
            _watch.failed(e)
        raise


def end() -> None:
    """Come to the end together with the other hosts, after everything is written."""
    global _watch
    if _watch is not None:
        _watch.leave(done=True)
        _watch = None
