"""The one way of a long run through its batches: order, progress, and what an interrupted run has left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from cloakonnx.engine.folder import Folder

Tell = Callable[[float], None]
"""Called with the share of a batch's work that is done, below 1."""


class AnyBatch(Protocol):
    """Some samples, with whatever is known of them."""

    @property
    def size(self) -> int:
        """How many samples there are."""

    def digest(self) -> str:
        """Return what tells these samples from others."""


B = TypeVar("B", bound=AnyBatch)
B_contra = TypeVar("B_contra", bound=AnyBatch, contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[B_contra, R_co]):
    """What is done with each batch: a frozen dataclass that can be pickled, so it holds no session.

    No batch's result depends on another batch.
    """

    @property
    def record(self) -> Mapping[str, Any]:
        """Everything that results depend on beside the samples, as JSON: what ``resume`` compares."""

    @property
    def result(self) -> type[R_co]:
        """The type of a batch's result: a dataclass of arrays, numbers, tuples and such dataclasses."""

    def start(self, worker: int = 0) -> Callable[[B_contra, Tell], R_co]:
        """Make the sessions of a worker, and return what handles a batch.

        Args:
            worker: Number of the worker among those of this process, from 0.
        """


class Pool(Protocol[B_contra, R_co]):
    """The workers of one work, each with the sessions that it made; they stay between two runs."""

    def run(
        self, batches: Iterable[tuple[int, B_contra | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R_co | None]]:
        """Yield each batch's number and result, in any order. After a run that ended early there is no other.

        Args:
            batches: Numbers and batches; None for one that needs no work, whose number comes back with None. An engine
                gives None as well for a batch that is left out, whose result is for others.
            tell: Called with a batch's number and the share of it that is done, by the thread that iterates.

        Raises:
            Exception: what the first batch that fails raises, after the results of all batches before it.
        """


class Engine(Protocol):
    """Where batches are handled."""

    @property
    def threads(self) -> int | None:
        """Intra-op threads of each session; None leaves the provider's as they are."""

    @property
    def workers(self) -> int:
        """How many batches are handled at a time."""

    def open(self, work: Work[B, R]) -> AbstractContextManager[Pool[B, R]]:
        """Return the workers of a work, which end with the ``with`` block, whatever they have under way.

        Args:
            work: What is done with each batch.
        """


@runtime_checkable
class Counted(Protocol):
    """An engine whose workers come and go."""

    @property
    def alive(self) -> int:
        """How many workers are ready for batches, or at one."""


@runtime_checkable
class Connected(Protocol):
    """An engine that reaches for something outside this process."""

    def connect(self) -> None:
        """Reach for it now; raises CloakError where it is not there."""


class InProcess:
    """Handles batch after batch in the calling thread."""

    threads: int | None = None
    workers = 1

    @contextmanager
    def open(self, work: Work[B, R]) -> Iterator[Pool[B, R]]:
        """Give the one worker, which makes its sessions with the first batch."""
        yield _OneByOne(work)


class _OneByOne(Generic[B, R]):
    """Handles batch after batch in the calling thread."""

    def __init__(self, work: Work[B, R]) -> None:
        self._work = work
        self._handle: Callable[[B, Tell], R] | None = None

    def run(
        self, batches: Iterable[tuple[int, B | None]], tell: Callable[[int, float], None]
    ) -> Iterator[tuple[int, R | None]]:
        """Yield each batch's number and result, in order."""
        for number, batch in batches:
            if batch is None:
                yield number, None
                continue
            if self._handle is None:
                self._handle = self._work.start()
            yield number, self._handle(batch, partial(tell, number))


class InTurn:
    """Adds up the progress of runs that follow each other.

    Args:
        on_progress: Called with the number of samples that are done, those of earlier runs included.
    """

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self._on_progress = on_progress
        self._before = self._now = 0.0

    def __call__(self, done: float) -> None:
        """Take the number of samples that are done in this run."""
        self._now = self._before + done
        self._on_progress(self._now)

    def next(self) -> None:
        """Begin the next run."""
        self._before = self._now


@contextmanager
def map_batches(
    work: Work[B, R],
    batches: Iterable[B],
    *,
    engine: Engine,
    folder: Folder | None = None,
    name: str = "",
    on_progress: Callable[[float], None] = lambda samples: None,
) -> Iterator[Iterator[tuple[B, R]]]:
    """Give each batch with its result, in the order of the batches, to the block of a ``with`` statement.

    A batch that the engine leaves out is left out here, too.

    Where the block ends early, whatever the engine has under way is stopped.

    Args:
        work: What is done with each batch.
        batches: The samples.
        engine: Where batches are handled.
        folder: Keeps finished batches, and is open; those that are there already are not handled again.
        name: The samples' source, for messages.
        on_progress: Called with the number of samples that are done, with fractions while batches are handled.

    Raises:
        DataError: a finished batch was made from other samples.
        OutputError: a result can't be written.
    """
    waiting: dict[int, B] = {}
    results: dict[int, R | None] = {}  # None for those that the folder holds, and for those that are left out
    held: set[int] = set()  # those in the folder
    shares: dict[int, float] = {}
    done: float = 0

    def numbered() -> Iterator[tuple[int, B | None]]:
        for number, batch in enumerate(batches):
            waiting[number] = batch
            is_there = folder is not None and folder.holds(number, batch.digest(), name=name)
            if is_there:
                held.add(number)
            yield number, None if is_there else batch

    def tell(number: int, share: float) -> None:
        shares[number] = share * waiting[number].size
        on_progress(done + sum(shares.values()))

    def in_order(handled: Iterator[tuple[int, R | None]]) -> Iterator[tuple[B, R]]:
        nonlocal done
        following = 0
        for number, found in handled:
            if folder is not None and found is not None:
                folder.save(number, waiting[number].digest(), found)
                held.add(number)
            results[number] = None if folder is not None else found
            share = shares.pop(number, 0)
            done += waiting[number].size if found is not None or number in held else share
            on_progress(done + sum(shares.values()))
            while following in results:
                batch, kept = waiting.pop(following), results.pop(following)
                if folder is not None and following in held:
                    kept = found if following == number and found is not None else folder.load(following, work.result)
                    held.remove(following)
                if kept is not None:
                    yield batch, kept
                following += 1

    with engine.open(work) as pool:
        yield in_order(pool.run(numbered(), tell))
