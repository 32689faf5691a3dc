"""Formats refuse networks that they have no field for, by the field's name."""

import os

from absl.testing import absltest, parameterized

from bert_keras import errors
from bert_keras import model as model_lib
from bert_keras.formats import google, hugging_face, keras_hub
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm
from tests import tiny

# Networks that the formats can write, but for the field in question.
TANH = {"activation": "gelu_tanh"}
ALBERT = TANH | {"embedding_size": 8, "num_hidden_groups": 1}
GPT = bert.GPT | {"intermediate_size": 64}
FORMATS = {
    "google": (google, TANH),
    "google_albert": (google, ALBERT),
    "hugging_face": (hugging_face, {}),
    "hugging_face_albert": (hugging_face, ALBERT),
    "hugging_face_gpt": (hugging_face, GPT),
    "keras_hub": (keras_hub, TANH),
}
# The field that is refused, last; what it needs, before.
FIELDS = (
    {"embedding_sum": False},
    {"residual": False},
    {"shared_query_key": True},
    {"num_hidden_groups": 2, "shared_sublayers": "attention"},
    {"num_hidden_groups": 2, "shared_sublayers": "feed_forward"},
    {"num_task_types": 3, "task_type": 2},
)


class UnwrittenFieldsTest(parameterized.TestCase):
    @parameterized.product(name=tuple(FORMATS), changes=FIELDS)
    def test_a_field_without_counterpart_is_refused_by_name(
        self, name, changes
    ):
        module, network = FORMATS[name]
        config = tiny.bert(**(network | changes))
        task = causal_lm.CausalLM(seq_length=16).adapt([], tiny.tokenizer())
        model = model_lib.BertModel(
            config.build_encoder(), task if network is GPT else None
        )
        folder = os.path.join(self.create_tempdir().full_path, "new")
        with self.assertRaisesRegex(errors.InputError, list(changes)[-1]):
            module.write(folder, model, tiny.tokenizer())
        self.assertFalse(os.path.exists(folder))


if __name__ == "__main__":
    absltest.main()
