"""JSON files that carry their own checksum: a single changed bit anywhere in one is noticed.

The last field is ``sha256``, over every byte before it. Editors and formatters break the seal, which is meant: what a
sealed file says about other files (shapes, checksums, which class is which) must be as it was written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes
from kind_jax.untrusted.regular import read_small

LIMIT = 256 << 20  # bytes; the largest models have manifests of a few megabytes
_TAIL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n\}\n\Z')


def seal(fields: Mapping[str, Any]) -> bytes:
    """``fields``, which are not empty and have no ``sha256``, as a sealed JSON object."""
    assert fields, "nothing to seal"
    assert "sha256" not in fields
    body = json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}").encode()
    return body + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def opened(data: bytes, origin: Path) -> bytes:
    """The JSON object in sealed ``data`` without its checksum.

    Raises:
      UserError: the checksum is absent or another one; ``origin`` is named.
    """
    tail = _TAIL.search(data[-200:])
    if tail is None:
        raise UserError(f"{origin} is damaged or was changed by hand: it does not end with its own checksum.")
    body = data[: len(data) - len(tail[0])]
    found, said = hashlib.sha256(body).hexdigest(), tail[1].decode()
    if found != said:
        raise UserError(
            f"{origin} is damaged or was changed by hand: its content has SHA-256 {found[:12]}…, but it says "
            f"{said[:12]}…."
        )
    return body + b"\n}"


def write(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a sealed file, whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    atomic_write_bytes(path, seal(fields))


def read(path: Path) -> bytes:
    """The JSON object in a sealed file without its checksum, for a strict parser.

    Raises:
      UserError: there is no such file, it is too large or no regular file, or its checksum is not that of its content.
    """
    return opened(read_small(path, LIMIT), path)
