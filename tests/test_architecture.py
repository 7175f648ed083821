"""Rules of docs/architecture.md that a reader of one file cannot see."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "kind_jax").rglob("*.py"))
CORE = {
    "nn", "diffusion", "partition.py", "model.py", "config", "errors.py", "untrusted", "sealed.py", "files.py",
    "kinds.py", "losses.py",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_core_imports_neither_training_nor_companions():
    for path in FILES:
        if path.relative_to(ROOT / "kind_jax").parts[0] in CORE:
            inside = {n.split(".")[1] for n in imports(path) if n.startswith("kind_jax.")}
            allowed = {name.removesuffix(".py") for name in CORE}
            assert inside <= allowed, f"{path} imports {inside - allowed}"


def test_the_trainer_knows_no_model():
    strangers = {
        "model",
        "adapters",
        "vae",
        "diffusion",
        "diffusing",
        "classifying",
        "assembling",
        "sampling",
        "transfer",
        "deploy",
        "plan",
        "evaluate",
    }
    for path in (ROOT / "kind_jax" / "train").glob("*.py"):
        inside = {n.split(".")[1] for n in imports(path) if n.startswith("kind_jax.")}
        assert not inside & strangers, f"{path} imports {inside & strangers}"


def test_nothing_but_commands_imports_a_companion():
    for path in FILES:
        if "configs" in path.parts or path.relative_to(ROOT / "kind_jax").parts[0] in ("assembling", "commands"):
            continue
        assert not {n for n in imports(path) if n.startswith("kind_jax.assembling")}, path


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"nnx\.(jit|Optimizer|grad|value_and_grad)\b", "the core carries plain dicts"),
        (r"pjit\.pjit", "deprecated for jax.jit"),
    ],
)
def test_what_the_library_never_does(pattern, why):
    for path in FILES:
        assert not re.search(pattern, path.read_text()), f"{path}: {why}"


_UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
_CODE = {"eval", "exec", "compile", "__import__"}
_DOORS = {"kind_jax/config/run.py", "kind_jax/evaluating/user_extractor.py"}  # run a Python file that the user names


def unsafe(tree: ast.AST) -> list[str]:
    """What in a module could run code that a file of data brings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in _UNPICKLERS]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in _UNPICKLERS else []
            found += [f"{node.module}.load" for a in node.names if node.module == "torch" and a.name == "load"]
        elif isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            if text in _CODE or (text == "torch.load" and not safe) or text.endswith(".exec_module"):
                found.append(text)
            found += ["allow_pickle" for k in node.keywords if k.arg == "allow_pickle" and not _is_false(k.value)]
    return found


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_data_is_never_code():
    """Nothing unpickles, or evaluates what a file says, but for the doors that run the user's own code."""
    folders = ("kind_jax", "configs", "studies", "benchmarks")
    doors = set()
    for path in [ROOT / "train.py", *(p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")))]:
        name, found = path.relative_to(ROOT).as_posix(), unsafe(ast.parse(path.read_text()))
        if name in _DOORS:
            doors |= {name} if found else set()
            found = [f for f in found if not f.endswith(".exec_module")]
        assert not found, f"{name}: {found}"
    assert doors == _DOORS, "a door that is gone must not stay open"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import marshal as m", "eval(x)", "exec(x)",
        "compile(x, '', 'exec')",
        "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "torch.load(p)", "from torch import load",
        "torch.load(p, weights_only=False)", "spec.loader.exec_module(m)",
    ],
)  # fmt: skip
def test_the_rule_sees(code):
    assert unsafe(ast.parse(code))


def test_files_can_be_read_in_one_sitting():
    for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "studies").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path


def test_import_waits_for_neither_jax_nor_tensorflow():
    code = (
        "import sys, kind_jax, kind_jax.cli\n"
        "assert not {'jax', 'flax', 'tensorflow'} & set(sys.modules)\n"
        "for name in kind_jax.__all__: getattr(kind_jax, name)\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert 'sklearn' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
