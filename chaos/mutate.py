"""Damage and malice, deterministic from a NumPy generator: what becomes of a JSON document, a header, an artifact."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kind_jax import sealed


class Raw(str):
    """Text that stands in the JSON as it is, whether it is JSON or not."""


ABSURD: tuple[Any, ...] = (
    10**12, 10**30, -1, -(2**63), 2**31, 2**63, 0, 1.5, -0.0, 1e300, True, None, "", "x", "x" * 5000, "../../secret",
    "/etc/passwd", "..", "a\nb", "\x1b[2J", "9", [], {}, [[]], [-1], [10**12, 10**12], {"a": {}},
    Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), Raw('"\\ud800"'), Raw("[" * 5000 + "]" * 5000),
    Raw('{"a":' * 3000 + "1" + "}" * 3000), Raw("nul"), Raw("'x'"), Raw('"\\u0000"'),
)  # fmt: skip


def dumps(value: Any) -> str:
    """JSON, with :class:`Raw` text in it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{dumps(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value)


def somewhere(rng: np.random.Generator, value: Any) -> tuple[Any, Any] | None:
    """A (container, key or index) on a random way down, so that large parts are not met more often than small ones."""
    spot = None
    while isinstance(value, dict | list) and value and (spot is None or rng.random() < 0.85):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        spot = value, keys[int(rng.integers(len(keys)))]
        value = value[spot[1]]
    return spot


def document(rng: np.random.Generator, text: bytes) -> bytes:
    """A JSON object with one to three things wrong."""
    value = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        spot = somewhere(rng, value)
        if spot is None:
            break
        box, key = spot
        absurd = ABSURD[rng.integers(len(ABSURD))]
        what = rng.integers(6)
        if what == 0:
            del box[key]
        elif what == 1 and isinstance(box, dict):  # the same key twice, with another value
            box[key] = Raw(f"{dumps(box[key])},{json.dumps(key)}:{dumps(absurd)}")
        elif what == 2 and isinstance(box, dict):
            box[absurd if isinstance(absurd, str) else f"{key}_"] = box.pop(key)
        elif what == 3 and isinstance(box, dict):
            box["surplus"] = absurd
        else:
            box[key] = absurd
    return dumps(value).encode()


def raw(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes with a bit flipped, cut off, with bytes inserted, or with a part replaced by noise."""
    what, at = rng.integers(4), int(rng.integers(max(len(data), 1)))
    if what == 0 and data:
        return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
    if what == 1:
        return data[:at]
    noise = rng.bytes(int(rng.integers(1, 20)))
    return data[:at] + noise + data[at + (len(noise) if what == 2 else 0) :]


def forge(text: bytes) -> bytes:
    """``text`` with the checksum of a sealed file, as whoever knows the format can make it."""
    body = text.rstrip().removesuffix(b"}").rstrip()
    return body + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def _manifest(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "kind.json"
    text = sealed.read(path)
    path.write_bytes(forge(document(rng, text) if rng.random() < 0.8 else raw(rng, text)))


def _header(rng: np.random.Generator, folder: Path) -> None:
    """Change the header of one file, and make the manifest agree with the new bytes."""
    files = sorted(folder.rglob("*.safetensors"))
    path = files[rng.integers(len(files))]
    data = path.read_bytes()
    count = int.from_bytes(data[:8], "little")
    header, arrays = data[8 : 8 + count], data[8 + count :]
    header = document(rng, header) if rng.random() < 0.7 else raw(rng, header)
    lengths = (len(header), len(header), len(header), 0, 2**63 - 1, len(header) + len(arrays) + 1, 100_000_001)
    data = lengths[rng.integers(len(lengths))].to_bytes(8, "little") + header + arrays
    path.write_bytes(data)
    manifest = json.loads(sealed.read(folder / "kind.json"))
    entry = manifest["files"][path.relative_to(folder).as_posix()]
    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "kind.json").write_bytes(forge(dumps(manifest).encode()))


def _bytes(rng: np.random.Generator, folder: Path) -> None:
    """Change any file, and nothing else."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = files[rng.integers(len(files))]
    path.write_bytes(raw(rng, path.read_bytes()))


KINDS: tuple[Callable[[np.random.Generator, Path], None], ...] = (
    _manifest,
    _manifest,
    _manifest,
    _header,
    _header,
    _bytes,
)


def artifact(rng: np.random.Generator, folder: Path) -> None:
    """Damage the artifact in ``folder``."""
    KINDS[rng.integers(len(KINDS))](rng, folder)
