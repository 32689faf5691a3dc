"""Next, previous or random sentence (Wang et al. 2020, StructBERT, 2.2.2)."""

import numpy as np

from bert_keras.sentence_objectives import base

NEXT, PREVIOUS, RANDOM = range(3)


class NextOrPrevious(base.SentenceObjective):
    """The second segment follows the first, or precedes it, or is a random one.

    Each in a third of the pairs; random ones are of another document.
    """

    class_names = ("next sentence", "previous sentence", "random sentence")

    def sample(self, step: base.Step) -> base.Sample:
        end = step.gather()
        halves = step.split(step.begin, end)
        labels = (step.uniform() * len(self.class_names)).astype(np.int64)
        *segments, next_begin = step.replace_second(
            end, *halves, labels == RANDOM
        )
        first, second = np.where(
            labels == PREVIOUS, segments[::-1], segments
        )  # (2, D) each
        return base.Sample((*first,), (*second,), labels, next_begin)
