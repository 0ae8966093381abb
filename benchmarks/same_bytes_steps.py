"""The command lines that same_bytes.py runs on a model, few or many of them.

A command's words are split as a shell would; `takes` names files that earlier commands of the same model wrote.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CRITERIA = ("deepcloak", "relative", "standardised", "discriminability", "margin", "evidence", "gradient-x-activation")
CPU = " --provider cpu"


@dataclass(frozen=True)
class Step:
    """One command line of the tool, without the program's name."""

    name: str
    words: tuple[str, ...]
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """How much work there is on a model.

    Attributes:
        limit: Samples for attacks and pairs.
        eps: Radius in linf, in pixel space.
        l2: Radius in l2.
        options: Options of every verb that reads samples.
        attacking: More options of attacks that take gradients.
        iterations: Steps of an attack.
        queries: Queries of square.
        learned: Samples to learn on; 0: no learning.
        tap: Another tap than the default one, for masks and scores; "": none.
        labels: Whether the data has labels.
        targets: Whether there are enough classes for APGD-DLR and the targeted attacks.
        checks: Whether hardened models are verified and stripped, too.
    """

    limit: int
    eps: str
    l2: str
    options: str = ""
    attacking: str = ""
    iterations: int = 5
    queries: int = 40
    learned: int = 0
    tap: str = ""
    labels: bool = True
    targets: bool = True
    checks: bool = True

    @property
    def data(self) -> str:
        """Options that name the samples."""
        return f"--data clean.npz --limit {self.limit} {self.options}{CPU}"

    @property
    def ball(self) -> str:
        """Options of an attack of few steps in linf."""
        return f"--eps {self.eps} --max-iter {self.iterations} {self.attacking}"


def step(name: str, words: str, *takes: str) -> Step:
    """Make a step from a command line."""
    return Step(name, tuple(shlex.split(words)), takes)


def attacks(sizes: Sizes, *, every: bool) -> Iterator[Step]:
    """Yield the attacks: all of them, or one of each kind."""

    def line(name: str, attack: str, more: str = "") -> Step:
        out = f"{name.replace(' ', '-')}.npz"
        given = "" if attack in {"square", "noise"} else sizes.attacking
        words = f"attack model.onnx {sizes.data} --attack {attack} {given} {more} -o {out} --json"
        return step(f"attack {name}", words)

    few, eps = f"--max-iter {sizes.iterations}", f"--eps {sizes.eps}"
    yield line("fgsm", "fgsm", eps)
    yield line("pgd", "pgd", f"{eps} {few}")
    yield line("square", "square", f"{eps} --max-iter {sizes.queries}")
    yield line("l2", "pgd", f"--norm l2 --eps {sizes.l2} {few}")
    if not every:
        return
    yield line("noise", "noise", f"{eps} --restarts 2")
    yield line("apgd-ce", "apgd-ce", f"{eps} {few} --restarts 2")
    if sizes.targets:
        yield line("apgd-dlr", "apgd-dlr", f"{eps} {few}")
        yield line("apgd-t", "apgd-t", f"{eps} {few}")
        yield line("fab-t", "fab-t", f"{eps} {few}")
        yield line("fab-t l2", "fab-t", f"--norm l2 --eps {sizes.l2} {few}")
    yield line("apgd-ce l2", "apgd-ce", f"--norm l2 --eps {sizes.l2} {few}")
    yield line("square l2", "square", f"--norm l2 --eps {sizes.l2} --max-iter {sizes.queries}")
    yield line("pgd several eps", "pgd", f"--eps {sizes.eps},0.01 {few} --batch-size 7 --restarts 2 --seed 3")
    if sizes.labels:
        yield line("pgd targeted", "pgd", f"{eps} {few} --targeted")
    for loss in ("margin", "ce-softmax", *(("dlr",) if sizes.targets else ())):
        yield line(f"pgd {loss}", "pgd", f"{eps} {few} --loss {loss} --eps-step 0.01")


