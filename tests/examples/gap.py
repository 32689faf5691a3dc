"""A sentence objective of a user: does text lie between the two segments?"""

import numpy as np

from bert_keras.sentence_objectives import base


class Gap(base.SentenceObjective):
    class_names = ("adjacent", "gap")

    def sample(self, step):
        end = step.gather()
        middle, _ = step.split(step.begin, end)
        later, _ = step.split(middle, end)
        has_gap = step.coin() & (later > middle)
        second = np.where(has_gap, later, middle), end
        return base.Sample((step.begin, middle), second, has_gap, end)
