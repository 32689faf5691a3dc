"""Rows of one segment (Liu et al. 2019, RoBERTa, FULL-SENTENCES)."""

import numpy as np

from bert_keras.sentence_objectives import base


class FullSentences(base.SentenceObjective):
    """Sentences in sequence, which are not split into a pair."""

    def sample(self, step: base.Step) -> base.Sample:
        end = step.fill()
        return base.Sample(
            (step.begin, end), (end, end), np.zeros(len(end), np.int64), end
        )
