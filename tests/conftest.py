"""Strict by default: eight fake devices, no silent rank promotion, warnings are errors, shapes checked."""

import contextlib
import gc
import importlib.metadata
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the time, and XLA:CPU's emitters of fusions are most of that; children of tests have this, too.
# A program in one piece is compiled in less time than its pieces together: the other core has a worker of its own.
# jaxlib 0.12 does not know the first flag any more, and one that XLA does not know ends the process.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

import checking
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The command-line tests run without this, as users do.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".cache" / "jax-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Every annotated shape in the package is checked at run time, in tests only.
checking.install("kind_jax")


# Tracing makes objects by the million, most of which stay: looking for cycles among them is a twentieth of all time.
gc.set_threshold(100_000, 50, 100)


@contextlib.contextmanager
def _optimised():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def optimised():
    """For what convolves at length: without optimizations XLA:CPU does it in plain loops, many times slower."""
    with _optimised():
        yield


@pytest.fixture(scope="module")
def optimised_judge():
    """Commands train their judge as if ``optimised``, and compile everything else fast."""
    from kind_jax.evaluating import judged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged, "train_judge", _optimised()(judged.train_judge))
        yield


# A file belongs to one worker, which makes its fixtures once: the longest begin first, so that none is left over.
LONGEST = (
    "train/test_hosts.py", "assembling/test_commands.py", "assembling/test_incubation.py", "classifying/test_runs.py",
    "train/test_step.py", "commands/test_cli.py", "merging/test_symmetry.py", "chaos/test_kills.py",
    "train/test_loop.py", "captioning/test_runs.py", "train/test_cohorts.py", "distillation/test_optima.py",
    "test_docs_commands.py", "commands/test_evaluate_cli.py", "distillation/test_runs.py",
    "merging/test_joint_models.py", "train/test_init.py", "commands/test_latents.py", "transferring/test_transfer.py",
    "train/test_faults.py", "train/test_history.py", "merging/test_zip_command.py", "deploy/test_compose.py",
    "chaos/test_fuzz.py", "studies/test_common.py", "nn/test_factored.py", "plan/test_plan.py", "deploy/test_groups.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    order = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory):
    """Prepared data sets go to a folder of the test session, not to the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
