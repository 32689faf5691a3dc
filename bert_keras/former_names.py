"""Detects former member names in a user's task and reports the new ones."""

from bert_keras import errors

# Members of Task: name in version 0.1 -> current name.
TASK_MEMBERS = {
    "answers": "head_signatures",
    "classes": "class_names",
    "coefficients": "loss_weights",
    "complete": "add_derived_features",
    "draw": "randomize",
    "examples": "read_examples",
    "head": "build_heads",
    "inputs": "preprocess",
    "learn": "adapt",
    "on_device": "for_device",
    "plain": "to_python",
    "predict": "postprocess",
    "ranked": "ranked_outputs",
    "scores": "metric_names",
    "sums": "metric_sums",
    "targets": "make_targets",
    "texts": "text_columns",
    "token_terms": "target_axes",
    "tuned": "calibrated",
}


def refuse_members(task: type) -> None:
    """Raises InputError if a class defines a member under its former name."""
    old = [name for name in vars(task) if name in TASK_MEMBERS]
    if old:
        renamed = ", ".join(f"{name} -> {TASK_MEMBERS[name]}" for name in old)
        raise errors.InputError(
            f"the task {task.__qualname__} has members whose names have "
            f"changed; rename them: {renamed}."
        )
