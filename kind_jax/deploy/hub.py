"""Artifacts on the Hugging Face Hub: ``hf://user/name``, of which only what is needed is fetched (extra ``hub``)."""

from __future__ import annotations

import contextlib
import importlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from kind_jax.classes import ClassList, numbers_of
from kind_jax.config import RunConfig
from kind_jax.config.check import require
from kind_jax.deploy import card
from kind_jax.deploy.manifest import MANIFEST, group_file, listed, read_manifest
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle

_ADDRESS = re.compile(r"hf:/{1,2}")  # a Path has lost one of the slashes
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"({_PART}/{_PART})(?:@((?!.*\.\.)[\w./-]{{1,200}}))?\Z")


def is_address(path: object) -> bool:
    """Whether ``path`` names an artifact on the Hub."""
    return isinstance(path, str | PurePath) and _ADDRESS.match(str(path)) is not None


def parse(address: str | PurePath) -> tuple[str, str | None]:
    """Repository and revision of ``hf://user/name@revision``; the revision is None where there is none.

    Raises:
      UserError: it is not of this form.
    """
    found = _REPOSITORY.match(_ADDRESS.sub("", str(address), count=1))
    if found is None:
        raise UserError(
            f"the address is {printable(str(address), 200)!r}, but it must be hf://user/name or "
            "hf://user/name@revision."
        )
    return found[1], found[2]


def check_repository(repository: object) -> str:
    """The name of a repository that is to be written, given as ``user/name`` or as its address.

    Raises:
      UserError: it is neither.
    """
    found = _REPOSITORY.match(_ADDRESS.sub("", repository, count=1)) if isinstance(repository, str) else None
    require(found is not None and found[2] is None, "repository", repository, "user/name")
    assert found is not None
    return found[1]


def fetch(address: str | PurePath, classes: ClassList | None = None) -> Path:
    """The folder in the Hub's cache that holds an artifact: all shared files, and the tailors of ``classes``.

    Files that are there already are not fetched again, and all are of one revision.

    Raises:
      UserError: huggingface_hub is not installed, there is no such model or revision, it is no artifact, a class that
        it does not know, or the Hub cannot be reached.
    """
    repository, revision = parse(address)
    path = manifest_file(address)
    manifest = listed(path)  # whose files are those of an artifact, and of no other names
    needed = set(manifest.groups)
    if classes is not None:
        numbers = numbers_of(classes, manifest.class_names)
        needed = {manifest.config.model.group_of_class[c] for c in numbers}  # pyright: ignore[reportAttributeAccessIssue]
    others = {group_file(group) for group in manifest.groups if group not in needed}
    with _refusals(repository, revision):
        for name in manifest.files:
            if name not in others:  # all of the revision that the manifest is of, which its folder is named after
                _library().hf_hub_download(repository, name, revision=path.parent.name)
        errors: Any = importlib.import_module("huggingface_hub.errors")
        with contextlib.suppress(errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
            # For its licence, which what is made of the model keeps.
            _library().hf_hub_download(repository, card.CARD, revision=path.parent.name)
    return path.parent


def manifest_file(address: str | PurePath) -> Path:
    """The manifest of an artifact on the Hub, in the Hub's cache.

    Raises:
      UserError: as :func:`fetch`.
    """
    repository, revision = parse(address)
    library = _library()
    with _refusals(repository, revision):
        return Path(library.hf_hub_download(repository, MANIFEST, revision=revision))


def result_of(source: Path, name: str) -> Path:
    """Where a result goes by default: in a run, or beside an artifact; of one on the Hub, in the current folder."""
    if is_address(source):
        return Path(f"{parse(source)[0].partition('/')[2]}_{name}")
    return source / name if (source / "config.json").is_file() else source.parent / f"{source.name}_{name}"


def push(
    bundle: Bundle,
    repository: str,
    *,
    license: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Write ``bundle`` to a repository on the Hub, which is created where it is not there, in one commit.

    The card of the artifact gets the repository's name and the licence, unless a card there is its owner's.

    Args:
      repository: ``user/name``, or its address ``hf://user/name``.
      license: an identifier of the Hub, like ``apache-2.0``; None is that of the artifact that the model was opened
        from, and unknown where it has none.
      private: of a repository that is created: whether only its owner sees it.
      message: of the commit.

    Returns:
      The address of the model's page.

    Raises:
      UserError: huggingface_hub is not installed, nobody is logged in, the repository may not be written, or an
        argument does not fit.
    """
    from kind_jax.deploy.bundle import check_bundle, export

    check_bundle(bundle, kind=RunConfig)
    name, own = check_repository(repository), _card_of(bundle)
    card.check_own(own, license)
    library = _library()
    with tempfile.TemporaryDirectory() as scratch, _refusals(name, None):
        folder = Path(scratch) / "artifact"
        export(bundle, folder, license=license)
        text = (folder / card.CARD).read_text() if own is None else own
        (folder / card.CARD).write_text(card.on_the_hub(text, name))
        api = library.HfApi()
        page = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=message or f"Step {bundle.step}, {bundle.weights} weights",
            delete_patterns=["*.safetensors"],  # of a model that was there before and had more classes
        )
    return str(page)


def _card_of(bundle: Bundle) -> str | None:
    """The card that its owner has written, where ``bundle`` is an artifact as it was opened."""
    if not (bundle.origin / MANIFEST).is_file():
        return None
    manifest = read_manifest(bundle.origin)
    same = manifest.composition == bundle.composition and manifest.class_names == bundle.class_names
    kept = card.kept(bundle.origin) if same else {}
    return kept[card.CARD].decode("utf-8", "replace") if kept else None


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as e:
        raise UserError(
            "hf:// addresses need huggingface_hub, which is not installed: pip install 'kind-jax[hub]'."
        ) from e


@contextlib.contextmanager
def _refusals(repository: str, revision: str | None) -> Iterator[None]:
    """Sentences in place of what huggingface_hub raises."""
    errors: Any = importlib.import_module("huggingface_hub.errors")
    at = "" if revision is None else f" at {revision}"
    try:
        yield
    except errors.LocalEntryNotFoundError as e:
        raise UserError(f"hf://{repository} cannot be fetched: the Hub is out of reach, and no copy is here.") from e
    except errors.RevisionNotFoundError as e:
        raise UserError(f"hf://{repository} has no revision {revision!r}.") from e
    except errors.RepositoryNotFoundError as e:
        raise UserError(
            f"hf://{repository} does not exist, or may not be seen or written by who is logged in (hf auth login)."
        ) from e
    except errors.EntryNotFoundError as e:
        file = printable(str(e).partition("\n")[0], 200)
        raise UserError(f"hf://{repository}{at} is no artifact of kind_jax: it lacks a file ({file}).") from e
    except errors.LocalTokenNotFoundError as e:
        raise UserError(f"{repository} cannot be written: nobody is logged in to the Hub (hf auth login).") from e
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.HTTPError, OSError) as e:
        if isinstance(e, UserError):
            raise
        why = printable(f"{type(e).__name__}: {str(e).partition(chr(10))[0]}", 300)
        raise UserError(f"hf://{repository}: the Hub refuses or cannot be reached ({why}).") from e
