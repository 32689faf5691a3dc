"""The tasks, one file each; classes and files are imported when first used.

>>> task = bert_keras.tasks.Classification(labels=("bad", "good"))
>>> task.seq_length
128
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # _PUBLIC for type checkers and editors
    from bert_keras.tasks.bidirectional_lm import (
        BidirectionalLM as BidirectionalLM,
    )
    from bert_keras.tasks.causal_lm import CausalLM as CausalLM
    from bert_keras.tasks.classification import Classification as Classification
    from bert_keras.tasks.denoising import Denoising as Denoising
    from bert_keras.tasks.embedding import Embedding as Embedding
    from bert_keras.tasks.extractive_summary import (
        ExtractiveSummary as ExtractiveSummary,
    )
    from bert_keras.tasks.intent_slots import IntentSlots as IntentSlots
    from bert_keras.tasks.masked_lm import MaskedLM as MaskedLM
    from bert_keras.tasks.matching import Matching as Matching
    from bert_keras.tasks.multiple_choice import (
        MultipleChoice as MultipleChoice,
    )
    from bert_keras.tasks.next_sentence import NextSentence as NextSentence
    from bert_keras.tasks.question_answering import (
        QuestionAnswering as QuestionAnswering,
    )
    from bert_keras.tasks.replaced_tokens import (
        ReplacedTokens as ReplacedTokens,
    )
    from bert_keras.tasks.sequence_to_sequence import (
        SequenceToSequence as SequenceToSequence,
    )
    from bert_keras.tasks.tagging import Tagging as Tagging
    from bert_keras.tasks.token_order import TokenOrder as TokenOrder
    from bert_keras.tasks.token_scores import TokenScores as TokenScores

_PUBLIC = {
    "CausalLM": "causal_lm",
    "BidirectionalLM": "bidirectional_lm",
    "Classification": "classification",
    "Denoising": "denoising",
    "Embedding": "embedding",
    "ExtractiveSummary": "extractive_summary",
    "IntentSlots": "intent_slots",
    "MaskedLM": "masked_lm",
    "Matching": "matching",
    "MultipleChoice": "multiple_choice",
    "NextSentence": "next_sentence",
    "QuestionAnswering": "question_answering",
    "ReplacedTokens": "replaced_tokens",
    "SequenceToSequence": "sequence_to_sequence",
    "Tagging": "tagging",
    "TokenOrder": "token_order",
    "TokenScores": "token_scores",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
        return getattr(module, name)
    if name in ("base", *_PUBLIC.values()):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_PUBLIC.values()})