def analyses(sizes: Sizes, criteria: Iterable[str]) -> Iterator[Step]:
    """Yield the criteria on pairs, and an analysis that makes its own adversarial samples."""
    pairs = f"analyze model.onnx {sizes.data} --adversarial fgsm.npz"
    for name in criteria:
        yield step(f"analyze {name}", f"{pairs} --criterion {name} -o {name}.json --json", "fgsm.npz")
    made = f"analyze model.onnx {sizes.data} --attack pgd {sizes.ball} --batch-size 16"
    yield step("analyze --attack", f"{made} -o attacked.json --json")
    if sizes.tap:
        words = f"{pairs} --tap {sizes.tap} -o tap.json"
        yield step("analyze --tap", words, "fgsm.npz")
        if sizes.labels:
            words = f"{words} --criterion gradient-x-activation --force"
            yield step("analyze --tap, gradient-x-activation", words, "fgsm.npz")


def hardening(sizes: Sizes) -> Iterator[Step]:
    """Yield what makes, takes back and checks hardened models."""
    apply = "apply model.onnx --analysis deepcloak.json --remove 10%"
    scored = "deepcloak.json"
    yield step("apply", f"{apply} -o hardened.onnx --attestation hardened.attestation.json", scored)
    yield step("apply --fold", f"{apply} --fold -o folded.onnx --attestation folded.attestation.json --json", scored)
    if not sizes.checks:
        return
    yield step("apply --dry-run", f"{apply} --dry-run --json", scored)
    yield step("strip", "strip hardened.onnx -o stripped.onnx --json", "hardened.onnx")
    yield step("inspect, hardened", "inspect hardened.onnx --json", "hardened.onnx")
    words = f"verify hardened.onnx --source model.onnx --analysis {scored} {sizes.data} --json"
    yield step("verify --source", words, "hardened.onnx", scored)
    words = f"verify folded.onnx --attestation folded.attestation.json{CPU} --json"
    yield step("verify --attestation", words, "folded.onnx", "folded.attestation.json")
    yield step("verify", f"verify hardened.onnx{CPU} --json", "hardened.onnx")
    words = f"verify folded.onnx --source model.onnx {sizes.data} --json"
    yield step("verify, folded", words, "folded.onnx")


def measuring(sizes: Sizes, *, sanity: bool) -> Iterator[Step]:
    """Yield evaluations and a sweep."""
    end = "" if sanity else " --no-sanity"
    single = f"{sizes.data} --attack pgd {sizes.ball}{end}"
    words = f"evaluate hardened.onnx {single} --samples samples.npz -o evaluation.json --markdown"
    yield step("evaluate", words, "hardened.onnx")
    words = f"evaluate folded.onnx {single} --baseline model.onnx --batch-size 9 -o folded.json --json"
    yield step("evaluate --baseline", words, "folded.onnx")
    words = f"sweep model.onnx --analysis deepcloak.json --data clean.npz --adversarial fgsm.npz --limit {sizes.limit} "
    words += f"--remove 0%..20%:10% --adaptive-at 10% --attack pgd {sizes.ball}{CPU}"
    yield step("sweep", f"{words} -o sweep.json", "deepcloak.json", "fgsm.npz")


def learning(sizes: Sizes) -> Iterator[Step]:
    """Yield masks that are learned, over two epochs, and what is made of them."""
    words = f"learn model.onnx --data clean.npz --limit {sizes.learned} {sizes.options}{CPU} --eps {sizes.eps} "
    words += "--budget 20% --epochs 2 --batch-size 32 --force --json"
    yield step("learn", f"{words} -o learned.json")
    yield step("learn trades", f"{words} --loss trades --inner-steps 2 --foldable --flip -o trades.json")
    apply = "apply model.onnx --analysis learned.json"
    yield step("apply, learned", f"{apply} -o learned.onnx", "learned.json")
    yield step("apply --fold, learned", f"{apply} --fold -o learned.folded.onnx --json", "learned.json")


