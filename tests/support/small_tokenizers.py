"""Small tokenizers, trained here, and random models of every family, laid out as on the hub. Not a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "a wonderful film, wonderfully played by Anna from Oslo",
    "I live in New York and I lived in Paris; it's not bad",
    "the best and the worst of the second half, by far",
    "nobody saw the first part of the story coming, did they?",
]
ODD = [
    "plain words of a film",
    "",
    "   ",
    " leading and trailing  ",
    "line\nbreak\tand tab\r\n",
    "emoji 😀 👩‍👩‍👧 and 🇳🇴",
    "映画は素晴らしい 漢字 film",
    "فيلم رائع שלום film",
    "nul \x00 bell \x07 control",
    "zero\u200bwidth \u200b \u200d \ufeff words \u00ad",
    "e\u0301te\u0301 Å A\u030a nai\u0308ve",
    "[CLS] written [SEP] in a [MASK] text </s> <s> <mask> <pad> [PAD][SEP]glued",
    "CASE and MiXeD it's don't I'live",
    "ﬁgure ½ Ⅷ ｗｉｄｅ",
    "x" * 300,
    "a long story of Anna and the film . " * 40,
]
"""Texts that tokenizers treat in different ways, and two that are too long."""

SPECIAL = {
    "bert": ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
CLASSES = {
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "mpnet": "MPNetTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
}
FAMILIES = tuple(CLASSES)


def word_pieces() -> Tokenizer:
    """WordPiece with BERT's normalizer and frame."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = list(SPECIAL["bert"])
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    frame = {"single": "[CLS]:0 $A:0 [SEP]:0", "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"}
    tokenizer.post_processor = processors.TemplateProcessing(**frame, special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    return tokenizer


def byte_pairs() -> Tokenizer:
    """Byte-level BPE without a space before texts, as RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL["roberta"]), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def unigrams() -> Tokenizer:
    """SentencePiece's Unigram."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(SPECIAL["roberta"]), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    frame = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}
    tokenizer.post_processor = processors.TemplateProcessing(**frame, special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def deberta_unigrams() -> Tokenizer:
    """The Unigram tokenizer of DeBERTa, with its special tokens and BERT's frame."""
    from transformers import DebertaV2Tokenizer

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    rows = [tuple(row) for row in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return DebertaV2Tokenizer(vocab=rows).backend_tokenizer


def write_tokenizer(folder: Path, family: str, **settings: object) -> int:
    """Write a family's tokenizer; its number of tokens. ``settings`` go to tokenizer_config.json."""
    tokenizer = {"roberta": byte_pairs, "xlm-roberta": unigrams, "deberta-v2": deberta_unigrams}.get(
        family, word_pieces
    )()
    tokenizer.save(str(folder / "tokenizer.json"))
    if family == "roberta":
        body = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "vocab.json").write_text(json.dumps(body["vocab"]))
        (folder / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in body["merges"])
        )
    config = {"tokenizer_class": CLASSES[family], "model_max_length": 64, **settings}
    given = {key: value for key, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(given))
    return tokenizer.get_vocab_size()


def write_model(
    folder: Path, family: str, labels: tuple[str, ...], *, per_token: bool, positions: int = 64, **settings: object
) -> Path:
    """Write a random model of two layers with its tokenizer."""
    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder, family, **settings) + 8
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    if family == "distilbert":
        sizes = {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 16}
    if family == "electra":
        sizes["embedding_size"] = 16
    if family == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    padded = family in ("roberta", "xlm-roberta", "mpnet")
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    if padded:
        sizes |= {"type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        max_position_embeddings=positions + 2 * padded,
        pad_token_id=1,
        initializer_range=0.4,
        **sizes,
        **named,
    )
    torch.manual_seed(3)
    auto = (
        transformers.AutoModelForTokenClassification if per_token else transformers.AutoModelForSequenceClassification
    )
    auto.from_config(config).save_pretrained(folder)
    return folder
