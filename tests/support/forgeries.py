"""Forgeries of a sound record: each says something else of the run, and all that a forger would
think of to go with it. ``REFUSED`` can be looked up or worked out, and must be refused;
``MARKED`` must be refused or make the run a disturbed one, of which no time counts; ``REMARKED``
cannot be ruled out and must be remarked; ``CLAIMS`` are what a record is trusted for, until its
weights are evaluated again."""

from __future__ import annotations

import copy
import datetime

from forging import (
    Change,
    all_of,
    at_end,
    in_all,
    null,
    put,
    renamed,
    said,
    same_final,
    scaled,
    tests_of,
)
from spoil import Plain

OTHER_DATA = {
    "forcefield": ("gfn2-20k", "gfn2-hotter"),
    "flow": ("ca-small", "ca-folder"),
    "voxel": ("conformers-16", "conformers-64"),
}


def _lower_loss(record: Plain, test: Plain, factor: float) -> None:
    """One evaluation's loss, and all that follows from it."""
    baseline = test["total"] / (1 - test["explained"])
    parts = [test, *test["by"].values()]
    for part in parts:
        for name in ("total", "twirled", "equivariance", "over_best_untrained"):
            part[name] *= factor
    test["objective"] *= factor
    test["explained"] = 1 - test["total"] / baseline
    if test["groups"] is not None:
        for name in ("total", "equivariance"):
            test["groups"][name] = [factor * value for value in test["groups"][name]]


def lower_final(record: Plain) -> None:
    _lower_loss(record, record["final"], 0.9)
    _lower_loss(record, record["final_on_part"], 0.9)
    same_final(record)


def lower_everywhere(record: Plain) -> None:
    for test in tests_of(record):
        _lower_loss(record, test, 0.9)
    same_final(record)


def weak_baselines(record: Plain) -> None:
    """The predictors without training are twice as bad, and so the arm twice as good beside
    them."""
    for name in record["baselines"]:
        record["baselines"][name] *= 2
    for test in tests_of(record):
        for part in (test, *test["by"].values()):
            part["over_best_untrained"] /= 2
    same_final(record)


def batch_doubled(record: Plain) -> None:
    record["recipe"]["batch_size"] *= 2
    for holder in (record, *record["trace"], *record["rungs"]):
        holder["samples"] *= 2
    record["epochs"] *= 2
    record["throughput"]["samples_per_second"] *= 2


def steps_doubled(record: Plain) -> None:
    """Twice as many steps in the same time."""
    for holder in (record, *record["trace"], *record["rungs"]):
        for name in ("step", "steps", "samples"):
            if name in holder:
                holder[name] *= 2
    record["epochs"] *= 2
    faster(2.0)(record)


def faster(factor: float) -> Change:
    """Timed ``factor`` times as fast, consistently."""
    return all_of(
        scaled(factor, "throughput.samples_per_second"),
        scaled(
            1 / factor,
            "throughput.blocks",
            "throughput.step_seconds.p10",
            "throughput.step_seconds.p50",
            "throughput.step_seconds.p90",
        ),
    )


def moved_to_other(part: str) -> Change:
    """The seconds of one clock part are in ``other``."""

    def change(record: Plain) -> None:
        clock = record["clock"]
        clock["evaluate" if part == "rungs" else "rungs"] += clock[part]
        clock[part] = 0.0

    return change


def smaller_test_set(record: Plain) -> None:
    for name in ("final", "final_raw", "final_ema"):
        record[name]["samples"] //= 2
        record[name]["groups"] = None
    same_final(record)


def more_rotations(record: Plain) -> None:
    for name in ("final", "final_raw", "final_ema"):
        record[name]["rotations"] = 8
    same_final(record)


def faster_trace(record: Plain) -> None:
    for point in record["trace"]:
        point["train_seconds"] /= 2


def one_trace_point_less(index: int) -> Change:
    def change(record: Plain) -> None:
        del record["trace"][index]

    return change


