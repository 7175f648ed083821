"""The cache of huggingface_hub, where the files of a snapshot are links to blobs.

    models--USER--NAME/blobs/SHA                contents
    models--USER--NAME/snapshots/REVISION/...   links to them

Such a link leaves its folder, but not the cache of its own repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_REPOSITORY = re.compile(r"(models|datasets|spaces)--.")


def blob(path: Path) -> Path | None:
    """The file that a link in a snapshot stands for, which need not exist; None for any other link or file.

    All links on the way are followed, and where they end decides: in the blobs of the snapshot's own repository.
    """
    if not path.is_symlink():
        return None
    folder = Path(os.path.realpath(path.parent))
    for revision in (folder, *folder.parents):
        snapshots, repository = revision.parent, revision.parent.parent
        if snapshots.name == "snapshots" and _REPOSITORY.match(repository.name):
            target = Path(os.path.realpath(path))
            return target if target.parent == repository / "blobs" else None
    return None


def open_blob(target: Path, flags: int) -> int:
    """Open what :func:`blob` returned; should a link have taken its place or its folder's meanwhile, that is an
    OSError."""
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.open(target.name, flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
