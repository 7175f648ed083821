"""What a user can type and what a stranger can send: each time it works, or one sentence says why not."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import resource
import shutil
import signal
import stat
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

from chaos import lines, mutate
from chaos.outcome import Outcome
from kind_jax.cli import main
from kind_jax.commands.console import option
from kind_jax.config import Config
from kind_jax.errors import UserError
from kind_jax.interrupts import received

PATIENCE, LIMIT = 5, 60  # seconds until a case is interrupted as by Ctrl-C, and until it is given up
GROWTH = 1.5e9  # bytes of memory that a whole fuzz may add
ENDS = (0, 2, 75, 130)


class _OverdueError(BaseException):
    """Not an Exception, so that no handler of ours takes it for an error of the input."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, its artifact, the same with other names of classes, and a dense model with the official names."""

    directory: Path
    artifact: Path
    named: Path
    dense: Path


def make_run(config: Config, folder: Path) -> Run:
    """Train ``config`` in ``folder``/run to its end, and export it, and a dense model that nothing has trained.

    Raises:
      UserError: whatever the trainer refuses.
    """
    from kind_jax import model
    from kind_jax.config import change
    from kind_jax.deploy.bundle import export, open_bundle
    from kind_jax.interchange import official
    from kind_jax.train.loop import train

    run = run_in(folder)
    train(config, run.directory)
    bundle = open_bundle(run.directory)
    export(bundle, run.artifact)
    export(dataclasses.replace(bundle, class_names=lines.CLASS_NAMES), run.named)
    plain = change(config.model, factor={"projections": ()}, learn_sigma=True)
    state = official.to_state_dict(plain, model.init(plain, 0)["params"])
    safetensors.numpy.save_file({name: np.ascontiguousarray(a) for name, a in state.items()}, run.dense)
    return run


def run_in(folder: Path) -> Run:
    """Where :func:`make_run` puts what it makes."""
    return Run(directory=folder / "run", artifact=folder / "art", named=folder / "named", dense=folder / lines.DENSE)


def fuzz_lines(whole: Run, scratch: Path, cases: int, seed: int, *, first: int = 0) -> Outcome:
    """Run ``cases`` command lines of all verbs, most of them wrong, against copies of a run and its artifact.

    What is promised: the exit code is 0, 2, 75 or 130; a refusal is one sentence on stderr (or tyro's box), leaves
    nothing behind and changes nothing; no trace of the stack; an end within a minute; bounded memory. What takes longer
    than five seconds is interrupted as by Ctrl-C; a command ends its process then, so this ends as well, after fewer
    cases: libraries that were interrupted anywhere are not fit to go on with.

    Args:
      whole: what :func:`make_run` makes; it is not changed.
      first: number of the first case, to repeat one that failed or to go on.
    """
    failures, codes, start = [], [], _peak()
    for case in range(first, first + cases):
        place = (scratch / f"case_{case}").resolve()
        lines.lay_out(place, whole.directory, whole.artifact, whole.named, whole.dense)
        line = lines.draw(np.random.default_rng([seed, case]), place)
        code, problems = _try(line, place)
        codes.append(code)
        grown = _peak() - start
        if grown > GROWTH:
            problems.append(f"memory has grown by {grown / 1e9:.1f} GB")
            start = _peak()  # said once
        said = " ".join(arg if len(arg) < 200 else f"{arg[:20]}...({len(arg)})" for arg in map(ascii, line.args))
        failures += [f"seed {seed}, case {case}: {said} {line.damage}: {problem}" for problem in problems]
        shutil.rmtree(place)
        if received():
            break
    refused = codes.count(2)
    valid = sum(code in (0, 75, 130) for code in codes)
    return Outcome(cases=len(codes), figures={"refused": refused, "valid": valid}, failures=tuple(failures))


def fuzz_headers(artifact: Path, scratch: Path, cases: int, seed: int) -> Outcome:
    """Open ``cases`` damaged copies of an artifact.

    What is promised: one printable sentence, or the very same weights; little memory, little time, nothing written.
    """
    from kind_jax.deploy.bundle import open_bundle

    def bits(folder: Path) -> str:
        from kind_jax.partition import weights_sha256

        return weights_sha256(open_bundle(folder).collections)

    wanted, refused, failures = bits(artifact), 0, []
    for case in range(cases):
        folder = scratch / f"case_{case}"
        shutil.copytree(artifact, folder)
        mutate.artifact(np.random.default_rng([seed, case]), folder)
        before, begun, problems = listing(scratch), time.monotonic(), []
        tracemalloc.start()
        try:
            if bits(folder) != wanted:
                problems.append("opened as another model")
        except UserError as e:
            refused += 1
            text = str(e)
            if not (text.isprintable() and text.endswith(".") and len(text) < 2000):
                problems.append(f"not one sentence: {text!r}")
        except Exception:
            problems.append(traceback.format_exc())
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if peak >= 64 << 20:
            problems.append(f"took {peak >> 20} MiB")
        if time.monotonic() - begun > 5:
            problems.append("took more than 5 seconds")
        if listing(scratch) != before:
            problems.append("wrote something")
        failures += [f"seed {seed}, header {case}: {problem}" for problem in problems]
        shutil.rmtree(folder)
    figures = {"refused": refused, "valid": cases - refused}
    return Outcome(cases=cases, figures=figures, failures=tuple(failures))


