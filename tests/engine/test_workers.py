"""Whatever goes through the batches: it can be pickled, and several workers give the bytes of one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cloakonnx.attacks.attack import attack
from cloakonnx.attacks.base import make
from cloakonnx.attacks.pairs import AttackedPairs, MakePairs
from cloakonnx.attacks.presets import plan
from cloakonnx.attacks.targets import Targets
from cloakonnx.attacks.work import AttackWork
from cloakonnx.classifier.classifier import Classifier
from cloakonnx.classifier.masked import MaskedClassifier, ones
from cloakonnx.data.batch import Batch, LabelledBatch
from cloakonnx.data.samples import Dataset, FittedPairs
from cloakonnx.data.sources import ArraySource
from cloakonnx.engine import choice
from cloakonnx.engine.batches import InProcess, Work
from cloakonnx.engine.choice import default_engine
from cloakonnx.engine.threads import Threads
from cloakonnx.engine.trees import flattened
from cloakonnx.errors import InferenceError
from cloakonnx.evaluation.accuracy import RightWork, accuracy
from cloakonnx.evaluation.compared import ComparisonWork, Conditions
from cloakonnx.evaluation.evaluate import evaluate
from cloakonnx.evaluation.sweeps._adaptive import MaskedBatch, MaskedWork
from cloakonnx.evaluation.sweeps._amounts import LabelledPairs
from cloakonnx.evaluation.sweeps._curve import CurveWork
from cloakonnx.evaluation.sweeps.sweep import sweep
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.scoring.analyze import ScoringWork, analyze
from cloakonnx.scoring.criteria import criterion
from cloakonnx.selection.greedy.select import select_greedy
from cloakonnx.selection.learn.choosing import TrialWork
from cloakonnx.selection.learn.learn import learn
from cloakonnx.selection.learn.recipe import Recipe
from cloakonnx.selection.topk import Count
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.support.classifiers import CPU

TAP, EPS = "/6/Relu_output_0", 2 / 16
X, Y = (values[:60] for values in digits_arrays())
ONE = replace(CPU, threads=1)
WORKERS = [2, 3]


def classifier(**options: Any) -> Classifier:
    return Classifier(DIGITS, provider=ONE, **options)


def mask() -> Mask:
    weights = np.ones(64, np.float32)
    weights[[3, 17, 40, 41]] = 0
    return Mask(TAP, weights)


def masked() -> Classifier:
    return Classifier(hardened(load(DIGITS), [mask()]), provider=ONE)


def dataset(x: Any = X) -> Dataset:
    return Dataset.of(ArraySource("digits.npz", x, Y), classifier())


def pairs() -> FittedPairs:
    moved = np.clip(X + np.float32(EPS) * np.sign(np.random.default_rng(0).normal(size=X.shape)), 0, 1)
    return FittedPairs(dataset(), dataset(moved.astype(np.float32)))


PGD = make("pgd", eps=EPS, max_iter=5)
BATCH, LABELLED = Batch(X[:7], Y[:7], 0), LabelledBatch(X[:7], Y[:7], np.arange(7))
PAIRS = LabelledPairs(LABELLED, X[7:14])
CONDITIONS = Conditions((plan("pgd", eps=EPS, max_iter=3),), "linf", 0, X.shape[1:])
MAKING = MakePairs(classifier(), PGD, X.shape[1:], "digits.npz")
WORKS: dict[str, tuple[Callable[[], Work[Any, Any]], Any]] = {
    "attack": (
        lambda: AttackWork.of(classifier(), dataset(), PGD, round_levels=False, targets=Targets("labels")),
        BATCH,
    ),
    "pairs": (lambda: MAKING, BATCH),
    "scoring": (
        lambda: ScoringWork(classifier(), find_tap(load(DIGITS), TAP), criterion("margin"), MAKING, "digits.npz"),
        BATCH,
    ),
    "comparison": (
        lambda: ComparisonWork(masked(), classifier(), (masked(),), CONDITIONS, is_stripped=True, keeps_turned=True),
        LABELLED,
    ),
    "masked": (lambda: MaskedWork.of(classifier(), [mask()], CONDITIONS), MaskedBatch(0, LABELLED)),
    "curve": (lambda: CurveWork(classifier(), find_tap(load(DIGITS), TAP), (mask(),), X[:16]), PAIRS),
    "accuracy": (lambda: RightWork(classifier()), LABELLED),
    "trial": (
        lambda: TrialWork(
            MaskedClassifier(classifier(), [ones(find_tap(load(DIGITS), TAP))]), {TAP: mask().weights}, PGD
        ),
        LABELLED,
    ),
}


@pytest.mark.parametrize("name", WORKS)
def test_work_travels(name: str) -> None:
    """Pickled before and after it has sessions, it gives the same results and the same record."""
    make_work, batch = WORKS[name]
    work = make_work()
    expected = work.start()(batch, lambda share: None)
    travelled = pickle.loads(pickle.dumps(work))
    assert travelled.record == work.record
    for each in (travelled.start(), work.start(1), work.start(2)):
        found = each(batch, lambda share: None)
        if isinstance(found, tuple):
            np.testing.assert_array_equal(found.adversarial, expected.adversarial)
            continue
        assert type(found) is work.result
        same = flattened(expected) if name != "scoring" else {}
        assert {key: (a.dtype, a.tolist()) for key, a in (flattened(found) if same else {}).items()} == {
            key: (a.dtype, a.tolist()) for key, a in same.items()
        }
        if name == "scoring":
            np.testing.assert_array_equal(found.parts[0].moments.abs_delta, expected.parts[0].moments.abs_delta)
            np.testing.assert_array_equal(found.parts[0].attribution.total, expected.parts[0].attribution.total)


@pytest.mark.parametrize("workers", WORKERS)
def test_attack(tmp_path: Path, workers: int) -> None:
    def made(name: str, **options: Any) -> tuple[list[bytes], list[int]]:
        paths = [tmp_path / f"{name}{i}.npz" for i in range(2)]
        found = attack(
            classifier(), dataset(), output=paths, attack="pgd", eps=[EPS, EPS / 2], max_iter=5, batch_size=7, **options
        )
        return [path.read_bytes() for path in paths], [each.gradients for each in found]

    assert made("several", engine=Threads(workers)) == made("one", engine=InProcess())


@pytest.mark.parametrize("workers", WORKERS)
def test_interrupted_and_resumed_with_other_workers(tmp_path: Path, workers: int) -> None:
    def stop(done: float) -> None:
        if done >= 25:
            raise InferenceError("stop")

    options: dict[str, Any] = {"attack": PGD, "batch_size": 7}
    attack(classifier(), dataset(), output=tmp_path / "whole.npz", engine=InProcess(), **options)
    with pytest.raises(InferenceError):
        attack(classifier(), dataset(), output=tmp_path / "a.npz", engine=Threads(workers), on_progress=stop, **options)
    assert (tmp_path / ".a.npz.parts").exists()
    attack(classifier(), dataset(), output=tmp_path / "a.npz", engine=Threads(5 - workers), resume=True, **options)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()

    measured: dict[str, Any] = {"eps": [EPS], "attack": "pgd", "max_iter": 3, "batch_size": 7, "sanity": False}
    evaluate(masked(), dataset(), output=tmp_path / "whole.json", engine=InProcess(), **measured)
    with pytest.raises(InferenceError):
        evaluate(masked(), dataset(), output=tmp_path / "r.json", engine=Threads(workers), on_progress=stop, **measured)
    evaluate(masked(), dataset(), output=tmp_path / "r.json", engine=InProcess(), resume=True, **measured)
    assert (tmp_path / "r.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("workers", WORKERS)
def test_evaluate(tmp_path: Path, workers: int) -> None:
    """Samples that are gained and lost, too."""

    def made(name: str, **options: Any) -> tuple[str, bytes]:
        samples = tmp_path / f"{name}.npz"
        found = evaluate(
            masked(), dataset(), eps=[EPS, EPS / 2], attack="pgd", max_iter=3, batch_size=9, keep=samples, **options
        )
        return found.to_json(), samples.read_bytes()

    one = made("one", engine=InProcess())
    assert made("several", engine=Threads(workers)) == one
    assert '"threads": 1' in one[0]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["deepcloak", "margin", "discriminability"])
def test_analyze_and_sweep(workers: int, name: str) -> None:
    engines = [InProcess(), Threads(workers)]
    given = [analyze(classifier(), pairs(), tap=TAP, criterion=name, batch_size=9, engine=engine) for engine in engines]
    assert given[0].to_json() == given[1].to_json()
    made = [
        analyze(classifier(), AttackedPairs(dataset(), classifier(), PGD), batch_size=9, engine=engine)
        for engine in engines
    ]
    assert made[0].to_json() == made[1].to_json()
    swept = [
        sweep(
            classifier(),
            given[0],
            pairs(),
            amounts=[Count(0), Count(4), Count(30)],
            adaptive_at=[Count(4), Count(30)],
            attack="pgd",
            max_iter=3,
            batch_size=9,
            engine=engine,
        )
        for engine in engines
    ]
    assert swept[0].to_json() == swept[1].to_json()
    counted = [accuracy(classifier(), dataset(), batch_size=9, engine=engine) for engine in engines]
    assert counted[0] == counted[1]


def test_learning_and_greedy_selection() -> None:
    recipe = Recipe(eps=EPS, budget=0.5, epochs=2, batch_size=7)
    engines = [InProcess(), Threads(2)]
    learned = [learn(classifier(), dataset(), recipe, over_budget=True, engine=engine) for engine in engines]
    assert learned[0].to_json() == learned[1].to_json()
    options: dict[str, Any] = {
        "budget": 0.5,
        "attack": make("pgd", eps=EPS, max_iter=3, early_stop=False),
        "batch_size": 7,
    }
    chosen = [select_greedy(classifier(), dataset(), without_gain=True, engine=engine, **options) for engine in engines]
    assert chosen[0].to_json() == chosen[1].to_json()


class LastFirst:
    """An engine of a user's own: all batches, the last one first."""

    threads, workers = None, 1

    @contextmanager
    def open(self, work: Work[Any, Any]) -> Iterator[Any]:
        handle = work.start()

        class Reversed:
            def run(self, batches: Any, tell: Any) -> Any:
                for number, batch in reversed(list(batches)):
                    yield number, None if batch is None else handle(batch, lambda share: None)

        yield Reversed()


