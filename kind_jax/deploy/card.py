"""The model card of an artifact: README.md, as the Hugging Face Hub shows it.

What it says comes from the artifact and from the run that it was exported from: sizes, classes, samples, figures with
intervals. Class names may be anybody's, so nothing in them is markup here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kind_jax import partition
from kind_jax.config import Config, is_of
from kind_jax.config.check import require
from kind_jax.deploy import cost
from kind_jax.deploy.manifest import CARD_FILES, MANIFEST
from kind_jax.errors import UserError
from kind_jax.kinds import product_of
from kind_jax.partition import weights_sha256
from kind_jax.train.checkpoint import read_meta
from kind_jax.train.run import load_config
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small

if TYPE_CHECKING:
    from kind_jax.deploy.bundle import Bundle

CARD, PICTURE = CARD_FILES
REPOSITORY = "USER/NAME"  # in a card that is not on the Hub yet
_MARK = "<!-- Written by kind_jax and replaced with the model. Remove this line to keep a card of your own. -->"
_UNLICENSED, _NO_LICENSE = "unknown", "Not stated; ask whoever shares this model."
_MOST_CLASSES, _MOST_BYTES = 100, 16 << 20
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:@$])")
_IDENTIFIER = r"[a-z0-9][a-z0-9.+-]{0,63}"  # of a licence
_LICENSE, _LICENSED = re.compile(rf"{_IDENTIFIER}\Z"), re.compile(rf"^license: ({_IDENTIFIER})$", re.MULTILINE)
_TASKS = {"diffusion": "unconditional-image-generation", "classification": "image-classification"}


def beside(bundle: Bundle, license: str | None = None) -> dict[str, bytes]:
    """The card, and the picture in it where the run has drawn one, by the names of their files.

    Raises:
      UserError: ``license`` has not the form of the Hub's identifiers.
    """
    picture = _picture(bundle)
    files = {} if picture is None else {PICTURE: picture}
    return {CARD: text_of(bundle, picture=picture is not None, license=license).encode(), **files}


def kept(directory: Path) -> dict[str, bytes]:
    """The card of an artifact where its owner wrote it, and the picture beside it; nothing where it is ours."""
    found = {name: read_small(directory / name, _MOST_BYTES) for name in CARD_FILES if (directory / name).is_file()}
    return found if CARD in found and _MARK.encode() not in found[CARD] else {}


def check_own(text: str | bytes | None, license: str | None) -> None:
    """Refuse a licence for a model whose card is its owner's, which nothing is written into.

    Raises:
      UserError: it is.
    """
    if text is not None and license is not None:
        raise UserError(
            f"license is {license!r:.100}, but the model's {CARD} is your own, so the licence must be written there."
        )


def on_the_hub(text: str, repository: str) -> str:
    """A card of ours with the name that the model has there; another's is left as it is."""
    return text.replace(REPOSITORY, repository) if _MARK in text else text


def text_of(bundle: Bundle, *, picture: bool = False, license: str | None = None) -> str:
    """The card as Markdown, with the Hub's metadata in front.

    Args:
      picture: whether the picture of samples lies beside it.
      license: an identifier of the Hub; None is that of the artifact that the model was made of, where it has one.

    Raises:
      UserError: ``license`` has not the form of these identifiers.
    """
    if license is not None:
        wanted = "one of the Hub's identifiers, in lower case, like apache-2.0 or cc-by-4.0"
        require(isinstance(license, str) and _LICENSE.match(license) is not None, "license", license, wanted)
    license = license or _license_of(bundle.origin)
    config, names = bundle.config, [bundle.class_names[c] for c in bundle.served]
    task = _TASKS.get(config.task)
    head = [
        "---",
        f"license: {license or _UNLICENSED}",
        "library_name: kind_jax",
        *([f"pipeline_tag: {task}"] if task else []),
    ]
    head += ["tags:", "- kind", "- jax", *(["- diffusion"] if is_of(config, Config) else []), "---", "", _MARK, ""]
    count = f"{len(names)} class{'' if len(names) == 1 else 'es'}"
    title = f"# A model of {count}: {', '.join(map(plain, names[:6]))}{', …' if len(names) > 6 else ''}"
    body = [title, "", _about(bundle), ""]
    if picture:
        body += ["## Samples", "", f"![Samples of the model, a column for each class]({PICTURE})", ""]
    body += ["## Sizes", "", *_sizes(bundle), "", *_figures(bundle), "## Classes", "", *_classes(bundle), ""]
    body += ["## Use", "", *_use(bundle), "", "## Licence", "", _NO_LICENSE if license is None else f"`{license}`.", ""]
    return "\n".join([*head, *body])


