"""New heads that start from the weights of a pretrained encoder."""

from bert_keras import checkpoint, console, errors
from bert_keras import model as model_lib
from bert_keras.tasks import base


def check(task: base.Task, *, is_pretrained: bool) -> None:
    """Raises InputError if heads start from weights that are not there.

    is_pretrained: whether the run starts from the weights of a checkpoint.
    """
    if task.head_start and not is_pretrained:
        raise errors.InputError(
            f"{task.head_start} needs the weights of a checkpoint, with "
            "`init`, and those of this run's network are random; leave it out."
        )


def initialize(model: model_lib.BertModel, init: checkpoint.Checkpoint) -> None:
    """Lets the task set its new heads; says how many weights it has set.

    Raises InputError if the heads are those of `init`, and the task has a
    setting of where they start.
    """
    task = model.task
    reused = init.matching_heads(task)
    if reused is None or reused:
        if task.head_start:
            raise errors.InputError(
                f"{task.head_start} is for new weights, and those of "
                f"{init.name} are continued, as its settings are the same; "
                "leave it out."
            )
        return
    paths = task.initialize_heads(model.encoder, model.head.by_name())
    if paths:
        console.say(f"{len(paths)} weights of new heads start as the encoder's")
