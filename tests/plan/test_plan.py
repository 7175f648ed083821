"""Plans: exact bytes of the state, counted collectives, refusals with advice, the command."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from kind_jax import chips
from kind_jax.cli import main
from kind_jax.config import MeshConfig
from kind_jax.deploy import cost
from kind_jax.errors import UserError
from kind_jax.plan import collectives, compiled, estimate
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from tests.tiny import CONFIG, change

ROOT = Path(__file__).parents[2]
EIGHT_GROUPS = change(CONFIG, model={"num_classes": 8, "factor": {"projections": ("qkv",)}})


def on(config, text):
    """The config on a mesh of fake devices, and these."""
    config = dataclasses.replace(config, mesh=compiled.parse_mesh(text))
    return config, compiled.fake_devices(config.mesh)


def state_bytes(config, text):
    config, devices = on(config, text)
    return compiled.state_bytes(config, sharding.make_mesh(config.mesh, devices))


@pytest.fixture(scope="module")
def step():
    """(config, devices, compiled step) on four devices with two images each."""
    config, devices = on(EIGHT_GROUPS, "2x2")
    return config, devices, compiled.compile_step(config, devices)


@pytest.mark.parametrize("mesh", ["8", "2x2x2", "1x8"])
def test_state_bytes_are_those_of_a_placed_state(mesh):
    config, devices = on(EIGHT_GROUPS, mesh)
    shapes = states.abstract(task_of(config))
    shardings = sharding.shard_like(shapes, sharding.make_mesh(config.mesh, devices))
    placed = jax.tree.map(lambda leaf, s: jax.device_put(np.zeros(leaf.shape, leaf.dtype), s), shapes, shardings)

    def held(tree):
        return sum(leaf.addressable_shards[3].data.nbytes for leaf in jax.tree.leaves(tree))

    found = state_bytes(EIGHT_GROUPS, mesh)
    assert (found.parameters, found.average, found.optimizer) == tuple(
        map(held, (placed.collections, placed.ema, placed.opt))
    )
    assert found.total == held(placed)


def test_fsdp_divides_what_it_shards():
    whole, eighth = state_bytes(EIGHT_GROUPS, "8x1"), state_bytes(EIGHT_GROUPS, "1x8")
    counters = 4 * (8 + 1)  # lazy Adam's, of every group and of all, stay whole
    assert whole.tailors - counters == 8 * (eighth.tailors - counters) > 0
    assert whole.total / 8 < eighth.total < whole.total / 3  # biases and s stay whole
    ten, all_ten = (state_bytes(CONFIG, mesh).tailors for mesh in ("1x8", "8x1"))
    assert ten < all_ten / 4  # 10 groups do not divide into 8, but their features do


def test_the_compiled_step_agrees_with_xla_and_cost(step):
    config, _, found = step
    assert found.arguments == found.state.total + found.batch
    assert found.batch == 2 * (8 * 8 * 4 + 4)
    assert found.temporary > 0
    assert 0 < found.outputs < found.state.total / 20  # metrics and pointers: the state is updated in place
    assert found.memory == found.state.total + found.batch + found.temporary + found.outputs
    assert found.flops == 3 * cost.total(config.model).flops * 8 / 4
    flops = compiled.flops_per_device
    assert flops(change(config, model={"remat": True})) * 3 == flops(config) * 4
    # tensor splits only the learngenes' products.
    parts = cost.products(config.model, 8)
    assert flops(change(config, mesh={"data": 1, "tensor": 2})) == 3 * (parts.learngenes / 2 + parts.rest) / 2
    # At the least, every device sums the gradients of the dense parameters.
    assert found.collectives.by_kind["all-reduce"].output > found.state.parameters / 8


def test_collectives_in_loops_count_as_often_as_they_run():
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def body(x, _):
        inner = jax.lax.fori_loop(0, 5, lambda _, c: jax.lax.psum(c, "a") * 0.5, x)
        return inner, jax.lax.all_gather(x[:2], "b").sum()

    def f(x):
        x, sums = jax.lax.scan(body, x, None, length=3)
        x = jax.lax.while_loop(lambda c: c.sum() < 5, lambda c: jax.lax.ppermute(c, "a", [(0, 1), (1, 0)]) + 1, x)
        return x, jax.lax.psum_scatter(x, "b", tiled=True) + sums.sum()

    spec = PartitionSpec(("a", "b"))
    mapped = jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=(spec, spec), check_vma=False)
    program = jax.jit(mapped).lower(jax.ShapeDtypeStruct((64,), jnp.float32)).compile()  # 8 numbers on a device
    found = collectives.count(program.as_text() or "")
    kinds = found.by_kind
    assert (kinds["all-reduce"].count, kinds["all-reduce"].output) == (15, 15 * 8 * 4)
    assert kinds["all-reduce"].received == 15 * 8 * 4  # of two: 2 x 1/2
    assert (kinds["all-gather"].count, kinds["all-gather"].output) == (3, 3 * 4 * 2 * 4)
    assert kinds["all-gather"].received == 3 * 3 * 2 * 4  # three others have two numbers each
    assert (kinds["reduce-scatter"].output, kinds["reduce-scatter"].received) == (2 * 4, 3 * 2 * 4)
    assert kinds["collective-permute"].count == found.unknown_loops == 1


ASYNCHRONOUS = """
HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}, num_partitions=8

