"""The workers of one engine: started, given work and batches, listened to, replaced when they are lost, and ended."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from cloakonnx.data.located import without_pixels
from cloakonnx.engine.cluster._connection import Connection
from cloakonnx.engine.cluster._losses import Ends, disconnected, sending, why
from cloakonnx.engine.cluster._shipping import Packed, contents, packed
from cloakonnx.engine.cluster._versions import check, versions
from cloakonnx.engine.cluster._worker import SHARE, Hello, Report, actor_class
from cloakonnx.errors import WorkerError

_EVERY = 1.0
"""Seconds between two questions to a worker about how far it is, at least."""
_QUESTIONS = 100
"""A second, at most, to all workers together."""
_SHORT = 0.25
"""Seconds; a worker whose batches take less gets the next one before it is done, so that it does not wait for it."""
_GRACE = 5.0
"""Seconds that the first batch waits for the other workers to say which versions they have."""
_STARTS = 3
"""Workers that end before they are ready, one after the other, until the run gives up."""
_PATIENCE = 600.0
"""Seconds without any worker until the run gives up."""


class Done(NamedTuple):
    """A batch came back."""

    number: int
    report: Report


class Lost(NamedTuple):
    """A batch has to be given again: its worker is gone, or can't read it."""

    number: int
    was_handled: bool
    """Whether it may be what has ended the worker."""
    reason: str


class Share(NamedTuple):
    """A batch is on its way."""

    number: int
    share: float


Event: TypeAlias = Done | Lost | Share


@dataclass(eq=False)
class Job:
    """A work that workers have, and what has happened to its batches.

    Attributes:
        name: What workers know it by.
        packed: The work as it travels.
        reference: To that, in Ray's store.
        stored: Models that are not on every node, by their place: references to their files' bytes, by location.
        events: What has happened since it was last asked for.
        error: What a worker raises when it takes the work.
        seconds: That a batch takes, in the mean of the latest.
    """

    name: str
    packed: Packed
    reference: Any
    stored: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=deque)
    error: Exception | None = None
    seconds: float | None = None


@dataclass(eq=False)
class _Member:
    """A worker, what it has, and the batches that it has been given, first one first, with the time."""

    actor: Any
    started: bool = False
    taking: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    unseeing: set[str] = field(default_factory=set)
    """Works whose samples it can't read by itself."""
    given: dict[tuple[str, int], float] = field(default_factory=dict)


class _Awaited(NamedTuple):
    """What a reference will bring."""

    kind: Literal["hello", "result", "share"]
    member: _Member
    job: str = ""
    number: int = -1


