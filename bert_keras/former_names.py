"""Former names that a user's task may have: of members and of options."""

from typing import Any

from bert_keras import errors, options

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
    "lists": "list_padding",
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


def knob(*arguments: Any, **keywords: Any) -> Any:
    """Declares an option by the names of version 0.1; see options.option."""
    today = {"least": "minimum", "most": "maximum", "kind": "value_type"}
    return options.option(
        *arguments, **{today.get(key, key): v for key, v in keywords.items()}
    )
