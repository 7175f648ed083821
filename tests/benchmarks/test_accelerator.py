"""The script for accelerators, on a CPU: it is complete, sees what is wrong, and loses nothing."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import documents
import numpy as np
import pytest

from kind_jax.errors import UserError

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPT = FOLDER / "accelerator.py"

# Of the gradient of jax.nn.dot_product_attention, bfloat16, as jax 0.10.2 has it for CUDA; cut to what is read.
FORWARD = (
    "  dot_product_attention_fwd.5 = (bf16[4,2,64,64]{3,1,2,0}, f32[4,2,64]{2,1,0}, u8[0]{0}) custom-call(q.1, k.1, "
    'v.1), custom_call_target="__cudnn$fmhaSoftmax", operand_layout_constraints={bf16[4,64,2,64]{3,2,1,0}, '
    "bf16[4,64,2,64]{3,2,1,0}, bf16[4,64,2,64]{3,2,1,0}}, api_version=API_VERSION_STATUS_RETURNING\n"
)
BACKWARD = (
    "  dot_product_attention_bwd.8 = (bf16[4,2,64,64]{3,1,2,0}, bf16[4,2,64,64]{3,1,2,0}, u8[0]{0}) custom-call(q.1, "
    'k.1, v.1), custom_call_target="__cudnn$fmhaSoftmaxBackward", api_version=API_VERSION_STATUS_RETURNING\n'
)
PRODUCT = '  custom-call.1 = (f32[8,8]{1,0}, s8[4194304]{0}) custom-call(a, b), custom_call_target="__cublas$gemm"\n'


@pytest.fixture(scope="module")
def load():
    """A function that imports a module of the folder under its plain name, as the script does."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == FOLDER:
            del sys.modules[name]


def run(*arguments):
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_COMPILATION_CACHE_DIR": str(FOLDER.parent / ".cache" / "jax-tests"),
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=850)


def test_a_tiny_run_is_complete(tmp_path):
    out = tmp_path / "found" / "accelerator.json"
    cases = "^dense; float32|^dense, bfloat16|^tiny: (dense$|PyTorch|composed, dense)"
    sections = "numerics,attention,torch,train,sampling"  # plans are in the slow test
    done = run("--quick", "--out", out, "--cases", cases, "--only", sections)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    status = {(case["section"], case["name"]): case["status"] for case in found["cases"]}
    assert status == {
        ("numerics", "reference on the CPU"): "ok", ("numerics", "dense; float32, highest"): "ok",
        ("attention", "dense, bfloat16"): "not applicable",
        ("train", "tiny: dense"): "ok",
        ("torch", "tiny: PyTorch"): "skipped" if importlib.util.find_spec("torch") is None else "ok",
        ("sampling", "tiny: dense"): "ok", ("sampling", "tiny: composed, dense"): "ok",
    }  # fmt: skip
    figures = {(case["section"], case["name"]): case["figures"] for case in found["cases"]}
    step = figures["train", "tiny: dense"]
    assert step["seconds"] > 0
    assert step["images_per_second"] == pytest.approx(16 / step["seconds"])
    assert step["mfu"] is step["peak_bytes"] is None  # a CPU says neither
    composed = figures["sampling", "tiny: composed, dense"]
    assert composed["against"] == "dense"
    assert composed["ratio"]["low"] <= composed["ratio"]["median"] <= composed["ratio"]["high"]
    assert composed["difference_from_source"] < 0.05
    assert found["versions"]["jax"]
    assert found["machine"]["platform"] == "cpu"
    assert "--quick" in found["command"]
    table = out.with_suffix(".md").read_text()
    assert table in done.stdout
    assert all(f"| {section} | {name} |" in table for section, name in status)
    assert "Tiny sizes" in table


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_cases_of_a_tiny_run_are_right(tmp_path):
    out = tmp_path / "accelerator.json"
    done = run("--quick", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(case["section"], case["name"]): case for case in json.loads(out.read_text())["cases"]}
    status = {key: case["status"] for key, case in found.items()}
    other = {key for key, value in status.items() if value != "ok"}
    assert other <= {("attention", "dense, bfloat16"), ("torch", "tiny: PyTorch")}
    assert {section for section, _ in status} == {"numerics", "attention", "torch", "train", "sampling", "plan"}
    step, plan = (found[section, "tiny: KIND, N_T 2, remat"]["figures"] for section in ("train", "plan"))
    assert plan["memory_bytes"] == pytest.approx(step["program_bytes"], rel=0.2)
    assert plan["flops"] == pytest.approx(step["flops"] * 4 / 3)  # a plan counts what remat computes again