%wrapped (p: bf16[8,16]) -> bf16[8,16] {
  %p = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %a2a = bf16[8,16]{1,0:T(8,128)(2,1)} all-to-all(%p), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %g = (f32[8]{0}, f32[64]{0:T(256)}) all-gather-start(%x), replica_groups=mesh['i'=2,'j'=4], d=([8]) {'i','j':(2)2}
  %g.done = f32[64]{0:T(256)} all-gather-done((f32[8]{0}, f32[64]{0:T(256)}) %g)
  %r = (f32[8]{0}, /*index=1*/pred[4]{0}) all-reduce(%x, %m), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %s = ((bf16[8,16]{1,0}), bf16[8,16]{1,0}, s32[]) async-start(%y), calls=%wrapped
  %s.up = ((bf16[8,16]{1,0}), bf16[8,16]{1,0}, s32[]) async-update(%s), calls=%wrapped
  %s.done = bf16[8,16]{1,0} async-done(%s.up), calls=%wrapped
  ROOT %out = f32[8]{0} add(%x, %x), metadata={op_name="all-reduce(not one)"}
}
"""


def test_asynchronous_pairs_count_once():
    found = collectives.count(ASYNCHRONOUS)
    assert [flow.members for flow in found.flows] == [(0, 1, 4, 5), (0, 4), (0, 1, 2, 3)]
    kinds = found.by_kind
    assert kinds == {
        "all-reduce": collectives.Traffic(count=1, output=36, received=36.0),
        "all-gather": collectives.Traffic(count=1, output=256, received=192.0),
        "all-to-all": collectives.Traffic(count=1, output=256, received=192.0),
    }


def flow(kind, members, output, received):
    traffic = collectives.Traffic(count=1, output=output, received=float(received))
    return collectives.Collectives(flows={collectives.Flow(kind, tuple(members)): traffic}, unknown_loops=0)


def test_communication_takes_the_slowest_link_on_its_way():
    seconds, h100, v5e = estimate.collective_seconds, chips.find("h100"), chips.find("v5e")
    gb = 10**9
    inside = flow("all-gather", range(8), 8 * gb, 7 * gb)
    assert seconds(inside, 8, h100) == pytest.approx(7 / 450)
    assert seconds(inside, 8, v5e) == pytest.approx(7 / 200), "all devices have all links"
    assert seconds(inside, 16, v5e) == pytest.approx(7 / 100), "some of them the links of one axis"
    # Of two boxes two members each: half of the result comes from the other box, through two adapters.
    members = (0, 1, 8, 9)
    assert seconds(flow("all-gather", members, 4 * gb, 3 * gb), 16, h100) == pytest.approx(2 / 2 / 50)
    assert seconds(flow("all-reduce", members, 4 * gb, 6 * gb), 16, h100) == pytest.approx(2 * 2 / 2 / 50)
    assert seconds(flow("reduce-scatter", members, gb, 3 * gb), 16, h100) == pytest.approx(1 / 50)
    # With all eight adapters the network is the faster one: every byte still goes through NVLink.
    assert seconds(flow("all-gather", range(16), 16 * gb, 15 * gb), 16, h100) == pytest.approx(15 / 450)
    assert seconds(flow("reduce-scatter", range(0, 16, 8), gb, gb), 16, h100) == pytest.approx(1 / 50)
    # One member in each box has one adapter for all that it needs.
    assert seconds(flow("all-gather", range(0, 32, 8), 4 * gb, 3 * gb), 32, h100) == pytest.approx(3 / 50)
    assert seconds(flow("all-to-all", range(16), 16 * gb, 15 * gb), 16, h100) == pytest.approx(8 / 50)
    pairs = (6, 7, 7, 8, 8, 6)
    assert seconds(flow("collective-permute", pairs, gb, gb), 16, h100) == pytest.approx(1 / 50)
    assert seconds(flow("collective-permute", (0, 1, 8, 9), gb, gb), 16, h100) == pytest.approx(1 / 450)


def test_a_chip_that_is_too_small_is_refused_with_advice(step):
    config, devices, found = step
    small = dataclasses.replace(chips.find("v5e"), memory=100_000, title="pebble")
    verdict = estimate.judge(found, small, config.train.batch, 0.5)
    assert not verdict.fits
    assert verdict.compute_seconds == found.flops / (197e12 / 2)
    assert verdict.collective_seconds > 0
    assert verdict.step_seconds == verdict.compute_seconds + verdict.collective_seconds
    assert verdict.overlapped_seconds == max(verdict.compute_seconds, verdict.collective_seconds)
    assert verdict.images_per_second == config.train.batch / verdict.step_seconds
    assert verdict.overlapped_images_per_second == config.train.batch / verdict.overlapped_seconds
    with pytest.raises(
        UserError, match=r"pebble has 0\.100 MB: .*set model\.remat.*up to 2, or lower train\.batch from 8"
    ) as e:
        estimate.check_fits(config, found, [verdict], devices)
    more = state_bytes(EIGHT_GROUPS, "1x4").total
    assert f"raise mesh.fsdp from 2 to 4, where the state needs {estimate.readable(more)}" in str(e.value)
    # What is done already is not advised again.
    done = change(
        config, model={"remat": True, "num_classes": 10}, train={"accumulate": 2}, mesh={"data": 1, "fsdp": 4}
    )
    left = " ".join(estimate.advice(done, found, devices))
    assert "remat" not in left
    assert "accumulate" not in left
    assert "raise mesh.fsdp" not in left
    estimate.check_fits(config, found, [verdict, dataclasses.replace(verdict, fits=True)], devices)


@pytest.mark.parametrize("text", ["", "x", "16x", "0x4", "-1x4", "2x2x2x2", "16*16", "2 x 2", "2.0x4"])
def test_a_malformed_mesh_is_refused(text):
    with pytest.raises(UserError, match=r"--mesh is '.*', but it must be sizes of data x fsdp"):
        compiled.parse_mesh(text)


def test_devices_that_cannot_be_had_are_refused():
    assert compiled.parse_mesh("8x16x2") == MeshConfig(data=8, fsdp=16, tensor=2)
    with pytest.raises(UserError, match=r"mesh\.data is -1 .* give every axis"):
        compiled.fake_devices(MeshConfig(fsdp=4))
    with pytest.raises(UserError, match="the mesh has 99980001 devices"):
        compiled.fake_devices(compiled.parse_mesh("9999x9999"))
    jax.devices()
    with pytest.raises(UserError, match="has 64 devices, but JAX has started already, with 8"):
        compiled.fake_devices(compiled.parse_mesh("8x8"))
    config, devices = on(CONFIG, "8")
    with pytest.raises(UserError, match="a micro-batch must be a multiple of the 8 data-parallel devices"):
        compiled.compile_step(change(config, train={"batch": 12}), devices)


def test_peaks_by_device_kind():
    kinds = {
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA B200": 2250e12,
        "NVIDIA H100 80GB HBM3": 989e12,
        "TPU v5 lite": 197e12,
        "TPU v5": 459e12,
        "TPU v5p": 459e12,
    }
    assert {kind: chips.peak_flops(kind) for kind in kinds} == kinds
    assert chips.peak_flops("TPU v6 lite") == 918e12
    assert chips.peak_flops("cpu") is chips.peak_flops("NVIDIA H100 PCIe") is None


SOURCE = """
from tests.tiny import CONFIG, change