class Crew:
    """Workers of Ray, which stay from one work to the next.

    Args:
        connection: To the cluster.
        size: How many there may be.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    def __init__(self, connection: Connection, size: int, *, cpus: int, gpus: float) -> None:
        self._ray, self._size = connection.ray, size
        self._ends: Ends = connection.ends
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "concurrency_groups": {SHARE: 1}}
        self._kind = self._ray.remote(**options)(actor_class(self._ray))
        self._members: list[_Member] = []
        self._awaited: dict[Any, _Awaited] = {}
        self._jobs: dict[str, Job] = {}
        self._failed_starts = 0
        self._first_hello: float | None = None
        self._has_given = False
        self._last_questions = self._last_ready = time.monotonic()

    @property
    def alive(self) -> int:
        """How many workers run."""
        return sum(member.started for member in self._members)

    def open(self, work: object) -> Job:
        """Take up a work."""
        made = packed(work, self._ray.cloudpickle.CloudPickler)
        with sending(self._ray):
            job = Job(secrets.token_hex(4), made, self._ray.put(made))
        self._jobs[job.name] = job
        self._last_ready = time.monotonic()
        return job

    def close(self, job: Job) -> None:
        """Give up a work: workers that are at a batch of it end, the others forget it."""
        del self._jobs[job.name]
        for member in list(self._members):
            member.unseeing.discard(job.name)
            if any(name == job.name for name, _ in member.given):
                self._part_with(member, "it was ended")
            elif job.name in member.ready:
                member.ready.discard(job.name)
                member.actor.drop.remote(job.name)

    def employ(self, job: Job, wanted: int) -> None:
        """Give a work to as many workers as wanted, or as may be; start those that are missing."""
        wanted = min(wanted, self._size)
        while len(self._members) < wanted:
            self._members.append(_Member(self._kind.remote(self._ends.run)))
            self._ends.actors.append(self._members[-1].actor)
        for member in self._members[:wanted]:
            if job.name not in member.ready | member.taking:
                self._hand_over(job, member)

    def has_room(self, job: Job) -> bool:
        """Return whether a worker can be given a batch; the first one waits for the versions of all workers."""
        if not self._has_given and self._first_hello is not None:
            is_late = time.monotonic() - self._first_hello > _GRACE
            if not is_late and any(not member.started for member in self._members):
                return False
        return self._free(job) is not None

    def give(self, job: Job, number: int, batch: Any) -> None:
        """Give a batch to the worker that has least; only where one has room.

        The pixels stay here where they come from files, until the worker says that it does not have these.
        """
        member = self._free(job)
        assert member is not None
        self._has_given = True
        member.given[job.name, number] = time.monotonic()
        light = None if job.name in member.unseeing else without_pixels(batch)
        with sending(self._ray):
            reference = member.actor.handle.remote(job.name, number, light or batch)
        self._awaited[reference] = _Awaited("result", member, job.name, number)

    def events(self, job: Job) -> Iterator[Event]:
        """Yield what has happened to a work's batches, after a wait of a second at most.

        Raises:
            WorkerError: the connection is lost, workers do not start, or have other versions.
            Exception: what a worker raises when it takes the work.
        """
        self._question()
        for reference in self._brought():
            awaited = self._awaited.pop(reference, None)
            if awaited is not None:  # else it was of a worker that an earlier one has shown to be gone
                self._note(awaited, self._value(reference))
        if self.alive:
            self._last_ready = time.monotonic()
        elif time.monotonic() - self._last_ready > _PATIENCE:
            raise WorkerError(
                f"no worker has started on Ray for {_PATIENCE / 60:.0f} minutes: other jobs hold the cluster's CPUs "
                "and GPUs, or nodes are gone"
            )
        if job.error is not None:
            raise job.error
        while job.events:
            yield job.events.popleft()

    def _note(self, awaited: _Awaited, found: Any) -> None:
        """Take note of what a reference has brought; a text says why the worker is gone."""
        job = self._jobs.get(awaited.job)
        if isinstance(found, str):
            self._part_with(awaited.member, found)
            self._failed_starts += not awaited.member.started
            if self._failed_starts == _STARTS:
                raise WorkerError(f"workers do not start on Ray: {found}")
        elif awaited.kind == "hello":
            self._welcome(awaited.member, job, found)
        elif awaited.kind == "result":
            seconds = time.monotonic() - awaited.member.given.pop((awaited.job, awaited.number))
            if found.is_unseen:
                awaited.member.unseeing.add(awaited.job)
                if job is not None:
                    job.events.append(Lost(awaited.number, False, "its worker can't read it"))
            elif job is not None:
                job.seconds = seconds if job.seconds is None else 0.8 * job.seconds + 0.2 * seconds
                job.events.append(Done(awaited.number, found))
        elif found is not None and found[:2] in awaited.member.given:
            name, number, share = found
            self._jobs[name].events.append(Share(number, share))

    def _free(self, job: Job) -> _Member | None:
        depth = 2 if job.seconds is not None and job.seconds < _SHORT else 1
        ready = (each for each in self._members if job.name in each.ready and len(each.given) < depth)
        return min(ready, key=lambda member: len(member.given), default=None)

    def _hand_over(self, job: Job, member: _Member) -> None:
        member.taking.add(job.name)
        reference = member.actor.take.remote(job.name, (job.reference,), job.stored)
        self._awaited[reference] = _Awaited("hello", member, job.name)

    def _welcome(self, member: _Member, job: Job | None, found: Report) -> None:
        """Take up a worker that has the work; send the models that are not on its node."""
        member.taking.discard(job.name if job else "")
        if found.error is not None:
            if job is not None:
                job.error = found.error
            return
        hello: Hello = found.result
        check(hello.versions, versions(), hello.node)
        if not member.started:
            member.started, self._failed_starts = True, 0
            self._first_hello = self._first_hello or time.monotonic()
        if job is None:
            return
        if hello.lacking:
            for place in hello.lacking:
                if place not in job.stored:
                    with sending(self._ray):
                        job.stored[place] = contents(job.packed.files[place], self._ray.put)
            self._ends.nodes.add(hello.node_id)
            self._hand_over(job, member)
            return
        member.ready.add(job.name)

    def _question(self) -> None:
        """Ask busy workers how far they are, not faster than the driver can take it."""
        now = time.monotonic()
        if now - self._last_questions < max(_EVERY, len(self._members) / _QUESTIONS):
            return
        self._last_questions = now
        unanswered = {id(each.member) for each in self._awaited.values() if each.kind == "share"}
        for member in self._members:
            if member.given and id(member) not in unanswered:
                question = member.actor.share.remote()
                self._awaited[question] = _Awaited("share", member)

    def _brought(self) -> list[Any]:
        """Return the references that have brought something, after a wait of a second at most."""
        references = list(self._awaited)
        if not references:
            return []
        try:
            done, _ = self._ray.wait(references, num_returns=1, timeout=_EVERY)
            if done:
                done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise disconnected(error) from None
        return list(done)

    def _value(self, reference: Any) -> Any:
        """Return what a reference stands for, or in a text why there is nothing.

        Raises:
            WorkerError: the connection is lost, or workers can't be started or read what they were sent.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.LocalRayletDiedError, errors.RaySystemError, ConnectionError) as error:
            raise disconnected(error) from None
        except errors.RayError as error:
            return why(error, self._ray)

    def _part_with(self, member: _Member, reason: str) -> None:
        """Take leave of a worker: its first batch was being handled, those after it were not."""
        self._members.remove(member)
        self._ray.kill(member.actor)  # one that can't be reached may go on
        self._ends.actors.remove(member.actor)
        for reference in [each for each, of in self._awaited.items() if of.member is member]:
            self._awaited.pop(reference)
        for place, (name, number) in enumerate(member.given):
            if name in self._jobs:
                self._jobs[name].events.append(Lost(number, place == 0, reason))