def everything(sizes: Sizes, *, sanity: bool = True) -> Iterator[Step]:
    """Yield all that can be done with a model."""
    yield step("inspect", "inspect model.onnx --json")
    yield from attacks(sizes, every=True)
    yield from analyses(sizes, CRITERIA if sizes.labels else CRITERIA[:3])
    yield from hardening(sizes)
    if sizes.labels:
        yield from measuring(sizes, sanity=sanity)
    if sizes.learned:
        yield from learning(sizes)


def a_few(sizes: Sizes, *, learn: bool = False) -> Iterator[Step]:
    """Yield one of each kind."""
    yield step("inspect", "inspect model.onnx --json")
    yield from attacks(sizes, every=False)
    yield from analyses(sizes, ("deepcloak", "evidence", "gradient-x-activation") if sizes.labels else ("deepcloak",))
    yield from hardening(sizes)
    if sizes.labels:
        yield from measuring(sizes, sanity=False)
    if learn and sizes.learned:
        yield from list(learning(sizes))[:1]


def own_mask(tap: str) -> Iterator[Step]:
    """Yield what takes no analysis: a mask of one's own."""
    words = f"apply model.onnx --mask mask.npy --tap {tap}"
    yield step("apply --mask", f"{words} -o own.onnx --json")
    yield step("apply --mask --fold", f"{words} --fold -o own.folded.onnx")
    yield step("strip, own mask", "strip own.onnx -o own.stripped.onnx", "own.onnx")
    yield step("verify, own mask", f"verify own.onnx --source model.onnx{CPU} --json", "own.onnx")
    yield step("verify, own mask, folded", f"verify own.folded.onnx --source model.onnx{CPU}", "own.folded.onnx")


def more(sizes: Sizes) -> Iterator[Step]:
    """Yield what is done with one model only."""
    data = sizes.data
    greedy = f"--limit 120 {sizes.options}{CPU} --attack pgd {sizes.ball} --select greedy --budget 5% --force"
    words = f"analyze model.onnx --data clean.npz {greedy} --rounds 2 -o greedy.json --json"
    yield step("analyze --select greedy", words)
    yield step("analyze --select greedy --tap", f"{words.replace('greedy.json', 'conv.json')} --tap {sizes.tap}")
    yield step("apply, greedy", "apply model.onnx --analysis greedy.json -o greedy.onnx --json", "greedy.json")
    words = f"learn model.onnx --data clean.npz --limit 150{CPU} --eps 0.125 --budget 20% --epochs 2 --force"
    yield step("learn element", f"{words} --granularity element --norm l2 -o element.json")
    script = "--data-script digits.py:score --limit 30 --layout nchw --bounds 0,1"
    yield step("data from a script", f"attack model.onnx {script}{CPU} --attack fgsm --eps 0.1 -o script.npz --json")
    words = f"evaluate hardened.onnx {data} --eps 0.0625,0.125 -o quick.json --json"
    yield step("evaluate quick, two eps", words, "hardened.onnx")
    words = f"evaluate hardened.onnx --data clean.npz --limit 4{CPU} --attack standard --eps 0.125 --no-sanity --json"
    yield step("evaluate standard", words, "hardened.onnx")
    words = (
        f"evaluate hardened.onnx {data} --analysis deepcloak.json --attack pgd --norm l2 --eps 1.0 --max-iter 5 --json"
    )
    yield step("evaluate l2, --analysis", words, "hardened.onnx", "deepcloak.json")
    page = "report evaluation.json --analysis deepcloak.json --sweep sweep.json --model hardened.onnx"
    takes = ("evaluation.json", "deepcloak.json", "sweep.json", "hardened.onnx", "samples.npz")
    yield step("report", f"{page} --samples samples.npz -o report.html --json", *takes)
    gates = "--require 'clean-drop<=10%' --require 'robust>=20%@0.125' --require 'flags==0'"
    yield step("gate", f"gate evaluation.json {gates} --json", "evaluation.json")
    words = f"harden model.onnx --data clean.npz{CPU} --eps 0.0625 --preset quick --budget 10%"
    yield step("harden", f"{words} -o out --json")
    yield step("harden --method score", f"{words} --method score --tap {sizes.tap} --fold -o scored")