def get_config():
    return change(CONFIG, model={"num_classes": 8, "factor": {"projections": ("qkv",)}})
"""


def test_the_command(tmp_path):
    config, out = tmp_path / "tiny.py", tmp_path / "plan.json"
    config.write_text(SOURCE)
    args = ["plan", "--config", config, "--mesh", "2x2", "--mesh.fsdp", "7", "--out", out]
    # As in this process, so that the compiled step is taken from the tests' cache.
    same = {
        "JAX_NUM_CPU_DEVICES": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kind_jax", *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | same,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 devices: data 2 x fsdp 2 x tensor 1; batch 8" in done.stdout
    record = json.loads(out.read_text())
    assert record["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert record["memory"]["parameters"] == state_bytes(EIGHT_GROUPS, "2x2").parameters
    assert [c["chip"]["name"] for c in record["chips"] if c["fits"]] == [chip.name for chip in chips.CHIPS]
    for verdict in record["chips"]:
        assert verdict["chip"]["title"] in done.stdout


def test_the_command_refuses(tmp_path, monkeypatch, capsys):
    config, out = tmp_path / "tiny.py", tmp_path / "plan.json"
    config.write_text(SOURCE)
    base = ["plan", "--config", str(config), "--out", str(out)]
    for args, message in [
        (["--mesh", "2y2"], "--mesh is '2y2'"),
        ([], "mesh.data is -1"),
        (["--mesh", "2x2", "--chip", "abacus"], "--chip is 'abacus', but it must be one of a100, a100-40, h100, h200"),
        (["--mesh", "2x2", "--mfu", "40"], "--mfu is 40.0, but it must be above 0"),
    ]:
        assert main([*base, *args]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    pebble = dataclasses.replace(chips.find("v5e"), name="pebble", title="pebble", memory=100_000)
    monkeypatch.setattr(chips, "CHIPS", (pebble,))
    assert main([*base, "--mesh", "2x2", "--chip", "Pebble"]) == 2
    printed = capsys.readouterr()
    assert "pebble" in printed.out
    assert "(state " in printed.err
    assert "but pebble has 0.100 MB: raise mesh.fsdp from 2 to 4" in printed.err
    assert json.loads(out.read_text())["chips"][0]["fits"] is False
