"""Next sentence prediction (Devlin et al. 2019, section 3.1, task 2)."""

from bert_keras.sentence_objectives import base


class NextSentence(base.SentenceObjective):
    """Half of the second segments are of another document (appendix A.2)."""

    class_names = base.BINARY["nsp"]

    def sample(self, step: base.Step) -> base.Sample:
        end = step.gather()
        halves = step.split(step.begin, end)
        is_random = step.coin()
        first, second, next_begin = step.replace_second(end, *halves, is_random)
        return base.Sample(first, second, is_random, next_begin)