def test_workers_stay_between_two_runs() -> None:
    """Sessions are made once, not once a run."""
    for engine in (InProcess(), Threads(2)):
        work = Counting()
        with engine.open(work) as pool:
            for _ in range(3):
                found = dict(pool.run(((i, Some(i)) for i in range(4)), lambda number, share: None))
                assert found == {i: i for i in range(4)}
        assert 1 <= len(work.started) <= engine.workers


class Some:
    def __init__(self, value: int) -> None:
        self.value, self.size = value, 1

    def digest(self) -> str:
        return str(self.value)


class Counting:
    """Returns the value of each batch, and knows how many workers were started."""

    record: ClassVar[dict[str, Any]] = {}
    result = int

    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, worker: int = 0) -> Any:
        self.started.append(worker)
        return lambda batch, tell: batch.value


def test_an_engine_of_ones_own(tmp_path: Path) -> None:
    """Whatever the order, the results are the same, in the order of the samples."""
    for name, engine in (("usual", InProcess()), ("own", LastFirst())):
        attack(classifier(), dataset(), output=tmp_path / f"{name}.npz", attack=PGD, batch_size=7, engine=engine)
        options: dict[str, Any] = {"eps": [EPS], "attack": "pgd", "max_iter": 3, "batch_size": 7}
        evaluate(masked(), dataset(), output=tmp_path / f"{name}.json", engine=engine, **options)
    assert (tmp_path / "own.npz").read_bytes() == (tmp_path / "usual.npz").read_bytes()
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "usual.json").read_bytes()


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on two cores, for enough batches of small samples."""
    x = np.zeros((80, 1, 8, 8), np.float32)
    small = Dataset.of(ArraySource("small", x, None), classifier())
    for cores, size, provider, workers in (
        (2, 10, CPU, 2), (2, 11, CPU, 1), (4, 10, CPU, 1), (1, 10, CPU, 1), (2, 10, ONE, 1),
        (2, 10, replace(CPU, name="CUDAExecutionProvider"), 1),
    ):  # fmt: skip
        monkeypatch.setattr(choice, "cores", lambda cores=cores: cores)
        assert default_engine(provider, small, size).workers == workers, (cores, size, provider)
    monkeypatch.setattr(choice, "cores", lambda: 2)
    large = Dataset(ArraySource("large", np.zeros((80, 3, 80, 80), np.float32), None), small.preprocessing, None)
    assert default_engine(CPU, large, 10).workers == 1


def test_only_the_batches_are_placed(tmp_path: Path) -> None:
    """The caller's classifier keeps its threads."""
    given = Classifier(DIGITS, provider=CPU)
    attack(given, dataset(), output=tmp_path / "a.npz", attack=PGD, batch_size=7, engine=Threads(2))
    assert given.provider.threads is None
    assert np.load(tmp_path / "a.npz")["settings"].item().count('"threads": 1') == 1
