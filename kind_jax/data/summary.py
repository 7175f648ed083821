"""What a data set holds, in the few lines that a run begins with."""

from __future__ import annotations

from kind_jax.data.sets import Dataset
from kind_jax.untrusted.text import printable

FEW = 20  # images of a class; with fewer, a model learns them by heart
_LISTED = 12  # classes named one by one


def summary(dataset: Dataset, what: str = "training") -> list[str]:
    """Images, classes and their numbers; what was left out; classes with too few images to learn from."""
    height, width, channels = dataset.image_shape
    kind = "latents" if dataset.latents is not None else f"{what} images"
    names, counts = [printable(name, 40) for name in dataset.class_names], dataset.counts
    known = dict(zip(names, counts, strict=True)) if counts is not None else {}
    if (chosen := dataset.fingerprint.get("only")) is not None:  # the others are left out on purpose
        names = [names[number] for number in chosen]
        known = {name: known[name] for name in names if name in known}
    classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
    line = f"data: {len(dataset.source):,} {kind} of {classes}, {height} x {width} x {channels}"
    if len(names) > 1 and known:
        line += f": {_spread(known)}"
    return [line, *_captions(dataset), *_mixed(dataset), *_left_out(dataset), *_few(known)]


def _captions(dataset: Dataset) -> list[str]:
    """How many captions there are, how long they are, and in how many families the records."""
    if dataset.captions is None:
        return []
    numbers = [len(texts) for texts in dataset.captions]
    least, most = min(numbers), max(numbers)
    longest = max(len(text.encode()) for texts in dataset.captions for text in texts)
    each = f"{least} for each image" if least == most else f"{least} to {most} for each image"
    line = f"captions: {sum(numbers):,}, {each}, the longest of {longest:,} bytes"
    if dataset.families is not None:
        line += f"; the images are of {len(set(dataset.families.tolist())):,} families"
    return [line]


def _mixed(dataset: Dataset) -> list[str]:
    """How many of the images are synthetic, in all and a class."""
    if not (drawn := sum(dataset.synthetic)):
        return []
    names = [printable(name, 40) for name in dataset.class_names]
    parts = {"synthetic": dict(zip(names, dataset.synthetic, strict=True))}
    if (counts := dataset.counts) is not None:
        pairs = zip(names, counts, dataset.synthetic, strict=True)
        parts = {"real": {name: count - own for name, count, own in pairs}, **parts}
    sizes = {"real": len(dataset.source) - drawn, "synthetic": drawn}
    each = "; ".join(f"{kind}: {_spread(found)}" for kind, found in parts.items())
    return [f"of these {sizes['real']:,} are real and {sizes['synthetic']:,} synthetic; {each}"]


def _spread(counts: dict[str, int]) -> str:
    if len(counts) <= _LISTED:
        return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    ordered = sorted(counts.values())
    return f"{ordered[0]:,} to {ordered[-1]:,} a class, median {ordered[len(ordered) // 2]:,}"


def _left_out(dataset: Dataset) -> list[str]:
    lines = []
    if dataset.bad:
        lines.append(f"left out: {len(dataset.bad):,} files or records that cannot be read")
    if dataset.others:
        lines.append(f"left out: {dataset.others:,} files that are no images by their names")
    if dataset.beside is not None:
        lines.append(f"left out: images beside the folders of the classes, like {printable(dataset.beside, 80)}")
    return lines


def _few(counts: dict[str, int]) -> list[str]:
    few = sorted((count, name) for name, count in counts.items() if count < FEW)
    if not few:
        return []
    some = ", ".join(f"{name} ({count})" for count, name in few[:_LISTED])
    more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
    return [f"warning: fewer than {FEW} images: {some}{more}; a model learns so few by heart"]
