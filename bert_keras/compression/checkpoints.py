"""Makes the checkpoints of a compression: students, early exits, trimmed."""

import dataclasses
import os
from collections.abc import Sequence

from bert_keras import (
    checkpoint,
    console,
    layer_surgery,
    model_card,
    predictor,
    vocabulary_surgery,
)
from bert_keras import model as model_lib
from bert_keras.compression import ladder
from bert_keras.tasks import base
from bert_keras.tokenizers import base as tokenizers
from bert_keras.training import finetune
from bert_keras.training import settings as settings_lib
from bert_keras.wrappers import distillation, early_exit

# What a card says of a checkpoint that was made from another one.
_NOT_MEASURED = "These are those of the model that this one was made from."


@dataclasses.dataclass
class Checkpoints:
    """Makes each recipe's checkpoint when it is first needed.

    folder: gets a folder for each of them; what it contains already is not
    made again, and a stopped training resumes. original: the model that all
    are made from, loaded from `path`. task: the task to train, which reads the
    training file. train: its examples. training: the settings of all
    trainings, without `init` and `output`.
    """

    folder: str
    path: str
    original: predictor.Predictor
    task: base.Task
    train: Sequence[base.Example]
    training: settings_lib.FinetuneSettings
    made: dict[ladder.Recipe, str] = dataclasses.field(default_factory=dict)

    def get(self, recipe: ladder.Recipe) -> str:
        """Returns the path of a recipe's checkpoint, and makes it if needed.

        Raises InputError if the network is not one that the recipe is for.
        """
        if recipe not in self.made:
            self.made[recipe] = self._make(recipe)
        return self.made[recipe]

    def _make(self, recipe: ladder.Recipe) -> str:
        if recipe == ladder.Recipe():
            return self.path
        console.say(f"making the checkpoint {recipe.name}")
        # Last: the tokenizer of a student is that of its teacher.
        if recipe.trimmed:
            return self._trim(dataclasses.replace(recipe, trimmed=False))
        if recipe.early_exit:
            return self._train(
                recipe.name, self.path, early_exit.EarlyExit(self.task)
            )
        student = distillation.Distillation(self.task, teacher=self.path)
        return self._train(recipe.name, self._start(recipe), student)

    def _start(self, recipe: ladder.Recipe) -> str:
        """Writes the student before its training: evenly spaced layers."""
        path = os.path.join(self.folder, f"{recipe.name}-start")
        if not checkpoint.steps(path):
            num_layers = self.original.model.encoder.config.num_layers
            layers = [
                number * num_layers // recipe.num_layers
                for number in range(recipe.num_layers)
            ]
            model = layer_surgery.keep_layers(self.original.model, layers)
            _save(path, self.original, model, self.original.tokenizer)
        return path

    def _train(self, name: str, init: str, task: base.Task) -> str:
        path = os.path.join(self.folder, name)
        settings = dataclasses.replace(self.training, init=init, output=path)
        with console.without_tables():
            finetune.run(settings, task)
        return path

    def _trim(self, recipe: ladder.Recipe) -> str:
        """Writes a recipe's model without tokens that are not in `train`.

        The dev rows keep no tokens: they stand for texts that were not seen,
        which have unknown words, too.
        """
        trimmed = dataclasses.replace(recipe, trimmed=True)
        path = os.path.join(self.folder, trimmed.name)
        if not checkpoint.steps(path):
            source = predictor.load(self.get(recipe))
            texts = [
                text
                for example in self.train
                for text in self.task.vocabulary_texts(example)
            ]
            model, tokenizer = vocabulary_surgery.prune_tokens(
                source.model, source.tokenizer, texts
            )
            _save(path, source, model, tokenizer)
        return path


def _save(
    path: str,
    source: predictor.Predictor,
    model: model_lib.BertModel,
    tokenizer: tokenizers.Tokenizer,
) -> None:
    """Writes a checkpoint with the card of what it was made from."""
    name = os.path.basename(path)
    before = model_card.describe(source.model, source.tokenizer, name=name)
    card = model_card.redescribed(
        model_card.without_results(
            model_card.for_copy(source.card, before), _NOT_MEASURED
        ),
        before,
        model_card.describe(model, tokenizer, name=name),
    )
    checkpoint.save(path, model, tokenizer, step=0, card=card)
