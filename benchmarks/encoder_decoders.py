"""Encoder-decoders of the same sizes, ours and Hugging Face's BART.

For the benchmarks that compare the two; it is none itself.
"""

import resource
from typing import Any

import torch
import transformers

from bert_keras.networks import bert as bert_lib

# The ids of the tokens that begin and end a text.
START, END = 2, 3


def bert_config(
    *, vocab_size: int, width: int, layers: int
) -> bert_lib.BertConfig:
    """Returns the encoder; a task makes a decoder of its sizes."""
    return bert_lib.BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_layers=layers,
        num_heads=width // 64,
        intermediate_size=4 * width,
        num_segments=1,
        pooler=False,
    )


def make_bart(
    *, vocab_size: int, width: int, layers: int, threads: int, **settings: Any
) -> transformers.BartForConditionalGeneration:
    """Returns a BART with random weights; settings: others of its config."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = transformers.BartConfig(
        vocab_size=vocab_size,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=512,
        decoder_start_token_id=START,
        eos_token_id=END,
        **settings,
    )
    return transformers.BartForConditionalGeneration(config)


def processor_seconds() -> float:
    """Returns what this process has used, summed over its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