def plain(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    return _MARKUP.sub(r"\\\1", html.escape(text, quote=True)).replace("\n", " ")


def _about(bundle: Bundle) -> str:
    apart = bool(bundle.collections[partition.TAILORS])
    which = "averaged" if bundle.weights == "ema" else "last"
    said = f"Trained for {bundle.step:,} steps with `kind_jax`; these are the {which} weights."
    if apart:
        said += (
            " Its weights are sums of rank-one components: *learngenes*, which all classes share, and *tailors*, which "
            "are switched on for their own class alone. Each group of classes has its tailors in a file of its own, so "
            "that a device fetches only those of the classes that it serves."
        )
    record = bundle.composition
    if record is not None:
        said += f" Composed from a larger model, with {record.energy:.1%} of its components' energy."
    return said


def _sizes(bundle: Bundle) -> list[str]:
    rows = ["| collection | parameters | bytes |", "|---|---:|---:|"]
    for name, tree in bundle.collections.items():
        leaves = list(partition.flatten(tree).values())
        if leaves:
            size, total = sum(a.size for a in leaves), sum(a.size * a.dtype.itemsize for a in leaves)
            groups = f" of {len(bundle.groups)} groups" if name == partition.TAILORS else ""
            rows.append(f"| {name}{groups} | {size:,} | {total:,} |")
    if is_of(bundle.config, Config):
        one = cost.total(bundle.config.model, 1 if bundle.collections[partition.TAILORS] else None)
        rows += ["", f"One evaluation of one image takes {one.flops:,} FLOPs."]
    return rows


def _classes(bundle: Bundle) -> list[str]:
    served = bundle.served
    if not served:
        return ["None: the model tells images apart in words."]
    apart = bool(bundle.collections[partition.TAILORS])
    groups = bundle.config.model.group_of_class if apart else ()
    rows = ["| number | name | file |", "|---:|---|---|"] if apart else ["| number | name |", "|---:|---|"]
    for c in served[:_MOST_CLASSES]:
        file = f" tailors/{groups[c]}.safetensors |" if apart else ""
        rows.append(f"| {c} | {plain(bundle.class_names[c])} |{file}")
    left = len(served) - _MOST_CLASSES
    return rows + (["", f"And {left:,} more, which `kind.json` lists."] if left > 0 else [])


def _use(bundle: Bundle) -> list[str]:
    first = bundle.served[0] if bundle.served else None
    lines = ["```python", "import kind_jax as kj", "", f'bundle = kj.open_bundle("hf://{REPOSITORY}")']
    if bundle.collections[partition.TAILORS] and first is not None:
        some = f'bundle = kj.open_bundle("hf://{REPOSITORY}", classes=[{first}])'
        lines.append(f"{some}  # fetches the tailors of this class alone")
    if is_of(bundle.config, Config) and first is not None:
        lines.append(f"images = bundle.sample([{first}] * 8, seed=0)  # float32, nominally in [-1, 1]")
    return [*lines, "```", "", "`kj.open_bundle` takes a folder that holds these files, too."]


def _figures(bundle: Bundle) -> list[str]:
    """The last evaluation, where it is of these very weights."""
    record = _record(bundle)
    if record is None:
        return []
    try:
        rows = [_row(name, value, record["intervals"].get(name)) for name, value in record["metrics"].items()]
        count, who = int(record["samples"]["count"]), plain(str(record["extractor"]["name"])[:80])
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
    title = f"Of {count:,} samples, by the features of `{who}`; in brackets 95 % intervals."
    return ["## Figures", "", title, "", "| metric | value |", "|---|---:|", *rows, ""]


def _row(name: str, value: Any, interval: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(name)
    bounds = f" [{float(interval[0]):.4g}, {float(interval[1]):.4g}]" if interval else ""
    return f"| {plain(name[:80])} | {number:.4g}{bounds} |"


def _license_of(directory: Path) -> str | None:
    """What the card of an artifact says in its metadata, whoever wrote it."""
    if not (directory / MANIFEST).is_file() or not (directory / CARD).is_file():
        return None
    head, _, _ = read_small(directory / CARD, _MOST_BYTES).decode("utf-8", "replace")[4:].partition("\n---")
    found = _LICENSED.search(head)
    return None if found is None or found[1] == _UNLICENSED else found[1]


def _record(bundle: Bundle) -> Mapping[str, Any] | None:
    path = bundle.origin / "evaluation" / "evaluation.json"
    if not _of_run(bundle) or not path.is_file():
        return None
    try:
        record = documents.parse(read_small(path, _MOST_BYTES), path)
        measured = record["samples"]["weights"]["sha256"]
    except (UserError, KeyError, TypeError):
        return None
    return record if measured == weights_sha256(bundle.collections) else None


def _picture(bundle: Bundle) -> bytes | None:
    """What the run drew last before the step of these weights, where they have all of its classes."""
    if not _of_run(bundle) or len(bundle.served) < len(bundle.class_names):
        return None
    last = f"step_{bundle.step:07d}.png"
    drawn = sorted(p for p in (bundle.origin / "samples").glob("step_*.png") if p.is_file() and p.name <= last)
    return read_small(drawn[-1], _MOST_BYTES) if drawn else None


def _of_run(bundle: Bundle) -> bool:
    """Whether the bundle is the model of a run as it was opened, not one that was made of it."""
    if bundle.composition is not None or not (bundle.origin / "config.json").is_file():
        return False
    try:
        model = product_of(load_config(bundle.origin)).model
        names = read_meta(bundle.origin / "checkpoints", bundle.step)["class_names"]
    except (UserError, KeyError, TypeError, AttributeError):
        return False
    return model == bundle.config.model and tuple(names) == bundle.class_names
