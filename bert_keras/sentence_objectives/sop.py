"""Sentence-order prediction (Lan et al. 2020, section 3.1)."""

import numpy as np

from bert_keras.sentence_objectives import base


class SentenceOrder(base.SentenceObjective):
    """Half of the pairs are two consecutive segments that are swapped."""

    class_names = base.BINARY["sop"]

    def sample(self, step: base.Step) -> base.Sample:
        end = step.gather()
        middle, _ = step.split(step.begin, end)
        is_swapped = step.coin()
        first = np.where(is_swapped, [middle, end], [step.begin, middle])
        second = np.where(is_swapped, [step.begin, middle], [middle, end])
        return base.Sample((*first,), (*second,), is_swapped, end)
