"""`results audit` and `results submit`: weights are kept, measured again and packed, and whatever a
record claims of them that they do not give is named."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from forgeries import lower_everywhere, lower_final
from running import Bench, with_toys

pytestmark = pytest.mark.slow
RUN = (
    *("run", "toy/plain", "--preset", "dev", "--budget", "40steps"),
    *("--device", "cpu", "--threads", "1", "--quiet"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run whose weights lie beside its records."""
    bench = with_toys(tmp_path_factory.mktemp("trained"))
    ran = bench(*RUN, "--keep-weights")
    assert ran.code == 0, ran.err
    return bench.results


@pytest.fixture
def kept(bench: Bench, trained: Path) -> Bench:
    """Both arms of a pair, their weights beside the records and nothing in the cache."""
    shutil.copytree(trained, bench.results)
    return bench


def record_of(bench: Bench, arm: str) -> Path:
    (path,) = bench.results.glob(f"*/toy/plain/{arm}/*.json")
    return path


def change(path: Path, how: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_bytes())
    how(record)
    path.write_text(json.dumps(record))


def test_weights_give_the_record_again_wherever_they_lie(kept: Bench) -> None:
    ran = kept("results", "audit", str(kept.results), "--json", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert [(each["verdict"], each["weights"]) for each in ran.json] == [("agrees", "beside")] * 2
    for each in ran.json:
        record = json.loads(Path(each["path"]).read_bytes())
        assert each["measured"] == pytest.approx(record["final"]["total"], rel=1e-6)
        assert each["share"] == pytest.approx(record["final"]["share"], abs=1e-6)
        assert each["parameters"] == record["model"]["parameters"]
    said = kept("results", "audit", str(record_of(kept, "augmented")), "--device", "cpu")
    assert "remains a claim" in said.out


def test_without_the_option_the_cache_has_the_weights(bench: Bench) -> None:
    assert bench(*RUN).code == 0
    path = record_of(bench, "augmented")
    assert not path.with_suffix(".safetensors").exists()
    ran = bench("results", "audit", str(path), "--json", "--device", "cpu")
    assert (ran.code, ran.json[0]["weights"]) == (0, "cache")
    shutil.rmtree(bench.folder / "cache")
    ran = bench("results", "audit", str(path), "--device", "cpu")
    assert ran.code == 3
    assert "ask for a run with --keep-weights" in ran.out


def test_weights_of_a_finished_run_are_put_beside_its_record_when_asked_for(bench: Bench) -> None:
    assert bench(*RUN).code == 0
    again = bench(*RUN, "--resume", "--keep-weights")
    assert again.code == 0, again.err
    weights = record_of(bench, "augmented").with_suffix(".safetensors")
    assert weights.is_file()
    weights.unlink()
    shutil.rmtree(bench.folder / "cache" / "weights")
    again = bench(*RUN, "--resume", "--keep-weights")
    assert again.code == 3
    assert "the cache has no weights" in again.err
    assert "Traceback" not in again.err


@pytest.mark.parametrize("forge", [lower_final, lower_everywhere])
def test_a_loss_that_the_weights_do_not_give_is_found(
    kept: Bench, forge: Callable[[dict[str, Any]], None]
) -> None:
    path = record_of(kept, "augmented")
    change(path, forge)
    assert kept("results", "validate", str(path)).code == 0, "no look at the record tells"
    ran = kept("results", "audit", str(path), "--device", "cpu")
    assert ran.code == 3
    assert "its weights give" in ran.out
    assert "1 of 1 record did not pass the audit" in ran.err


def other_weights(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({name: 1.1 * value for name, value in tensors.items()}, path)


def other_shapes(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def no_weights(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 not weights")


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_weights, "the file of weights has SHA-256"),
        (other_shapes, "the weights of another network"),
        (no_weights, "is no file of weights"),
        (link, "is a symbolic link, which is not followed"),
    ],
)
def test_other_weights_are_one_sentence(
    kept: Bench, spoil: Callable[[Path], None], says: str
) -> None:
    path = record_of(kept, "augmented")
    spoil(path.with_suffix(".safetensors"))
    ran = kept("results", "audit", str(path), "--device", "cpu")
    assert ran.code == 3
    assert says in ran.out
    assert "Traceback" not in ran.err


def test_a_seed_trained_again_gives_the_same_trace_and_leaves_nothing_behind(kept: Bench) -> None:
    path = record_of(kept, "equivariant")
    ran = kept("results", "audit", str(path), "--rerun", "--json", "--device", "cpu")
    assert ran.code == 0, ran.err + ran.out
    assert "trained again on this machine" in ran.json[0]["rerun"][0]
    assert [each for each in (kept.folder / "cache" / "runs").iterdir() if each.is_dir()] == []
    # A forged curve fits its weights at the end and not the way there.
    change(path, lambda record: record["trace"][3]["test"].update(groups=None))
    change(path, lambda record: forged_point(record["trace"][3]["test"]))
    ran = kept("results", "audit", str(path), "--rerun", "--device", "cpu")
    assert ran.code == 3
    assert "its losses after the same steps are off by 0.1" in ran.out


def test_a_run_that_was_extended_is_trained_again_to_its_whole_length(bench: Bench) -> None:
    assert bench(*RUN, "--extend", "2").code == 0
    (path,) = bench.results.glob("*/toy/plain/*/*extended*.json")
    ran = bench("results", "audit", str(path), "--rerun", "--json", "--device", "cpu")
    assert ran.code == 0, ran.err + ran.out
    assert "points of the trace to step 50, off by 0 " in ran.json[0]["rerun"][0]


def no_torch(record: dict[str, Any]) -> None:
    del record["environment"]["packages"]["torch"]


def other_code(record: dict[str, Any]) -> None:
    record["git"] = {"commit": "0" * 40, "dirty": False, "tree": "1" * 40}


def many_threads(record: dict[str, Any]) -> None:
    where = record["environment"]
    where["threads"] = 900_000
    where["machine_key"] = where["machine_key"].replace("-1t", "-900000t")
    for attempt in record["attempts"]:
        attempt["machine_key"] = where["machine_key"]


def unknown_sweep(record: dict[str, Any]) -> None:
    record["variant"] = {"sweep": "nothing", "value": "1"}


def sweep_without_value(record: dict[str, Any]) -> None:
    record["variant"] = {"sweep": "size"}


@pytest.mark.parametrize(
    ("forge", "rerun", "code", "says"),
    [
        (no_torch, True, 0, "trained again on another machine, or with other code"),
        (other_code, True, 0, "trained again on another machine, or with other code"),
        (many_threads, False, 0, ""),
        (many_threads, True, 3, "cannot be trained again here: --threads must be between"),
        (unknown_sweep, False, 3, "unknown axis of a sweep 'nothing'"),
        (sweep_without_value, False, 3, "None is no value of the axis size"),
    ],
)
def test_what_no_rule_checks_of_a_plug_ins_record_is_survived(
    kept: Bench, forge: Callable[[dict[str, Any]], None], rerun: bool, code: int, says: str
) -> None:
    path = record_of(kept, "augmented")
    change(path, forge)
    assert kept("results", "validate", str(path)).code == 0
    ran = kept("results", "audit", str(path), "--device", "cpu", *["--rerun"] * rerun)
    assert ran.code == code, ran.err + ran.out
    assert says in ran.out
    assert "Traceback" not in ran.err


def forged_point(test: dict[str, Any]) -> None:
    baseline = test["total"] / (1 - test["explained"])
    for name in ("total", "twirled", "equivariance", "over_best_untrained"):
        test[name] *= 0.9
    test["explained"] = 1 - test["total"] / baseline


def test_a_submission_holds_all_that_a_reviewer_needs(kept: Bench) -> None:
    packed = kept("results", "submit", "results", "--out", "mine.zip")
    assert packed.code == 0, packed.err
    assert "2 records, 2 files of weights" in packed.out
    assert "remains a claim" in packed.out
    assert "log of the tuning" not in packed.err, "equivbench ships that of this pair"
    again = kept("results", "submit", "results", "--out", "again.zip")
    assert again.code == 0
    mine, second = (kept.folder / name for name in ("mine.zip", "again.zip"))
    assert mine.read_bytes() == second.read_bytes(), "the same submission has the same bytes"
    theirs = kept.folder / "theirs"
    with zipfile.ZipFile(mine) as archive:
        archive.extractall(theirs)
        sums = archive.read("SHA256SUMS").decode().splitlines()
    assert len(sums) == 4
    assert kept("results", "validate", str(theirs)).code == 0
    assert kept("results", "audit", str(theirs), "--device", "cpu").code == 0


def test_a_submission_without_weights_is_refused_unless_asked_for(kept: Bench) -> None:
    record_of(kept, "augmented").with_suffix(".safetensors").unlink()
    refused = kept("results", "submit", "results", "--out", "mine.zip")
    assert refused.code == 3
    assert "submit with --without-weights" in refused.err
    assert not (kept.folder / "mine.zip").exists()
    kept.folder.joinpath("notes.txt").write_text("mine")
    other = ("--out", "notes.txt", "--without-weights")
    assert kept("results", "submit", "results", *other).code == 2
    assert kept.folder.joinpath("notes.txt").read_text() == "mine"
    ran = kept("results", "submit", "results", "--out", "mine.zip", "--without-weights")
    assert (ran.code, "2 records, 0 files of weights" in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(other_weights, "is not the file of weights that its record names"), (link, "symbolic link")],
)
def test_other_weights_are_not_submitted(
    kept: Bench, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(record_of(kept, "augmented").with_suffix(".safetensors"))
    refused = kept("results", "submit", "results", "--out", "mine.zip")
    assert refused.code == 3
    assert says in refused.err
    assert not (kept.folder / "mine.zip").exists()


def test_an_invalid_submission_is_refused(kept: Bench) -> None:
    change(record_of(kept, "augmented"), lambda record: record.update(epochs=1e6))
    refused = kept("results", "submit", "results", "--out", "mine.zip")
    assert refused.code == 3
    assert "a submission is valid as a whole" in refused.err
