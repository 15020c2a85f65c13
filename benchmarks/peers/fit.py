"""Plain training by ``transformers.Trainer``: fine-tuning, and distillation from logits."""

import contextlib
import sys
import tempfile

import numpy as np
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from limbeck.data.batching import encode, predict


class Rows(torch.utils.data.Dataset):
    """Token ids and labels as Trainer wants them, tokenized ahead as ours are; a teacher's logits beside them."""

    def __init__(self, encoded, teacher=None):
        self.encoded, self.teacher = encoded, teacher

    def __len__(self):
        return len(self.encoded)

    def __getitem__(self, index):
        row = {"input_ids": list(self.encoded.input_ids[index]), "labels": self.encoded.labels[index]}
        if self.encoded.token_type_ids is not None:
            row["token_type_ids"] = list(self.encoded.token_type_ids[index])
        return row if self.teacher is None else row | {"teacher": self.teacher[index]}


class Answers:
    """Our calling convention around a model of transformers."""

    def __init__(self, model):
        self.model = model.eval()

    @torch.inference_mode()
    def predict(self, batch):
        names = ("input_ids", "attention_mask", "token_type_ids")
        return self.model(**{name: batch[name] for name in names if name in batch}).logits.numpy()


class Distilling(Trainer):
    """Half the labels, half the teacher's answers at temperature 2 (Hinton et al., 2015, arXiv:1503.02531)."""

    temperature = 2.0

    def compute_loss(self, model, inputs, return_outputs=False, **others):
        teacher = inputs.pop("teacher", None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **others)
        if teacher is not None:
            student, target = (
                torch.log_softmax(logits.float() / self.temperature, -1) for logits in (outputs.logits, teacher)
            )
            soft = torch.nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
            loss = (loss + self.temperature**2 * soft) / 2
        return (loss, outputs) if return_outputs else loss


def settings(folder, *, epochs, batch, learning_rate, seed, **others):
    """What every training here has in common."""
    return TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        weight_decay=0.01,
        warmup_steps=0.1,
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
        use_cpu=True,
        **others,
    )


def fit(model, tokenizer, task, *, seed, epochs, teacher=None, **others):
    """Train in place; the weights that were best on the validation split, looked at twice an epoch, stay.

    ``teacher``: a fine-tuned model to distill from. Returns the accuracy on the validation split.
    """
    set_seed(seed)
    rows = encode(task, "train", tokenizer)
    logits = None if teacher is None else predict(Answers(teacher), rows)
    frequencies = {name: 1 / (2 * epochs) for name in ("eval_steps", "save_steps")}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # Trainer prints
        work = Distilling(
            model,
            settings(
                folder,
                epochs=epochs,
                seed=seed,
                train_sampling_strategy="group_by_length",
                remove_unused_columns=False,
                eval_strategy="steps",
                save_strategy="steps",
                save_only_model=True,
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                **frequencies,
                **others,
            ),
            train_dataset=Rows(rows, logits),
            eval_dataset=Rows(encode(task, "validation", tokenizer)),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda predictions: {
                "accuracy": np.mean(predictions.predictions.argmax(-1) == predictions.label_ids)
            },
        )
        work.train()
    work.accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()  # else it computes in bfloat16 from now on
    return float(work.state.best_metric)
