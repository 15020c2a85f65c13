"""Distillation from a file of the teacher's probabilities, against distillation from the teacher itself.

    python benchmarks/base/from_file.py --out runs/from-file

MiniLM-L6 is fine-tuned on SNIPS once and writes its probabilities, rounded to four digits as a service gives them, for
every text. Students of three of its layers learn from the one and from the other, with each seed. Printed is the
difference in accuracy on the test split with its 95 % bootstrap interval over the examples, each of which counts with
its mean over the seeds; and how far the students' accuracies differ from seed to seed. The same command resumes it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.special import softmax

from limbeck.core.statistics import bootstrap, unpack
from limbeck.data.answers import answers
from limbeck.engine.run import run
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse

SPLITS = ("validation", "test")
DIGITS = 4


def quality():
    """The probes of each run."""
    return [{"quality": {"split": split}} for split in SPLITS]


def teacher(arguments, data):
    """Fine-tune the teacher; return its folder and the file of its probabilities."""
    steps = [{"finetune": {"epochs": arguments.epochs, "learning_rate": 5.0e-5}}, *quality()]
    result = run(parse({"model": arguments.model, "task": data, "steps": steps}), folder=arguments.out / "teacher-run")
    key, folder, file = result.front[0], arguments.out / "teacher", arguments.out / "scores.jsonl"
    candidate = result.open(key)
    if not folder.exists():
        save_model(candidate.model, candidate.tokenizer, folder)
    if not file.exists():
        names = candidate.task.label_names
        with file.open("w", encoding="utf-8") as lines:
            for split in candidate.task.splits:
                logits = np.asarray(answers(candidate.model, candidate.tokenizer, candidate.task, split))
                texts = candidate.task.split(split).texts
                for text, row in zip(texts, softmax(logits.astype(float), axis=1), strict=True):
                    scores = dict(zip(names, np.round(row, DIGITS).tolist(), strict=True))
                    lines.write(json.dumps({"text": text, "probabilities": scores}) + "\n")
    return {"teacher": str(folder), "file": str(file)}, result.records[key].fact("quality", "test")


def student(arguments, data, name, source, seed):
    """Distill a student; return its accuracy on the test split, and which examples it has right [examples]."""
    distill = {"match": ["logits"], "epochs": arguments.epochs, "learning_rate": 1.0e-4}
    steps = [{"student_init": {"layers": arguments.layers, "init": "layers"}}, {"distill": distill}, *quality()]
    recipe = {"model": arguments.model, "teacher": source, "task": data, "seed": seed, "steps": steps}
    result = run(parse(recipe), folder=arguments.out / f"{name}-{seed}")
    fact = result.records[result.front[0]].fact("quality", "test")
    return fact.value, unpack(fact.detail["correct"], fact.n).astype(float)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the teacher and its scores")
    parser.add_argument("--data", default="benchmarks/data/snips", help="a task: named, or a folder")
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--layers", type=int, default=3, help="layers of the student")
    parser.add_argument("--epochs", type=int, default=3, help="of the teacher and of each student")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="texts of each split, to try it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = {"path": arguments.data, "max_length": 64}
    if arguments.limit:
        data["limit"] = dict.fromkeys(("train", *SPLITS), arguments.limit)
    sources, fact = teacher(arguments, data)
    values, right = {}, {}
    for name, source in sources.items():
        rows = [student(arguments, data, name, source, seed) for seed in arguments.seeds]
        values[name], right[name] = (
            [100 * value for value, _ in rows],
            np.mean([correct for _, correct in rows], axis=0),
        )
    change = right["file"] - right["teacher"]
    points, low, high = bootstrap(lambda rows: 100 * float(np.mean(change[rows])), len(change))
    spread = {name: float(np.std(list_, ddof=1)) if len(list_) > 1 else None for name, list_ in values.items()}
    outcome = {"teacher_test": 100 * fact.value, "test": values, "spread_over_seeds": spread, "n": len(change)}
    outcome |= {"file_minus_teacher_points": points, "low": low, "high": high, "seeds": arguments.seeds}
    (arguments.out / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))


if __name__ == "__main__":
    main()