def shifted_trace(record: Plain) -> None:
    point, batch = record["trace"][3], record["recipe"]["batch_size"]
    point["step"] += 1
    point["samples"] += batch


def one_rung_less(record: Plain) -> None:
    del record["rungs"][1]


def one_rung_more(record: Plain) -> None:
    rung = copy.deepcopy(record["rungs"][-2])
    last = record["rungs"][-1]
    rung["budget"] = 0.75 * last["budget"]
    rung["train_seconds"] = rung["budget"] + 0.01
    rung["step"] = int(0.75 * last["step"])
    rung["samples"] = rung["step"] * record["recipe"]["batch_size"]
    record["rungs"].insert(-1, rung)


def longer_rung(record: Plain) -> None:
    record["rungs"][-2]["train_seconds"] += 0.4 * record["rungs"][-2]["budget"]


def another_budget(record: Plain) -> None:
    limit = record["budget"]["limit"] / 2
    record["budget"].update(limit=limit, overshoot=record["budget"]["spent"] - limit)
    record["rungs"][-1]["budget"] = limit
    del record["rungs"][-2]


def extended(record: Plain) -> None:
    record["budget"]["extends"] = record["budget"]["limit"] / 2


def another_dataset(index: int) -> Change:
    def change(record: Plain) -> None:
        record["dataset"].update(name=OTHER_DATA[record["task"]][index])

    return change


def larger_split(split: str, factor: float = 2.0) -> Change:
    def change(record: Plain) -> None:
        sizes = record["dataset"]["sizes"]
        sizes[split] = int(factor * sizes[split])
        if split == "train":
            record["epochs"] = record["samples"] / sizes[split]

    return change


def another_seed(record: Plain) -> None:
    renamed(record, f"seed{record['seed']}-", f"seed{record['seed'] + 7}-")
    record["seed"] += 7


def another_preset(record: Plain) -> None:
    renamed(record, record["preset"], "dev")
    record["preset"] = "dev"
    record["command"] += " --preset dev"


