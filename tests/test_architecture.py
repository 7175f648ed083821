"""Rules of docs/architecture.md that a reader of one file cannot see."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "kind_jax").rglob("*.py"))
CORE = {"nn", "diffusion", "partition.py", "model.py", "config", "errors.py"}


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


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"nnx\.(jit|Optimizer|grad|value_and_grad)\b", "the core carries plain dicts"),
        (r"\bimport pickle\b|allow_pickle=True|torch\.load\(", "a user's file may run code when unpickled"),
        (r"\bexec\(|\beval\(", "data is never code"),
        (r"pjit\.pjit", "deprecated for jax.jit"),
    ],
)
def test_what_the_library_never_does(pattern, why):
    for path in FILES:
        assert not re.search(pattern, path.read_text()), f"{path}: {why}"


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
