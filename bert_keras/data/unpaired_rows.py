"""Splits documents into rows of one segment: full rows, or one per sentence.

Full rows are what a causal language model learns from (Radford et al. 2018,
section 4.1: contiguous sequences), sentences what a bidirectional one does
(Peters et al. 2018). Rows are spans of offsets in the token ids, as in
sentence_pairs.
"""

import numpy as np

from bert_keras.data import sentence_pairs


def end_documents(
    documents: sentence_pairs.TokenizedDocuments, end_id: int | None
) -> np.ndarray:
    """Returns the token ids with `end_id` after each document.

    None: the token ids as they are. Documents of 2 and 1 tokens, [7, 8, 9],
    become [7, 8, 1, 9, 1] with end_id 1.
    """
    if end_id is None:
        return documents.token_ids
    return np.insert(documents.token_ids, documents.document_ends, end_id)


def full_rows(num_tokens: int, seq_length: int, offset: int = 0) -> np.ndarray:
    """Splits a stream of tokens into spans of `seq_length`: (rows, 2) int64.

    The first row ends at `offset`, if that is not 0. The last row may be
    shorter, too. Of 7 tokens, with seq_length 3 and offset 1: [0, 1], [1, 4],
    [4, 7].
    """
    bounds = np.arange(offset, num_tokens, seq_length, dtype=np.int64)
    bounds = np.unique(np.concatenate([[0], bounds, [num_tokens]]))
    spans = np.stack([bounds[:-1], bounds[1:]], axis=1)
    return spans[spans[:, 1] - spans[:, 0] > 1]  # one token predicts nothing


def sentence_rows(sentence_ends: np.ndarray, max_tokens: int) -> np.ndarray:
    """Splits tokens into one span per sentence: (rows, 2) int64.

    A sentence of more than `max_tokens` becomes several rows. Sentences that
    end at 2 and 7, with max_tokens 3: [0, 2], [2, 5], [5, 7].
    """
    starts = np.concatenate([[0], sentence_ends])[:-1]
    counts = -(-(sentence_ends - starts) // max_tokens)
    within = np.arange(counts.sum()) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    begin = np.repeat(starts, counts) + within * max_tokens
    stop = np.minimum(begin + max_tokens, np.repeat(sentence_ends, counts))
    return np.stack([begin, stop], axis=1).astype(np.int64)