def moved_by_days(record: Plain, days: int) -> None:
    before = datetime.datetime.fromisoformat(record["created"])
    record["created"] = created = (before + datetime.timedelta(days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    renamed(record, f"{before:%Y%m%dT}", created[:11].replace("-", ""))


def backdated(record: Plain) -> None:
    """A day earlier, so as to be the first of its seed."""
    moved_by_days(record, -1)


def postdated(record: Plain) -> None:
    moved_by_days(record, 1)


def augmented(record: Plain) -> None:
    other = "none" if record["recipe"]["augmentation"] == "haar" else "haar"
    record["recipe"]["augmentation"] = other


def compiled(record: Plain) -> None:
    record["recipe"]["compile"] = "inductor, dynamic shapes"
    del record["reasons"]["recipe.compile"]


def first_number_of_config(record: Plain) -> None:
    config = record["model"]["config"]
    name = next(name for name, value in config.items() if type(value) is int)
    config[name] += 1


def measured_changed(record: Plain) -> None:
    measured = record["matching"]["measured"]
    for name in measured:
        measured[name] *= 1.1


def smaller_network(record: Plain) -> None:
    """Half the parameters, in the statement of what is matched too."""
    record["model"]["parameters"] //= 2
    record["matching"]["measured"][f"{record['arm']} parameters"] //= 2


def another_machine(record: Plain) -> None:
    record["environment"].update(device="NVIDIA H100 80GB HBM3", driver="580.1")
    record["command"] += " --device cuda"


def on_eight_threads(record: Plain) -> None:
    record["environment"]["threads"] = 8


def fewer_parts(record: Plain) -> None:
    if record["final"]["by"]:
        record["final"]["by"].popitem()
    else:
        record["final"]["by"] = {"t=1": {**_part_of(record["final"])}}
    same_final(record)


def _part_of(test: Plain) -> Plain:
    names = ("total", "twirled", "equivariance", "share", "over_best_untrained")
    return {name: test[name] for name in names}


def weights_of_groups(record: Plain) -> None:
    """Groups in another order, in one evaluation."""
    groups = record["final_raw"]["groups"]
    for name in ("weights", "total", "equivariance"):
        groups[name] = [*groups[name][1:], groups[name][0]]
    groups["weights"][0] += 1e-9


def swept(record: Plain) -> None:
    record["variant"].update(sweep="learning-rate", value="0.1")
    record["recipe"].update(learning_rate=0.1, tuned_at=None, tuning_log_sha256=None)
    for name in ("tuned_at", "tuning_log_sha256"):
        record["reasons"][f"recipe.{name}"] = "the recipe was not tuned by equivbench tune"


REFUSED: dict[str, Change] = {
    "another network": put(model__name="allegro"),
    "other parameters": scaled(2, "model.parameters"),
    "half the parameters, matched so": smaller_network,
    "another width": first_number_of_config,
    "an entry more in the config": put(model__config__dropout=0.1),
    "an empty config": put(model__config={}),
    "another symmetry": lambda record: record["model"].update(
        symmetry="so3" if record["model"]["symmetry"] != "so3" else "o3",
        symmetry_verified=True,
        symmetry_reason="measured",
    ),
    "a wrapper": put(model__wrapper="twirl-8"),
    "other kernels": put(model__kernels="fused"),
    "twice the rate": scaled(2.0, "recipe.learning_rate"),
    "twice the batch": batch_doubled,
    "another weight decay": put(recipe__weight_decay=0.1),
    "another warm-up": put(recipe__warmup_steps=7),
    "another clipping": put(recipe__clip_norm=1.0),
    "another average": put(recipe__ema=0.9999),
    "another optimizer": put(recipe__optimizer="muon"),
    "another precision": put(recipe__precision="bf16"),
    "the other augmentation": augmented,
    "half augmented": put(recipe__augmentation_fraction=0.5),
    "compiled": compiled,
    "another budget of tuning": put(recipe__tuned_at="1h"),
    "another statement of what is matched": put(matching__what="Everything."),
    "another target of the match": put(matching__target="parameters within 1%"),
    "matched elsewhere": put(matching__hardware="nvidia-h100"),
    "other measured sizes": measured_changed,
    "nothing measured": put(matching__measured={}),
    "larger data": another_dataset(0),
    "other data of the task": another_dataset(1),
    "a larger test split": larger_split("test"),
    "a larger training split": larger_split("train"),
    "a smaller validation split": larger_split("validation", 0.5),
    "a split more": put(dataset__sizes__extra=5),
    "an option that the task does not have": put(variant__colour="red"),
    "a point of a sweep that was not asked for": swept,
    "another seed": another_seed,
    "another preset": another_preset,
    "a command of another pair": put(command="equivbench run forcefield/tied-head --seeds 0-9"),
    "a command of another seed": put(command="equivbench run flow/frames --seeds 12"),
    "a command of another budget": said("--budget 120s"),
    "a command of another kind of budget": said("--budget 2000steps"),
    "a command of another preset": said("--preset paper"),
    "a command of other rungs": said("--rungs 2"),
    "a command of another device": said("--device cuda"),
    "a command of other threads": said("--threads 16"),
    "a command of another arm": said("--arm frames"),
    "a command that extends": all_of(said("--extend 2"), extended),
    "no command": put(command="python train.py"),
    "words that are no command": put(command="equivbench run 'forcefield"),
    "half the budget": another_budget,
    "an extension": extended,
    "twice the steps in the time": steps_doubled,
    "rungs for nothing": moved_to_other("rungs"),
    "evaluations for nothing": moved_to_other("evaluate"),
    "timing for nothing": moved_to_other("timing"),
    "checkpoints for nothing": moved_to_other("checkpoint"),
    "faster than its blocks": scaled(1.5, "throughput.samples_per_second"),
    "six times as fast": faster(6.0),
    "alternated with itself": lambda record: record["throughput"].update(
        alternated_with=record["arm"]
    ),
    "alternated with nobody we know": put(throughput__alternated_with="convolutional"),
    "inference of a thousandth of a second": scaled(1e6, "inference.samples_per_second"),
    "no memory": put(memory__peak_bytes=1_000_000),
    "energy on a CPU": all_of(
        put(energy_joules=100.0), lambda record: record["reasons"].pop("energy_joules")
    ),
    "a rung less": one_rung_less,
    "a rung more": one_rung_more,
    "no first trace point": one_trace_point_less(0),
    "a trace point less": one_trace_point_less(3),
    "no last trace point": lambda record: record.update(trace=record["trace"][:-2]),
    "a trace point at another step": shifted_trace,
    "a smaller test set": smaller_test_set,
    "more rotations": more_rotations,
    "another group": in_all(
        lambda test: test.update(group="o3" if test["group"] != "o3" else "so3")
    ),
    "a floor on the way": put(trace__1__test__floor=1e-3),
    "a part less": fewer_parts,
    "an error more": at_end(lambda test: test["errors"].update(charges=1.0)),
    "other groups": weights_of_groups,
    "weak baselines": weak_baselines,
    "a baseline less": lambda record: record["baselines"].pop("zero"),
    "a baseline more": put(baselines__mean=1e9),
    "a further test set": lambda record: record["out_of_distribution"].update(
        easy=copy.deepcopy(record["final_raw"])
    ),
    "the key of another machine": lambda record: record["environment"].update(
        cpu="Intel(R) Xeon(R) Platinum 8480+"
    ),
    "a GPU": another_machine,
    "eight threads": on_eight_threads,
    "a driver on a CPU": put(environment__driver="580.1"),
    "a version of no python": put(environment__python="latest"),
    "a version of no torch": put(environment__packages__torch="main"),
    "no packages": put(environment__packages={}),
    "a commit that is none": put(git__commit="main"),
    "a tree that is none": put(git__tree="g" * 40),
    "nobody knows whether it was dirty": put(git__dirty=None),
    "a contest that is none": put(contest="mine"),
    "no contest": put(contest=None),
    "after its contest began": postdated,
    "no share of the machine": put(machine_share=None),
    "a reason for what is there": put(reasons={"final": "lost"}),
    "a reason for nothing": lambda record: record["reasons"].update(nonsense="because"),
    "no result of a half": null("rungs.2.test.total"),
    "a symmetry loss": put(recipe__symmetry_loss=10.0),
    "a precision that nobody asked for": put(recipe__precision="bf16", variant__precision="bf16"),
    "a precision beside the usual one": put(variant__precision="float32"),
}

MARKED: dict[str, Change] = {"a trace twice as fast": faster_trace}
"""Timed steps do not rule it out: in 50 honest records the fastest of them took 0.64 to 1.42 times
as long as those of the trace. Twice as fast up to the last trace point is an uneven pace."""

REMARKED: dict[str, Change] = {
    "another tuning": all_of(
        scaled(2.0, "recipe.learning_rate"), put(recipe__tuning_log_sha256="a" * 64)
    ),
    "another version of the data": put(dataset__version="2"),
    "a pair that nobody knows": put(pair="mine"),
    "three times as fast": faster(3.0),
    "before its contest": backdated,
    "a longer rung": longer_rung,
    "uncommitted changes": put(git__dirty=True),
}

CLAIMS: dict[str, Change] = {
    "a lower final loss": lower_final,
    "lower losses throughout": lower_everywhere,
    "half again as fast": faster(1.5),
    "other energy errors": in_all(
        lambda test: test["errors"].update(dict.fromkeys(test["errors"], 0.001))
    ),
    "a restart": put(restarts=1),
    "another commit": put(git__commit="a" * 40),
    "another version of torch": put(environment__packages__torch="9.9.0"),
    "twice the memory": scaled(2, "memory.peak_bytes"),
}
