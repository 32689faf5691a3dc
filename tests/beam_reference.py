"""Beam search and its scores in plain Python, and a model to search in.

Everything is float64. A hypothesis is a list of ids without the end token.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_keras import generation


class Hypothesis(NamedTuple):
    ids: list
    ended: bool
    score: float
    log_prob: float


@dataclasses.dataclass(frozen=True)
class Rules:
    """What `generation.beam_search` is called with, for one row."""

    end_id: int | None = None
    limit: int = 3
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    source_mask: tuple = ()

    def allowed(self, ids, size):
        """The tokens that may follow, in ascending order."""
        count = self.no_repeat_ngram_size
        ngrams = [ids[i : i + count] for i in range(len(ids) - count + 1)]
        tokens = [
            token
            for token in range(size)
            if not (count and (ids + [token])[-count:] in ngrams)
            and not (token == self.end_id and len(ids) < self.min_length)
        ]
        if tokens:
            return tokens
        return list(range(size)) if self.end_id is None else [self.end_id]

    def score(self, log_prob, length, coverage):
        """length: |Y|, with the end token; coverage (S,)."""
        covered = np.log(np.clip(coverage, 1e-37, 1))
        covered = covered[: len(self.source_mask)] @ np.array(self.source_mask)
        divisor = ((5 + length) / 6) ** self.length_penalty
        return log_prob / divisor + self.coverage_penalty * covered


class Model:
    """Random logits and attention for each prefix: (B, prefixes, V or S).

    Prefixes are numbered as the nodes of a tree: the children of node n are n V
    + 1, n V + 2, ..., and the empty prefix is node 0.
    """

    def __init__(self, batch, size, length, seed=0, *, scale=2.0, source=3):
        random = np.random.default_rng(seed)
        nodes = sum(size**depth for depth in range(length))
        self.batch, self.size, self.length = batch, size, length
        logits = scale * random.normal(size=(batch, nodes, size))
        self.logits = logits.astype(np.float32)
        attention = np.exp(2 * random.normal(size=(batch, nodes, source)))
        attention /= attention.sum(axis=2, keepdims=True)
        self.attention = attention.astype(np.float32)

    def node(self, ids):
        node = 0
        for token in ids:
            node = node * self.size + token + 1
        return node

    def row(self, row):
        """Two functions of ids: log-probabilities (V,), attention (S,)."""

        def log_probs(ids):
            logits = self.logits[row, self.node(ids)].astype(np.float64)
            return logits - np.log(np.exp(logits).sum())

        def attention(ids):
            return self.attention[row, self.node(ids)].astype(np.float64)

        return log_probs, attention

    def state(self, beams):
        rows = tf.range(self.batch)
        return generation.tile(
            {
                "row": rows,
                "node": tf.fill(tf.shape(rows), -1),
                "attention": tf.zeros(
                    [self.batch, self.attention.shape[2]], tf.float32
                ),
            },
            beams,
        )

    def step(self, ids, state):
        node, row = state["node"], state["row"]
        node = tf.where(node < 0, 0, node * self.size + ids + 1)
        index = tf.stack([row, node], axis=1)
        state = {
            "row": row,
            "node": node,
            "attention": tf.gather_nd(self.attention, index),
        }
        return tf.gather_nd(self.logits, index), state


def all_hypotheses(log_probs, attention, rules):
    """Every hypothesis there is, the best score first."""
    size, found = len(log_probs([])), []

    def extend(ids, log_prob, coverage):
        if len(ids) == rules.limit:
            score = rules.score(log_prob, len(ids), coverage)
            found.append(Hypothesis(ids, False, score, log_prob))
            return
        coverage = coverage + attention(ids)
        each = log_prob + log_probs(ids)
        for token in rules.allowed(ids, size):
            if token == rules.end_id:
                score = rules.score(each[token], len(ids) + 1, coverage)
                found.append(Hypothesis(ids, True, score, each[token]))
            else:
                extend([*ids, token], each[token], coverage)

    extend([], 0.0, np.zeros_like(attention([])))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def search(log_probs, attention, rules, beams):
    """The K best hypotheses of a beam search that never ends early."""
    size, kept = len(log_probs([])), []
    live = [([], 0.0, np.zeros_like(attention([])))]
    for length in range(1, rules.limit + 1):
        found = []
        for ids, log_prob, coverage in live:
            more = log_prob + log_probs(ids)
            new = coverage + attention(ids)
            found += [
                (ids, token, more[token], new)
                for token in rules.allowed(ids, size)
            ]
        found = sorted(found, key=lambda each: -each[2])[:beams]
        live, complete = [], []
        for rank, (ids, token, log_prob, coverage) in enumerate(found):
            bare = log_prob / ((5 + length) / 6) ** rules.length_penalty
            if rank + sum(each.score >= bare for each in kept) >= beams:
                continue
            is_end = token == rules.end_id
            ids = ids if is_end else [*ids, token]
            if is_end or length == rules.limit:
                score = rules.score(log_prob, length, coverage)
                complete.append(Hypothesis(ids, is_end, score, log_prob))
            else:
                live.append((ids, log_prob, coverage))
        kept = sorted(kept + complete, key=lambda each: -each.score)[:beams]
    return kept
