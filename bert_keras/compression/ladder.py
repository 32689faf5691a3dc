"""The candidates that a compression tries, as one table."""

import dataclasses

from bert_keras import errors

SAVED_MODEL, TFLITE = "SavedModel", "TFLite"

# Of early exit: at 0.3 few texts leave early, at 0.7 most of them.
SPEEDS = (0.3, 0.5, 0.7)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the checkpoint of a candidate is made from the original one.

    num_layers: of a student, which is distilled from the original; 0: all
    layers. early_exit: trained with a classifier on every layer. trimmed:
    without the tokens that the training texts do not have.
    """

    num_layers: int = 0
    early_exit: bool = False
    trimmed: bool = False

    @property
    def name(self) -> str:
        parts = [f"layers-{self.num_layers}"] if self.num_layers else []
        parts += ["exits"] * self.early_exit + ["trimmed"] * self.trimmed
        return "-".join(parts) or "original"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A checkpoint in one artifact, SAVED_MODEL or TFLITE.

    name: also that of its folder. precision: of the artifact's weights, a key
    of `serving.saved_model.PRECISIONS` or of
    `device.tflite_converter.QUANTIZATIONS`. speed: of early exit.
    """

    name: str
    recipe: Recipe
    artifact: str
    precision: str = "float32"
    speed: float | None = None


# What the others are compared with.
ORIGINAL = Candidate("original", Recipe(), SAVED_MODEL)


def ladder(num_layers: int) -> tuple[Candidate, ...]:
    """Returns the candidates for a network of so many layers.

    The first one is ORIGINAL.
    """
    original, trimmed = ORIGINAL.recipe, Recipe(trimmed=True)
    exits = Recipe(early_exit=True)
    candidates = [
        ORIGINAL,
        Candidate("original-bfloat16", original, SAVED_MODEL, "bfloat16"),
        Candidate("original-tflite", original, TFLITE),
        Candidate("original-dynamic", original, TFLITE, "dynamic"),
        Candidate("original-int8", original, TFLITE, "int8"),
        Candidate("trimmed", trimmed, SAVED_MODEL),
        Candidate("trimmed-dynamic", trimmed, TFLITE, "dynamic"),
    ]
    for count in (students := student_layers(num_layers)):
        name, student = f"layers-{count}", Recipe(count)
        candidates += [
            Candidate(name, student, SAVED_MODEL),
            Candidate(f"{name}-dynamic", student, TFLITE, "dynamic"),
        ]
    if num_layers > 1:
        candidates += [
            Candidate(f"exits-{speed}", exits, SAVED_MODEL, speed=speed)
            for speed in SPEEDS
        ]
    for count in students[:1]:
        name, both = f"layers-{count}-trimmed", Recipe(count, trimmed=True)
        candidates.append(Candidate(f"{name}-dynamic", both, TFLITE, "dynamic"))
    return tuple(candidates)


def student_layers(num_layers: int) -> list[int]:
    """Returns the layers of the students: about a half, and about a third.

    >>> student_layers(12), student_layers(2), student_layers(1)
    ([6, 4], [1], [])
    """
    counts = ((num_layers + 1) // 2, max(1, (num_layers + 1) // 3))
    return [count for count in dict.fromkeys(counts) if count < num_layers]


def chosen(
    candidates: tuple[Candidate, ...], names: str
) -> tuple[Candidate, ...]:
    """Returns the candidates of these names, and always the original.

    names: with commas between; empty: all. Raises InputError for an unknown
    name.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [each.name for each in candidates]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise errors.InputError(
            f"candidates={','.join(unknown)}: expected some of "
            f"{', '.join(known)}.",
            argument="candidates",
        )
    return tuple(
        each
        for each in candidates
        if each == ORIGINAL or not wanted or each.name in wanted
    )
