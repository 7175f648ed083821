"""Training steps against PyTorch's on the same card: compiled, bfloat16, fused attention and a fused AdamW."""
# PyTorch may be absent, so a type checker may not find it.
# pyright: reportMissingImports=false

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from typing import Any

import numpy as np
from accelerator_cases import batch_of, variants
from accelerator_log import Log, Settings, SkippedError, WrongError
from accelerator_training import Steps, step_figures
from cases import dense, kind
from harness import Contestant, race

from kind_jax import model
from kind_jax.config import Config
from kind_jax.errors import UserError

TOLERANCE = 1e-3  # float32 on a card: products are added up in another order


def measure(log: Log, settings: Settings) -> None:
    """Our dense model and PyTorch's, of every size."""
    for size in settings.sizes:
        if settings.wants(f"{size}: PyTorch"):
            log.case("torch", f"{size}: PyTorch", lambda size=size: _timed(variants(size)["dense"](), settings))


def _timed(config: Config, settings: Settings) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise SkippedError("PyTorch is not installed")
    import jax
    import torch

    cuda = torch.cuda.is_available()
    if cuda == (jax.default_backend() == "cpu"):
        raise SkippedError(f"PyTorch {torch.__version__} and JAX compute on different devices here")
    error = same_function(_small())
    theirs, note = _peer(config)
    ours = Steps.of("ours", config)
    peer = theirs.contestant(settings.steps)
    made = race([peer, ours.contestant(settings.steps)], rounds=settings.rounds, warmup=2)
    figures = step_figures(config, made.seconds["PyTorch"] / settings.steps)
    figures |= {
        "torch": torch.__version__, "how": note, "output_error": error, "loss": theirs.loss.item(),
        # PyTorch's time by ours: above 1, ours is faster.
        "against": "our dense", "ratio": dataclasses.asdict(made.ratio("PyTorch", "ours")),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None, "peak_is_bound": False,
    }  # fmt: skip
    del theirs, peer
    if cuda:
        torch.cuda.empty_cache()  # for JAX
    if not np.isfinite(figures["loss"]):
        raise WrongError(f"the loss of PyTorch's last step is {figures['loss']}", figures)
    return figures


def _small() -> Config:
    return dense(kind(width=64, depth=2, tokens=16, batch=4, scan_unroll=1))


def same_function(config: Config) -> float:
    """How far PyTorch's network is from ours on the CPU or card, relative to the largest output.

    Raises:
      UserError: too far: it is not the same function, so that comparing speed would mean nothing.
    """
    import jax
    import torch
    from torch_dit import TorchDiT

    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda a: a + np.float32(0.02) * rng.standard_normal(a.shape, np.float32), model.init(config.model, 0)
    )
    net = TorchDiT(config.model)
    net.load(weights)
    net.to(_device())
    batch = {name: np.asarray(value) for name, value in batch_of(config).items()}
    t = np.linspace(0, 1000, config.train.batch, dtype=np.float32)
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        inputs = (batch["image"].transpose(0, 3, 1, 2).copy(), t, batch["label"].astype(np.int64))
        output = net(*(torch.from_numpy(a).to(_device()) for a in inputs)).cpu().numpy()
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(_ours(config, weights, batch, t)).transpose(0, 3, 1, 2)
    error = float(np.max(np.abs(ours - output)) / np.max(np.abs(output)))
    if not error <= TOLERANCE:  # a NaN is refused, too
        raise UserError(
            f"the PyTorch DiT's output differs from ours by {error:.2g} of its largest value, but at most "
            f"{TOLERANCE:.0e} is wanted: it is not the same function, so nothing was timed."
        )
    return error


def _ours(config: Config, weights: Any, batch: dict[str, Any], t: np.ndarray) -> Any:
    import jax

    from kind_jax.nn.gate import learngenes_only

    call = jax.jit(lambda w, x, t, y: model.apply(config.model, w, x, t, y, learngenes_only()))
    return call(jax.device_put(weights), batch["image"], t, batch["label"])


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclasses.dataclass
class Peer:
    """PyTorch's training step on data that is on the device."""

    net: Any
    average: list[Any]
    optimizer: Any
    loss_of: Any
    decay: float
    loss: Any = None

    def step(self) -> None:
        """Rectified flow, AdamW and the moving average, as our own step has them."""
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        self.optimizer.zero_grad(set_to_none=True)
        self.loss = self.loss_of()
        self.loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            get_ema_multi_avg_fn(self.decay)(self.average, list(self.net.parameters()), 0)

    def contestant(self, steps: int) -> Contestant:
        """Several steps, waited for at their end."""
        import torch

        def several() -> None:
            for _ in range(steps):
                self.step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return Contestant(name="PyTorch", step=several)


def _peer(config: Config) -> tuple[Peer, str]:
    """The peer with random weights, and what it makes use of."""
    import torch
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch_dit import TorchDiT

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device, m = _device(), config.model
    net = TorchDiT(m).to(device).train()
    compiled = torch.compile(net)
    raw = batch_of(config)
    images = torch.from_numpy(np.asarray(raw["image"]).transpose(0, 3, 1, 2).copy()).to(device)
    classes = torch.from_numpy(np.asarray(raw["label"]).astype(np.int64)).to(device)
    cuda = device.type == "cuda"
    # Without the plain one: a card that has no fused attention fails instead of being slow.
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    backends = fused if cuda else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]

    def loss_of() -> Any:
        t, noise = torch.sigmoid(torch.randn(len(images), device=device)), torch.randn_like(images)
        dropped = torch.rand(len(images), device=device) < config.train.null
        labels = torch.where(dropped, m.num_classes, classes)
        part = t[:, None, None, None]
        with sdpa_kernel(backends), torch.autocast(device.type, torch.bfloat16):
            output = compiled((1 - part) * images + part * noise, 1000 * t, labels)
        return functional.mse_loss(output.float(), noise - images)

    parameters = list(net.parameters())
    peer = Peer(
        net=net,
        average=copy.deepcopy([p.detach() for p in parameters]),
        optimizer=torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0, fused=True),
        loss_of=loss_of,
        decay=config.train.ema or 0.0,
    )
    return peer, f"torch.compile, autocast bfloat16, AdamW(fused), {'fused' if cuda else 'any'} attention"