def listing(folder: Path) -> dict[Path, str]:
    """Everything below a folder: what it is, and what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[path] = f"-> {os.readlink(path)}"
        elif stat.S_ISREG(mode):
            readable = os.access(path, os.R_OK)
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest() if readable else str(path.lstat().st_mtime_ns)
        else:
            found[path] = "folder" if stat.S_ISDIR(mode) else "special"
    return found


def _try(line: lines.Line, place: Path) -> tuple[object, list[str]]:
    """The exit code of a line, and what is wrong with how it ended."""
    before, here, begun = listing(place), Path.cwd(), time.monotonic()
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    problems, code = [], None
    os.chdir(place / "a" / "b")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _bounded():
            code = main(list(line.args))
    except SystemExit as e:
        code = e.code
    except _OverdueError:
        problems.append(f"took more than {LIMIT} seconds")
    except BaseException:
        problems.append(traceback.format_exc())
    finally:
        os.chdir(here)
    if time.monotonic() - begun > LIMIT:
        problems.append("took too long")
    said, complained = (s.buffer.getvalue().decode(errors="replace") for s in (out, err))  # pyright: ignore
    if problems:
        return code, problems
    if code not in ENDS:
        problems.append(f"ended with {code!r}: {complained[-500:]}")
    if line.doomed and code != 2:
        problems.append(f"ended with {code!r}, but it must be refused")
    if "Traceback" in said + complained:
        problems.append(f"a trace of the stack: {(said + complained)[-1500:]}")
    if code == 2 and (wrong := _unlike_a_sentence(complained, line)):
        problems.append(f"{wrong}: {complained[-500:]!r}")
    return code, problems + _traces(line, place, before, code)


def _unlike_a_sentence(text: str, line: lines.Line) -> str:
    if not text and not line.args:
        return ""  # the usage, on stdout
    rows = text.removesuffix("\n").split("\n")
    if not all(row.isprintable() for row in rows):
        return "control characters"
    if text.startswith("╭") and rows[-1].startswith("╰"):
        return ""
    if len(rows) != 1 or not text.startswith("error: "):
        return "not one sentence"
    return "too long" if len(text) > 2100 else ""


def _traces(line: lines.Line, place: Path, before: dict[Path, str], code: object) -> list[str]:
    """What changed that should not have: after a refusal nothing may, otherwise only what was named as output."""
    after = listing(place)
    changed = [path for path in before if after.get(path) != before[path]]
    new = [path for path in after if path not in before and path.name != ".lock"]
    args = list(line.args)
    named = [value for name in ("--out", "--workdir", "--plot") for value in _values(args, name)]
    outputs = [Path(os.path.realpath(place / "a" / "b" / value)) for value in named if "\0" not in value]
    if code == 2:
        # A run that had begun keeps what it has; a lock stays behind, with the folder that it is in.
        trains = bool({"train", "transfer"} & set(args[:1]))
        begun = [p for p in (*outputs, place / "a/b/runs/config") if trains and _is_run(p)]
        folders = {p for p in new if after[p] == "folder" and not any(q in p.parents or p in q.parents for q in new)}
        new = [p for p in new if not any(q == p or q in p.parents for q in begun) and not (p in folders and _locked(p))]
        changed = [p for p in changed if not any(q == p or q in p.parents for q in begun)]
    else:
        new = []
        changed = [p for p in changed if not any(q == p or q in p.parents for q in outputs)]
    names = [str(p.relative_to(place)) for p in (*changed, *new)]
    return [f"code {code}, but changed or left behind: {', '.join(names[:10])}"] if names else []


def _values(args: list[str], name: str) -> Iterator[str]:
    for at in range(len(args)):
        if (value := option(args[at:], name)) is not None:
            yield value


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / "config.json")  # unlike is_file, without an error for a name that is too long


def _locked(folder: Path) -> bool:
    return [p.name for p in folder.iterdir()] == [".lock"]


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ctrl-C after a while, and an end by force later."""

    def ring(number: int, frame: object) -> None:
        del number, frame
        if not rung:
            rung.append(True)
            signal.alarm(LIMIT - PATIENCE)
            signal.raise_signal(signal.SIGINT)
        else:
            raise _OverdueError

    rung: list[bool] = []
    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _peak() -> int:
    """Bytes; the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
