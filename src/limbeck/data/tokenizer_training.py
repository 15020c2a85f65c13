"""Build the tokenizer of a model trained from scratch: the words and letters of a task's own training texts.

Reference: Devlin et al., 2019, arXiv:1810.04805: WordPiece, lower case, [CLS] text [SEP]. Differs: pieces are whole
words and single letters, with nothing between, so every run has the same (trained pieces depend on how ties break).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from limbeck.core.task import Task, texts_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word_pieces(task: Task, size: int = 30522) -> PreTrainedTokenizerFast:
    """Build a tokenizer of at most ``size`` pieces: all letters and the most frequent words of the training texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    normal, parts = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts_of(task.split("train")):
        counts.update(word for word, _ in parts.pre_tokenize_str(normal.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    frequent = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *frequent][:size]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normal, parts
    tokenizer.decoder = decoders.WordPiece()
    return with_special_tokens(tokenizer, task.max_length)


def with_special_tokens(tokenizer: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer for models, with BERT's special tokens: [CLS] text [SEP] or [CLS] a [SEP] b [SEP]."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
