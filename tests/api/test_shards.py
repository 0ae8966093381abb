"""A run in shards, merged, has the bytes of the whole run; what is not of one run is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.engine.shards.part import Slice

CNN = "samples/digits_cnn.onnx"
DATA = ck.Samples("samples/digits_test_fgsm.npz", limit=80)
FGSM: dict[str, Any] = {"attack": "fgsm", "eps": 1 / 16, "batch_size": 16}


@pytest.mark.parametrize("of", [1, 2, 3, 4, 7])
def test_every_batch_falls_to_one_shard(of: int) -> None:
    slices = [Slice(number, of) for number in range(1, of + 1)]
    for batch in range(5 * of):
        assert sum(each.has(batch) for each in slices) == 1
    assert {sum(each.has(batch) for batch in range(5 * of)) for each in slices} == {5}


def test_batches_at_regular_distances_fall_to_different_shards() -> None:
    """As those of one mask do, where each batch comes once for each mask."""
    assert {batch % 4 for batch in range(16) if Slice(1, 4).has(batch)} == {0, 1, 2, 3}


def in_shards(folder: Path, of: int, function: Callable[..., Any], *args: Any, **options: Any) -> list[Path]:
    shards = [
        ck.engines.Shard(number, of, folder / f"{function.__name__}-{number}.shard") for number in range(1, of + 1)
    ]
    return [each.run(function, *args, **options) for each in shards]


def merged(shards: list[Path], data: ck.Samples = DATA, **options: Any) -> ck.Analysis:
    return ck.engines.merge(shards, ck.analyze, CNN, data, **{**FGSM, **options})


def test_attack(tmp_path: Path) -> None:
    attacks = [ck.attacks.PGD(eps=eps, max_iter=3) for eps in (1 / 16, 1 / 8)]
    ck.attack(CNN, DATA, attacks, batch_size=16, output=tmp_path / "whole.npz")
    shards = in_shards(tmp_path, 3, ck.attack, CNN, DATA, attacks, batch_size=16)
    ck.engines.merge(reversed(shards), ck.attack, CNN, DATA, attacks, batch_size=16, output=tmp_path / "merged.npz")
    for eps in ("0.0625", "0.125"):
        assert (tmp_path / f"merged.eps{eps}.npz").read_bytes() == (tmp_path / f"whole.eps{eps}.npz").read_bytes()
    assert not list(tmp_path.glob(".*"))  # nothing is left of unfinished work


def test_attack_in_memory_on_threads(tmp_path: Path) -> None:
    attack = ck.attacks.PGD(eps=1 / 16, max_iter=3)
    whole = ck.attack(CNN, DATA, attack, batch_size=16, engine=ck.engines.Threads(2))
    shards = in_shards(tmp_path, 2, ck.attack, CNN, DATA, attack, batch_size=16, engine=ck.engines.Threads(2))
    merged = ck.engines.merge(shards, ck.attack, CNN, DATA, attack, batch_size=16)
    assert isinstance(whole, type(merged))
    assert merged.x.tobytes() == whole.x.tobytes()
    assert merged == whole


def test_a_targeted_attack_looks_at_all_samples(tmp_path: Path) -> None:
    """A shard does not know whether there is anything to reach."""
    x = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    data = x, ck.attack(CNN, x, "fgsm", eps=1 / 16).y  # the model's own classes
    asked: dict[str, Any] = {"eps": 1 / 16, "batch_size": 2, "targets": "labels"}
    shards = in_shards(tmp_path, 2, ck.attack, CNN, data, "fgsm", **asked)
    with pytest.raises(ck.CloakError, match="no class left to reach"):
        ck.engines.merge(shards, ck.attack, CNN, data, "fgsm", **asked)


def test_analyze(tmp_path: Path) -> None:
    whole = ck.analyze(CNN, DATA, **FGSM)
    shards = in_shards(tmp_path, 3, ck.analyze, CNN, DATA, **FGSM)
    assert merged(shards).to_json() == whole.to_json()


def test_evaluate_with_more_shards_than_batches(tmp_path: Path) -> None:
    masked = ck.Classifier(CNN).with_masks(ck.select(ck.analyze(CNN, DATA, **FGSM), "5%"))
    options: dict[str, Any] = {"eps": [1 / 16, 1 / 8], "attack": "pgd", "max_iter": 3, "batch_size": 16}
    names = ("kept", "won")

    def outputs(of: str) -> dict[str, Any]:
        return dict(zip(("keep", "save_adversarial"), (tmp_path / f"{of}-{name}.npz" for name in names), strict=True))

    ck.evaluate(masked, DATA, **options, **outputs("whole"), output=tmp_path / "whole.json")
    shards = in_shards(tmp_path, 7, ck.evaluate, masked, DATA, **options, **outputs("shard"))
    assert not list(tmp_path.glob("shard-*"))  # a shard writes its own file only
    ck.engines.merge(shards, ck.evaluate, masked, DATA, **options, **outputs("merged"), output=tmp_path / "merged.json")
    for name in ("{}.json", "{}-kept.npz", "{}-won.npz"):
        assert (tmp_path / name.format("merged")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


@pytest.mark.parametrize("adaptive_at", [(), ("5%", "10%")], ids=len)
def test_sweep(tmp_path: Path, adaptive_at: tuple[str, ...]) -> None:
    """Eps is the largest difference of all pairs, those of other shards included."""
    analysis = ck.analyze(CNN, DATA, **FGSM)
    made = ck.attack(CNN, DATA, "fgsm", eps=1 / 16)
    pairs = ck.Pairs(DATA, (made.x, made.y))
    asked: dict[str, Any] = {"amounts": ["0%", "5%", "10%"], "adaptive_at": adaptive_at, "attack": "pgd", "max_iter": 2}
    whole = ck.sweep(CNN, analysis, pairs, batch_size=16, **asked)
    shards = in_shards(tmp_path, 3, ck.sweep, CNN, analysis, pairs, batch_size=16, **asked)
    assert ck.engines.merge(shards, ck.sweep, CNN, analysis, pairs, batch_size=16, **asked).to_json() == whole.to_json()


def test_progress_counts_the_samples_of_the_shard(tmp_path: Path) -> None:
    attacks = [ck.attacks.FGSM(eps=eps) for eps in (1 / 16, 1 / 8)]
    for number, expected in ((1, 2 * 16), (2, 2 * 2 * 16), (3, 2 * 2 * 16)):
        told: list[float] = []
        ck.engines.Shard(number, 3, tmp_path / "a.shard").run(
            ck.attack, CNN, DATA, attacks, batch_size=16, on_progress=told.append
        )
        assert told == sorted(told)
        assert told[-1] == expected


def test_a_shard_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def stop(done: float) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    shard = ck.engines.Shard(1, 2, tmp_path / "1.shard")
    with pytest.raises(KeyboardInterrupt):
        shard.run(ck.analyze, CNN, DATA, **FGSM, on_progress=stop)
    assert not (tmp_path / "1.shard").exists()
    told: list[float] = []
    ck.engines.Shard(1, 2, tmp_path / "1.shard", resume=True).run(
        ck.analyze, CNN, DATA, **FGSM, on_progress=told.append
    )
    assert told[-1] == 48
    resumed = (tmp_path / "1.shard").read_bytes()
    shard.run(ck.analyze, CNN, DATA, **FGSM)
    assert resumed == (tmp_path / "1.shard").read_bytes()


def test_a_shard_does_not_go_on_with_others_work(tmp_path: Path) -> None:
    def stop(done: float) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ck.engines.Shard(1, 2, tmp_path / "1.shard").run(ck.analyze, CNN, DATA, **FGSM, on_progress=stop)
    with pytest.raises(ck.CloakError, match=r"left by a shard with other settings \(shard\)"):
        ck.engines.Shard(1, 3, tmp_path / "1.shard", resume=True).run(ck.analyze, CNN, DATA, **FGSM)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return in_shards(tmp_path_factory.mktemp("shards"), 3, ck.analyze, CNN, DATA, **FGSM)


def test_missing_and_twice(analysed: list[Path]) -> None:
    one, two, three = analysed
    with pytest.raises(ck.CloakError, match="shard 2 is missing of 3; name"):
        merged([one, three])
    with pytest.raises(ck.CloakError, match="2 shards, 1, 2, are missing of 3; name"):
        merged([three])
    with pytest.raises(ck.CloakError, match="are the same shard, 1/3; name it once"):
        merged([one, one, two])
    with pytest.raises(ck.CloakError, match="no shards are named"):
        merged([])
    with pytest.raises(ck.CloakError, match="No such file"):
        merged([one, two, three.with_name("four.shard")])


@pytest.mark.parametrize(
    ("options", "differs"),
    [({"eps": 1 / 8}, "attack"), ({"batch_size": 32}, "batch_size"), ({"criterion": "relative"}, "criterion")],
    ids=str,
)
def test_other_settings(analysed: list[Path], tmp_path: Path, options: dict[str, Any], differs: str) -> None:
    with pytest.raises(ck.CloakError, match=differs):
        merged(analysed, **options)
    other = ck.engines.Shard(3, 3, tmp_path / "3.shard").run(ck.analyze, CNN, DATA, **{**FGSM, **options})
    with pytest.raises(ck.CloakError, match=f"not shards of one run: they differ in .*{differs.replace('_', ' ')}"):
        merged([*analysed[:2], other])


def test_other_samples(analysed: list[Path], tmp_path: Path) -> None:
    for limit in (48, 70, 100):
        with pytest.raises(ck.CloakError, match="the samples are not those of the shards"):
            merged(analysed, ck.Samples("samples/digits_test_fgsm.npz", limit=limit))
    other = ck.engines.Shard(3, 3, tmp_path / "3.shard").run(
        ck.analyze, CNN, ck.Samples("samples/digits_test_fgsm.npz", limit=70), **FGSM
    )
    with pytest.raises(ck.CloakError, match="differ in samples"):
        merged([*analysed[:2], other])


def test_another_number_of_shards_or_function(analysed: list[Path], tmp_path: Path) -> None:
    other = ck.engines.Shard(2, 2, tmp_path / "2.shard").run(ck.analyze, CNN, DATA, **FGSM)
    with pytest.raises(ck.CloakError, match="analyze in 3 shards and analyze in 2"):
        merged([analysed[0], other])
    with pytest.raises(ck.CloakError, match="is a shard of analyze, not of attack"):
        ck.engines.merge(analysed, ck.attack, CNN, DATA, "fgsm", eps=1 / 16)
    with pytest.raises(ck.CloakError, match="taps does not run in shards"):
        ck.engines.merge(analysed, ck.taps, CNN)


def test_other_versions(analysed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloakonnx.engine.shards.merged.installed_versions", lambda: {"numpy": "1"})
    with pytest.raises(ck.CloakError, match=r"other versions \(cloakonnx, numpy, "):
        merged(analysed)


def test_damaged_anywhere(analysed: list[Path], tmp_path: Path) -> None:
    whole = analysed[1].read_bytes()
    damaged = tmp_path / "2.shard"
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"{}", b"PK" + whole[20:]):
        damaged.write_bytes(content)
        with pytest.raises(ck.CloakError, match=r"is no shard, or is damaged|is damaged; run that shard again"):
            merged([analysed[0], damaged, analysed[2]])
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = merged([analysed[0], damaged, analysed[2]])
        except ck.CloakError:
            continue
        assert found.to_json() == merged(analysed).to_json(), place  # a date, say, which nobody reads


def test_a_batch_is_missing(analysed: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "2.shard"
    with zipfile.ZipFile(analysed[1]) as archive, zipfile.ZipFile(damaged, "w") as other:
        for name in archive.namelist()[:-1]:
            other.writestr(name, archive.read(name))
    with pytest.raises(ck.CloakError, match="is damaged; run that shard again"):
        merged([analysed[0], damaged, analysed[2]])


@pytest.mark.parametrize(("number", "of"), [(0, 4), (5, 4), (1, 0), (-1, 2)])
def test_there_is_no_such_shard(number: int, of: int) -> None:
    with pytest.raises(ck.CloakError, match="counts the shards, from 1"):
        ck.engines.Shard(number, of, "a.shard")


def test_an_output_goes_with_the_merge(tmp_path: Path) -> None:
    with pytest.raises(ck.CloakError, match="writes no output of its own"):
        ck.engines.Shard(1, 2, tmp_path / "1.shard").run(
            ck.attack, CNN, DATA, "fgsm", eps=1 / 16, output=tmp_path / "a.npz"
        )