def test_bad_arguments_are_refused_in_one_sentence(tmp_path):
    out = tmp_path / "accelerator.json"
    for arguments, sentence in (
        (["--only", "train,sped"], "error: --only is 'sped', but it must be one of numerics,"),
        (["--bogus"], "error: unrecognized arguments: --bogus; --help"),
    ):
        done = run(*arguments, "--out", out)
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)
        assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "XL/2"], "--size is 'XL/2', but it must be one of tiny"),
        (["--minutes", "-1"], "--minutes is -1.0, but it must be 0 or more"),
        (["--rounds", "0"], "--rounds is 0, but it must be 1 or more"),
        (["--steps", "few"], "invalid int value: 'few'"),
        (["--cases", "("], r"--cases is '\(', but it must be a regular expression"),
        (["--only", ","], "--only is '', but it must be at least one section"),
    ],
)
def test_other_bad_arguments(load, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        load("accelerator").parse(arguments)


def test_documented_lines_are_read(load):
    path = FOLDER.parent / "docs" / "performance.md"
    found = [line.words[2:] for line in documents.lines(path) if "benchmarks/accelerator.py" in line.words]
    assert len(found) > 2
    for words in found:
        load("accelerator").parse(words)


def test_numerics_see_what_is_wrong(load):
    numerics, log = load("accelerator_numerics"), load("accelerator_log")
    rng = np.random.default_rng(0)
    shapes = {"samples": (4, 8, 8, 4), "losses": (3,), "gradient.mu['a']": (64, 64), "gradient.mu['b']": (2,)}
    reference = {name: rng.standard_normal(shape, np.float32) + 3 for name, shape in shapes.items()}
    allowed = numerics.MODES["bfloat16"][-1]
    near = {name: a * np.float32(1.001) for name, a in reference.items()}
    assert numerics.judge(near, reference, allowed)["errors"]["gradient"] == pytest.approx(1e-3, rel=0.01)
    with pytest.raises(log.WrongError, match=r"loss 0\.001"):
        numerics.judge(near, reference, numerics.MODES["float32, highest"][-1])
    for name, factor, said in (
        ("samples", 1.05, "samples"), ("losses", 1.01, "loss"), ("gradient.mu['a']", 0.9, "gradient"),
        ("gradient.mu['b']", 0.5, "leaf"),  # too small to be seen in the whole gradient
        ("gradient.mu['b']", np.nan, "gradient nan"),
    ):  # fmt: skip
        with pytest.raises(log.WrongError, match=said) as caught:
            numerics.judge(near | {name: reference[name] * np.float32(factor)}, reference, allowed)
        assert caught.value.figures["errors"]
        assert said == "gradient" or "gradient 0" not in str(caught.value)
    with pytest.raises(UserError, match="other names or shapes"):
        numerics.judge({name: a[:1] for name, a in near.items()}, reference, allowed)


def test_fused_attention_is_read_off_a_program(load):
    fused, log = load("fused"), load("accelerator_log")
    step = PRODUCT + FORWARD + BACKWARD + FORWARD.replace("fwd.5", "fwd.9")  # a second time, of rematerialisation
    assert fused.check(step, wanted=True) == {"forward": 2, "backward": 1}
    assert fused.targets(step) == {"__cublas$gemm": 1, "__cudnn$fmhaSoftmax": 2, "__cudnn$fmhaSoftmaxBackward": 1}
    assert fused.attention(BACKWARD.replace("Backward", "Backward$f8")) == {"forward": 0, "backward": 1}
    with pytest.raises(log.WrongError, match="1 calls of it forward and 0 backward"):
        fused.check(PRODUCT + FORWARD, wanted=True)
    assert fused.check(PRODUCT, wanted=False) == {"forward": 0, "backward": 0}


@pytest.mark.slow
def test_one_case_may_fail_and_time_may_run_out(load, tmp_path):
    logs = load("accelerator_log")
    now = [0.0]
    out = tmp_path / "a.json"
    log = logs.Log(out, {"machine": "m"}, 2.0, [], clock=lambda: now[0])

    def failing(error):
        def compute():
            raise error

        return compute

    log.case("train", "large", failing(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 B.")))
    log.case("train", "peer", failing(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")))
    log.case("train", "broken", failing(ValueError("\nno such thing\nat all")))
    log.case("train", "absent", failing(logs.SkippedError("PyTorch is not installed")))
    log.case("train", "wrong", failing(logs.WrongError("the loss is nan", {"seconds": 1.0})))
    log.case("train", "fine", lambda: {"seconds": 2.0})
    now[0] = 120.0
    log.case("train", "late", failing(AssertionError("never called")))
    saved = logs.read(out)["cases"]
    assert {case.name: (case.status, case.note) for case in saved} == {
        "large": ("out of memory", "RuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 B."),
        "peer": ("out of memory", "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        "broken": ("failed", "ValueError: no such thing"),
        "absent": ("skipped", "PyTorch is not installed"),
        "wrong": ("wrong", "the loss is nan"),
        "fine": ("ok", ""),
        "late": ("skipped", "the 2 minutes of --minutes are over"),
    }
    again = logs.Log(out, {"machine": "m"}, 2.0, saved)  # as --add has it
    again.case("train", "late", lambda: {"seconds": 3.0})
    assert [case.status for case in logs.read(out)["cases"]][-1] == "ok"
    assert len(logs.read(out)["cases"]) == 7
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(UserError, match=r"b\.json cannot be added to"):
        logs.read(tmp_path / "b.json")


@pytest.mark.slow
def test_the_table_says_what_an_accelerator_says(load, tmp_path):
    logs, tables, training = (load(f"accelerator_{name}") for name in ("log", "table", "training"))
    first, second = (
        {"bytes_in_use": used, "peak_bytes_in_use": most} for used, most in ((4 * 10**9, 9 * 10**9), (5, 12 * 10**9))
    )
    assert training.peak(first, second) == {"peak_bytes": 8 * 10**9, "peak_is_bound": False}
    assert training.peak({}, {}) == {"peak_bytes": None, "peak_is_bound": False}
    bound = training.peak(first, first)
    assert bound == {"peak_bytes": 5 * 10**9, "peak_is_bound": True}
    header = {
        "command": "python benchmarks/accelerator.py", "commit": None, "settings": {"quick": False},
        "versions": {"jax": "0.11.2", "torch": None},
        "machine": {"device": "A card", "platform": "gpu", "peak_flops": 1e15, "compilation_cache": False},
    }  # fmt: skip
    log = logs.Log(tmp_path / "a.json", header, 1.0, [])
    ratio = {"median": 0.9, "low": 0.8, "high": 1.0, "minimum": 0.7}
    step = {"seconds": 0.02, "images_per_second": 3200.0, "mfu": 0.412, "program_bytes": 7 * 10**9, **bound}
    log.case("plan", "B/2: KIND", lambda: {"memory_bytes": 20 * 10**9, "seconds": 0.025})
    log.case("plan", "B/2: late", lambda: {"memory_bytes": 30 * 10**9, "seconds": 0.1})
    log.case("train", "B/2: KIND", lambda: step | {"against": "dense", "ratio": ratio})
    text = tables.table(log, header)
    assert "| 20 ms | 3,200 | dense: 0.900 (0.800 to 1.000) | 41.2 % | 7.00 GB | ≤ 5.00 GB | 20.0 GB | 25 ms |" in text
    assert "| plan | B/2: late | ok |" in text
    assert "| plan | B/2: KIND |" not in text  # beside its step
    assert "no MFU" not in text
    assert "Tiny" not in text


def test_grouped_batches_have_runs_of_one_class(load):
    cases = load("accelerator_cases")
    config = cases.variants("tiny")["KIND, N_T 4, grouped"]()
    labels = np.asarray(cases.batch_of(config)["label"]).reshape(-1, cases.PER_CLASS)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == len(labels)
