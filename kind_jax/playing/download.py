"""The model that a page shows, as a file to take away."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from kind_jax.deploy.bundle import export
from kind_jax.playing.controls import Controls
from kind_jax.playing.studio import Studio


def write_zip(studio: Studio, controls: Controls, folder: Path) -> Path:
    """Compose the chosen classes within the budget, as ``kind-jax compose`` does, and pack the artifact.

    Args:
      folder: in which the file gets a folder of its own.

    Returns:
      A zip file of one folder, the artifact.

    Raises:
      UserError: a budget that no model fits, or a class that is unknown or not aboard.
    """
    composed = studio.sizes.of(controls)
    place = Path(tempfile.mkdtemp(dir=folder))
    name = f"composed_{'_'.join(map(str, composed.record.classes))}_{composed.after.parameters}"
    export(composed.bundle, place / name)
    files = sorted(p for p in (place / name).rglob("*") if p.is_file())
    packed = place / f"{name}.zip"
    with zipfile.ZipFile(packed, "w") as archive:  # stored: weights hardly get smaller
        for path in files:
            archive.write(path, path.relative_to(place))
    shutil.rmtree(place / name)
    return packed
