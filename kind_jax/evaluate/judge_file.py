"""The judge on disk: one safetensors file, checked against the network in names, shapes, dtypes and values."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pydantic
import safetensors
import safetensors.numpy
from flax import traverse_util

from kind_jax.errors import UserError
from kind_jax.evaluate import judge_net
from kind_jax.evaluate.judge_net import Params
from kind_jax.files import atomic_write_bytes

_KEY = "kind_jax.judge"


class Facts(pydantic.BaseModel):
    """What the file says about the judge beside its weights."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    shape: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt]
    num_classes: pydantic.PositiveInt
    fingerprint: str


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)


def _flat(params: Params) -> dict[tuple[Any, ...], Any]:
    return dict(traverse_util.flatten_dict(params))


def write(path: str | Path, params: Params, facts: Facts) -> None:
    """Save weights and facts atomically."""
    tensors = {_name(keys): np.asarray(leaf) for keys, leaf in _flat(params).items()}
    header = {_KEY: facts.model_dump_json()}
    atomic_write_bytes(path, safetensors.numpy.save(tensors, header))


def _open(path: Path, tensors: bool) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if not path.is_file():
        raise UserError(f"The judge {str(path)!r} must be a file, but no such file exists.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys() if tensors else ()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as e:
        raise UserError(f"The judge {str(path)!r} could not be read: {e}.") from e


def _facts(header: dict[str, str], path: Path) -> Facts:
    if _KEY not in header:
        raise UserError(
            f"{str(path)!r} is a safetensors file without the entry {_KEY!r}, but it must be a saved judge."
        )
    try:
        return Facts.model_validate_json(header[_KEY])
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        raise UserError(
            f"The judge {str(path)!r} has a wrong entry {_KEY}.{_name(first['loc'])}: {first['msg']}."
        ) from e


def read_facts(path: str | Path) -> Facts:
    """The facts alone, whatever the tensors are."""
    return _facts(_open(Path(path), tensors=False)[0], Path(path))


def read(path: str | Path) -> tuple[Facts, Params]:
    """Load and check; see :meth:`kind_jax.evaluate.judge.Judge.load`."""
    path = Path(path)
    header, tensors = _open(path, tensors=True)
    facts = _facts(header, path)
    _, wanted = judge_net.blueprint(facts.shape, facts.num_classes)
    return facts, _fill(wanted, tensors, path)


def _fill(wanted: Params, tensors: dict[str, np.ndarray], path: Path) -> Params:
    filled: dict[tuple[Any, ...], Any] = {}
    for keys, spec in _flat(wanted).items():
        name = _name(keys)
        if name not in tensors:
            raise UserError(f"The judge {str(path)!r} lacks the tensor {name!r}.")
        tensor = tensors.pop(name)
        if (tensor.shape, tensor.dtype) != (spec.shape, spec.dtype):
            raise UserError(
                f"The judge {str(path)!r} has {name!r} as {tensor.dtype}{list(tensor.shape)}, "
                f"but it must be {spec.dtype}{list(spec.shape)}."
            )
        if not np.isfinite(tensor).all():
            raise UserError(f"The judge {str(path)!r} has values in {name!r} that are not finite.")
        filled[keys] = jnp.asarray(tensor)
    if tensors:
        raise UserError(f"The judge {str(path)!r} has the tensor {min(tensors)!r}, which the network does not know.")
    return traverse_util.unflatten_dict(filled)
