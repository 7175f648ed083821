"""Imitation: a module learns to give what the meta model's own module gives, instead of lowering the hybrid's loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from kind_jax import flops, model
from kind_jax.assembling import cuts
from kind_jax.assembling.task import ModuleTask, hybrid_network, hybrid_weights
from kind_jax.nn.embed import patchify
from kind_jax.nn.gate import learngenes_only
from kind_jax.nn.stack import over_depth
from kind_jax.partition import Collections, join
from kind_jax.train.step import draw, gradients
from kind_jax.train.task import Loss


class ImitationTask(ModuleTask):
    """One module learns what the meta model's own gives for the same input, by mean squared error.

    ``fixed``: the frozen modules ``around`` it, and the meta model's ``own`` in its place.
    """

    def loss(self, collections: Collections, drawn: Any, fixed: Any) -> Loss:
        config, k = self.config, self.config.module.place
        meta = cuts.staged(config.model, config.module.around, k, frozen_paths=False)
        teacher = join(model.definition(meta)[0], hybrid_weights(config, fixed["own"], fixed["around"]))
        weights = hybrid_weights(config, collections, fixed["around"])
        student = join(model.definition(hybrid_network(config))[0], weights)
        x = drawn.samples.images
        for j in range(k):
            x = _behind(teacher, j, x)
        loss = jnp.mean((_behind(student, k, x) - _behind(teacher, k, x)) ** 2)
        return Loss(loss, {"loss": loss, "accuracy": jnp.zeros(())})

    def fixed_shapes(self) -> Any:
        config = self.config
        whole = model.definition(cuts.resized(config.model, config.module.around))[1]
        return imitated(config, whole) | {"around": super().fixed_shapes()}

    def flops(self) -> float:
        def f(collections: Any, batch: Any, fixed: Any) -> Any:
            return gradients(self, collections, draw(self, batch, jnp.int32(0)), fixed)

        return flops.count(jax.make_jaxpr(f)(self.shapes(), self.batch(), self.fixed_shapes()))


def _behind(net: Any, index: int, x: Any) -> Any:
    """What a module gives for the residual stream in front of it: the stream behind it; images to begin with, logits
    in the end."""
    if index == 0:
        x = net.patch_embed(patchify(x, net.config.patch))
        token = jnp.broadcast_to(net.class_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1) + net.position[...]
    stack = list(net.blocks)[index]
    x = over_depth(stack, x, learngenes_only(), lambda block, x, gate, _: block(x, gate), unroll=0, remat=False)
    return net.head(net.norm(x)[:, 0]) if index == net.blocks.length - 1 else x


def imitated(config: Any, whole: Collections) -> dict[str, Any]:
    """The meta model's own module in the place of the one that is trained."""
    module = config.module
    return {"own": cuts.take(config.model, whole, module.around, module.place)}
