import json
import os
import shutil

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, formats, loading
from bert_keras import model as model_lib
from bert_keras.formats import google
from bert_keras.networks import bert
from bert_keras.tasks import classification, masked_lm, question_answering
from tests import tiny

CHECKPOINTS = os.path.join(tiny.SHARED_DATA, "checkpoints")
KERAS_BERT = os.path.join(CHECKPOINTS, "keras_bert_test_tf1")
CHINESE = os.path.join(CHECKPOINTS, "google_chinese_L-12_H-768_A-12_index_only")
TINY = os.path.join(CHECKPOINTS, "google_uncased_L-2_H-128_A-2_index_only")
DATA_FILE = f"{google.PREFIX}.data-00000-of-00001"
ALBERT = {"num_layers": 4, "num_hidden_groups": 2, "embedding_size": 8}


def need(path):
    if not os.path.exists(path):
        raise absltest.SkipTest(f"shared data is absent: {path}")


def model(task, **changes):
    config = tiny.bert(**({"activation": "gelu_tanh"} | changes))
    result = model_lib.BertModel(bert.BertEncoder(config), task)
    random = np.random.default_rng(1)
    for part in (result.encoder, result.head):
        for variable in checkpoint.weights(part).values():
            variable.assign(random.normal(size=variable.shape))
    return result


def masked_lm_task(**fields):
    task = masked_lm.MaskedLM(seq_length=64, **fields)
    return task.adapt([], tiny.tokenizer())


def classifier_task(classes=2):
    labels = tuple(map(str, range(classes)))
    return classification.Classification(seq_length=64, labels=labels)


def values(network):
    return {
        (part.name, path): variable.numpy()
        for part in (network.encoder, network.head)
        for path, variable in checkpoint.weights(part).items()
    }


def tensors(folder):
    """Everything in a checkpoint but what is ignored."""
    reader = tf.train.load_checkpoint(os.path.join(folder, google.PREFIX))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.endswith(("adam_m", "adam_v", "global_step"))
    }


def albert_of_google(tensor, token_ids, segment_ids, *, layers, groups, heads):
    """ALBERT as its modeling.py describes it, one text of S tokens, float64.

    Written from the names of the variables alone, to say what they mean.
    """

    def dense(x, name):
        return x @ tensor[f"{name}/kernel"] + tensor[f"{name}/bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensor[f"{name}/gamma"] + tensor[f"{name}/beta"]

    def split(x):
        return x.reshape(len(x), heads, -1).swapaxes(0, 1)  # (N, S, D)

    tensor = {name: value.astype(np.float64) for name, value in tensor.items()}
    scope = "bert/embeddings"
    x = tensor[f"{scope}/word_embeddings"][token_ids]
    x = x + tensor[f"{scope}/token_type_embeddings"][segment_ids]
    x = x + tensor[f"{scope}/position_embeddings"][: len(x)]
    x = norm(x, f"{scope}/LayerNorm")
    x = dense(x, "bert/encoder/embedding_hidden_mapping_in")
    for layer in range(layers):
        group = int(layer / layers * groups)
        scope = f"bert/encoder/transformer/group_{group}/inner_group_0"
        query, key, value = (
            split(dense(x, f"{scope}/attention_1/self/{name}"))
            for name in ("query", "key", "value")
        )
        score = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        score = np.exp(score - score.max(-1, keepdims=True))
        context = score / score.sum(-1, keepdims=True) @ value
        context = context.swapaxes(0, 1).reshape(x.shape)
        x = x + dense(context, f"{scope}/attention_1/output/dense")
        x = norm(x, f"{scope}/LayerNorm")
        y = dense(x, f"{scope}/ffn_1/intermediate/dense")
        y = y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
        x = x + dense(y, f"{scope}/ffn_1/intermediate/output/dense")
        x = norm(x, f"{scope}/LayerNorm_1")
    pooled = np.tanh(dense(x[0], "bert/pooler/dense"))
    weights, bias = tensor["output_weights"], tensor["output_bias"]
    return x, pooled @ weights.T + bias


class GoogleTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, task=None, **changes):
        written = model(task or masked_lm_task(), **changes)
        google.write(self.folder, written, tiny.tokenizer())
        return written

    def change_config(self, **changes):
        with open(self.path(google.BERT_CONFIG)) as file:
            config = json.load(file) | changes
        with open(self.path(google.BERT_CONFIG), "w") as file:
            json.dump({k: v for k, v in config.items() if v != "gone"}, file)

    def save_tensors(self, prefix=google.PREFIX, **changes):
        """Changes tensors of the folder; None takes one away."""
        new = tensors(self.folder) | changes
        new = {name: v for name, v in new.items() if v is not None}
        tf.raw_ops.SaveV2(
            prefix=self.path(prefix),
            tensor_names=list(new),
            shape_and_slices=[""] * len(new),
            tensors=list(new.values()),
        )

    def index_only(self, source, index, vocabulary):
        """A folder around a published index, whose data is not at hand."""
        vocabulary = os.path.join(tiny.SHARED_DATA, "vocab", vocabulary)
        need(os.path.join(source, index))
        need(vocabulary)
        shutil.copy(os.path.join(source, google.BERT_CONFIG), self.folder)
        shutil.copy(os.path.join(source, index), self.folder)
        shutil.copy(vocabulary, self.path(google.VOCABULARY))
        external = google.read(self.folder)
        reader = tf.train.load_checkpoint(
            self.path(os.path.basename(index).removesuffix(".index"))
        )
        shapes = reader.get_variable_to_shape_map()
        used = {
            name
            for mapping in (*external.encoder_mappings, *external.head_mappings)
            for name in mapping.source_names
        }
        self.assertContainsSubset(used, shapes)
        print(f"{index}: {len(shapes)} tensors, {len(used)} have a place")
        return external, set(shapes) - used

    def test_answers_are_those_of_google_s_code(self):
        reference = os.path.join(
            tiny.SHARED_DATA,
            "reference/google_bert/forward_keras_bert_test_tf1.npz",
        )
        need(reference)
        expected = np.load(reference)
        inputs = {
            name: tf.constant(expected[name])
            for name in ("token_ids", "segment_ids", "padding_mask")
        }
        network = loading.load_model(formats.read(KERAS_BERT))
        encoded = network.encoder(**inputs)
        outputs = network(inputs | {"positions": expected["positions"]})
        pairs = {
            "embedding": (encoded["hidden"][0], expected["embedding"]),
            "pooled": (encoded["pooled"], expected["pooled"]),
            "masked_lm": (outputs["masked_lm"], expected["mlm_logits"]),
            "next_sentence": (outputs["next_sentence"], expected["nsp_logits"]),
        }
        # Padding looks at nothing here and at the text there; nobody reads it.
        real = expected["padding_mask"] == 1
        for layer, wanted in enumerate(expected["layers"]):
            actual = encoded["hidden"][layer + 1].numpy()
            pairs[f"layer {layer}"] = actual[real], wanted[real]
        for name, (actual, wanted) in pairs.items():
            difference = np.abs(actual - wanted).max()
            print(f"{name}: differs by at most {difference:.1e}")
            self.assertLess(difference, 1e-5, name)

    def test_google_s_own_checkpoint_is_written_back_bit_equal(self):
        need(KERAS_BERT)
        source = formats.read(KERAS_BERT)
        google.write(
            self.folder, loading.load_model(source), source.tokenizer()
        )
        original, written = tensors(KERAS_BERT), tensors(self.folder)
        self.assertSameElements(original, written)
        for name, value in original.items():
            np.testing.assert_array_equal(written[name], value, name)

    def test_chinese_base_finds_every_place(self):
        source, ignored = self.index_only(
            CHINESE, "bert_model.ckpt.index", "bert_chinese_vocab.txt"
        )
        self.assertEmpty(ignored)
        self.assertEqual(source.config.num_layers, 12)
        self.assertEqual(source.config.vocab_size, 21128)
        self.assertEqual(source.config.activation, "gelu_tanh")
        self.assertEqual(source.task.objective, "nsp")
        self.assertTrue(source.words.lowercase)

    @parameterized.parameters(
        ("bert_model.ckpt", masked_lm.MaskedLM, ""),
        ("finetuned/pretraining_model.ckpt-20", masked_lm.MaskedLM, "step"),
        (
            "finetuned/mrpc_model.ckpt-343",
            classification.Classification,
            "step",
        ),
        (
            "finetuned/squad_model.ckpt-14599",
            question_answering.QuestionAnswering,
            "step",
        ),
    )
    def test_bert_tiny_and_what_became_of_it_find_every_place(
        self, prefix, task, left
    ):
        source, ignored = self.index_only(
            TINY, f"{prefix}.index", "bert_uncased_en_vocab.txt"
        )
        rest = {
            name
            for name in ignored
            if not name.endswith(("/adam_m", "/adam_v"))
        }
        self.assertSameElements(rest, ["global_step"] if left else [])
        self.assertIsInstance(source.task, task)
        self.assertNotEmpty(source.head_mappings)
        # Without its data it is looked at, and not loaded.
        with self.assertRaisesRegex(errors.InputError, "missing or damage"):
            loading.load_model(source)

    @parameterized.named_parameters(
        ("nsp", masked_lm_task(), {}),
        ("no_sentences", masked_lm_task(objective="none"), {}),
        ("relu_classifier", classifier_task(3), {"activation": "relu"}),
        ("spans", question_answering.QuestionAnswering(seq_length=64), {}),
        ("albert_of_two_groups", masked_lm_task(objective="sop"), ALBERT),
        ("albert_classifier", classifier_task(), {"num_hidden_groups": 1}),
        ("albert_unshared", classifier_task(), {"embedding_size": 8}),
    )
    def test_ours_to_google_s_to_ours_is_bit_equal(self, task, changes):
        written = self.write(task, **changes)
        source = formats.read(self.folder)
        again = loading.load_model(source)
        self.assertEqual(again.encoder.config, written.encoder.config)
        self.assertEqual(again.task, task)
        self.assertEqual(
            source.tokenizer().fingerprint, tiny.tokenizer().fingerprint
        )
        expected, got = values(written), values(again)
        self.assertSameElements(expected, got)
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value, str(key))

    def test_tensorflow_1_restores_what_was_written_by_name(self):
        self.write(classifier_task())
        expected = tensors(self.folder)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            variables = {
                name: tf.compat.v1.get_variable(name, value.shape)
                for name, value in expected.items()
            }
            tf.compat.v1.train.Saver().restore(
                session, self.path(google.PREFIX)
            )
            for name, value in session.run(variables).items():
                np.testing.assert_array_equal(value, expected[name])

    def test_albert_s_names_mean_what_they_mean_in_google_s_code(self):
        written = self.write(classifier_task(3), **ALBERT)
        ids = np.array([2, 7, 30, 9, 3, 11, 3])
        segments = np.array([0, 0, 0, 0, 0, 1, 1])
        expected, logits = albert_of_google(
            tensors(self.folder), ids, segments, layers=4, groups=2, heads=2
        )
        inputs = {
            "token_ids": ids[None],
            "segment_ids": segments[None],
            "padding_mask": np.ones_like(ids)[None],
        }
        encoded = written.encoder(**inputs)
        difference = np.abs(encoded["hidden"][-1][0] - expected).max()
        print(f"ALBERT's last layer: differs by at most {difference:.1e}")
        self.assertLess(difference, 1e-4)
        np.testing.assert_allclose(
            written(inputs)["label"][0], logits, atol=1e-4
        )

    def test_an_encoder_without_a_head_starts_another_task(self):
        written = self.write()
        heads = {n: None for n in tensors(self.folder) if n.startswith("cls/")}
        self.save_tensors(
            **heads, **{"start_logits/dense/kernel": np.ones((16, 1), "f")}
        )
        source = formats.read(self.folder)
        self.assertIsNone(source.task)
        with self.assertRaisesRegex(errors.InputError, "without a head"):
            loading.load_model(source)
        np.testing.assert_array_equal(
            loading.load_model(source, classifier_task()).encoder.token_table,
            written.encoder.token_table,
        )

    def test_the_head_of_a_regression_is_left_out(self):
        self.write(classifier_task())
        self.save_tensors(
            output_weights=np.ones((1, 16), "f"), output_bias=np.ones(1, "f")
        )
        source = google.read(self.folder)
        self.assertIsNone(source.task)
        with self.assertRaisesRegex(
            errors.InputError, "output_weights are those of a regression"
        ):
            loading.load_model(source)

    def test_what_training_left_is_not_taken_for_weights(self):
        written = self.write()
        self.save_tensors(
            **{
                "current_loss_scale": np.float32(2**15),
                "good_steps": np.int64(7),
                "bad_steps": np.int32(0),
                "beta1_power": np.float32(0.9),
                "loss_scale/variable": np.float32(1),
                "learning_rate": np.float64(1e-4),
                "bert/pooler/dense/bias/LAMBOptimizer": np.ones(16, "f"),
                "bert/pooler/dense/kernel/Adafactor/vr": np.ones(16, "f"),
                "cls/predictions/output_bias/Momentum": np.ones(36, "f"),
            }
        )
        self.assertEqual(
            values(loading.load_model(google.read(self.folder))).keys(),
            values(written).keys(),
        )

    @parameterized.parameters(
        ("bert/encoder/scale", np.float32(1)),  # a number of the network
        ("cls/temperature", np.float32(1)),
        ("extra", np.ones(1, "f")),
        ("bert/pooler/dense/kernel_2", np.ones(3, "f")),
        ("bert/pooler/dense/bias_2/adam", np.ones(16, "f")),
    )
    def test_a_weight_without_a_place_is_named(self, name, value):
        self.write()
        self.save_tensors(**{name: value})
        with self.assertRaisesRegex(errors.InputError, name):
            google.read(self.folder)

    def test_a_larger_table_keeps_its_rows_and_the_load_says_so(self):
        written = self.write(vocab_size=50)
        with self.assertWarnsRegex(UserWarning, "50 rows .* 36 entries"):
            source = formats.read(self.folder)
        self.assertEqual(source.words.vocabulary[-1], "[unused_row49]")
        self.assertEqual(source.words.vocabulary[:36], tuple(tiny.VOCABULARY))
        np.testing.assert_array_equal(
            loading.load_model(source).encoder.token_table,
            written.encoder.token_table,
        )
        self.change_config(vocab_size=2_000_000_000)
        with self.assertRaisesRegex(errors.InputError, "word_embeddings"):
            google.read(self.folder)

    def test_a_tensor_of_text_is_named(self):
        self.write()
        self.save_tensors(
            **{"bert/pooler/dense/bias": np.array([b"cos\nsystem"] * 16)}
        )
        with self.assertRaisesRegex(errors.InputError, "pooler/dense/bias"):
            google.read(self.folder)

    @parameterized.parameters(
        ("{}", "lacks vocab_size"),
        ("[1]", "expected a JSON object"),
        ("{", "cannot be read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"hidden_size": ' + "1" * 5000 + "}", "cannot be read"),
    )
    def test_a_configuration_is_one_line_if_it_is(self, text, message):
        self.write()
        path = self.path(google.BERT_CONFIG)
        with open(path, "w") as file:
            file.write(text)
        with self.assertRaises(errors.InputError) as caught:
            formats.read(self.folder)
        self.assertRegex(str(caught.exception), f"{path}.*{message}")
        self.assertNotIn("\n", str(caught.exception))

    def test_a_file_latest_does_not_make_it_a_run_of_ours(self):
        self.write()
        with open(self.path("latest"), "w") as file:
            file.write("global_step1000")
        self.assertIs(formats.find(self.folder), google)
        loading.load_model(formats.read(self.folder))

    def test_rows_are_no_longer_than_the_positions(self):
        self.write(max_position_embeddings=20)
        self.assertEqual(google.read(self.folder).task.seq_length, 20)

    def test_casing_is_kept_though_the_vocabulary_tells_another(self):
        self.write()
        self.assertTrue(google.read(self.folder).words.lowercase)
        self.assertFalse(
            google.read(self.folder, lowercase=False).words.lowercase
        )
        self.change_config(do_lower_case=False)
        self.assertFalse(google.read(self.folder).words.lowercase)
        self.change_config(do_lower_case="gone")
        self.assertTrue(google.read(self.folder).words.lowercase)

    def test_the_file_checkpoint_names_the_one_that_is_read(self):
        def number():
            return google.read(self.folder).encoder_values()["pooler/bias"][0]

        self.write()
        for name, value in (
            ("model.ckpt-1", 1.0),
            ("model.ckpt-2", 2.0),
            (google.PREFIX, 3.0),
        ):
            bias = np.full(16, value, "f")
            self.save_tensors(name, **{"bert/pooler/dense/bias": bias})
        with open(self.path("checkpoint"), "w") as file:
            file.write('model_checkpoint_path: "/elsewhere/model.ckpt-1"\n')
        self.assertEqual(number(), 1)
        os.remove(self.path("model.ckpt-1.index"))
        with self.assertRaisesRegex(
            errors.InputError, "names model.ckpt-1, which is not in the folder"
        ):
            google.read(self.folder)
        os.remove(self.path("checkpoint"))
        self.assertEqual(number(), 3)
        os.remove(self.path(f"{google.PREFIX}.index"))
        self.assertEqual(number(), 2)

    @parameterized.parameters(
        b"",
        b"\n",
        b'model_checkpoint_path: ""\n',
        b'all_model_checkpoint_paths: "bert_model.ckpt"\n',
        b"garbage\n",
        b"model_checkpoint_path: 5\n",
        b'model_checkpoint_path: "\xff\xfe"\n',
        b"\x80\x00",
    )
    def test_a_file_that_names_no_checkpoint_is_refused(self, content):
        self.write()
        with open(self.path("checkpoint"), "wb") as file:
            file.write(content)
        with self.assertRaisesRegex(
            errors.InputError, "checkpoint: expected a line .*delete the file"
        ) as caught:
            google.read(self.folder)
        self.assertNotIn("\n", str(caught.exception))
        self.assertNotIn("None", str(caught.exception))

    def test_several_checkpoints_are_not_guessed_between(self):
        self.write()
        os.rename(
            self.path(f"{google.PREFIX}.index"), self.path("model.ckpt-1.index")
        )
        shutil.copy(
            self.path("model.ckpt-1.index"), self.path("model.ckpt-2.index")
        )
        with self.assertRaisesRegex(
            errors.InputError, "found model.ckpt-1, model.ckpt-2"
        ):
            google.read(self.folder)

    def test_other_folders_are_not_recognised(self):
        self.assertFalse(google.recognises(self.folder))
        self.assertFalse(google.recognises(self.path("absent")))
        self.write()
        self.assertTrue(google.recognises(self.folder))
        run = self.create_tempdir().full_path
        checkpoint.save(run, tiny.classifier(), tiny.tokenizer(), step=1)
        self.assertFalse(google.recognises(run))
        self.assertFalse(google.recognises(checkpoint.step_folder(run, 1)))

    @parameterized.product(
        name=(f"{google.PREFIX}.index", DATA_FILE, google.BERT_CONFIG),
        damage=("gone", "empty", "cut", "flipped"),
    )
    def test_a_damaged_file_is_one_input_error(self, name, damage):
        self.write()
        path = self.path(name)
        with open(path, "rb") as file:
            content = bytearray(file.read())
        middle = len(content) // 2
        content[middle] ^= 128  # in a JSON file: no longer UTF-8
        new = {"empty": b"", "cut": content[:middle], "flipped": content}
        os.remove(path)
        if damage != "gone":
            with open(path, "wb") as file:
                file.write(new[damage])
        with self.assertRaises(errors.InputError) as raised:
            loading.load_model(formats.read(self.folder))
        message = str(raised.exception)
        self.assertNotIn("\n", message)
        self.assertIn(self.folder, message)

    def test_a_missing_or_wrong_vocabulary_is_named(self):
        self.write()
        with open(self.path(google.VOCABULARY), "a") as file:
            file.write("more\n")
        with self.assertRaisesRegex(
            errors.InputError, "37 entries, and the embedding table has 36 rows"
        ):
            google.read(self.folder)
        os.remove(self.path(google.VOCABULARY))
        with self.assertRaisesRegex(errors.InputError, "vocab.txt"):
            google.read(self.folder)

    def test_what_is_missing_and_what_is_left_over_is_named(self):
        self.write()
        missing = "bert/encoder/layer_1/attention/self/key/bias"
        self.save_tensors(
            **{missing: None, "bert/more": np.ones(2), "x/adam_m": np.ones(2)}
        )
        with self.assertRaises(errors.InputError) as raised:
            google.read(self.folder)
        self.assertIn(f"missing {missing};", str(raised.exception))
        self.assertIn("not in the model bert/more.", str(raised.exception))

    def test_what_may_be_missing_keeps_its_new_values(self):
        written = self.write()
        self.save_tensors(
            **{"bert/pooler/dense/kernel": None, "bert/pooler/dense/bias": None}
        )
        with self.assertRaisesRegex(errors.InputError, "bert/pooler/dense/"):
            google.read(self.folder)
        source = google.read(self.folder, allow_missing="^pooler/")
        again = loading.load_model(source)
        pooler = ("encoder", "pooler/kernel")
        self.assertGreater(
            np.abs(values(again)[pooler] - values(written)[pooler]).max(), 1
        )
        np.testing.assert_array_equal(
            again.encoder.token_table, written.encoder.token_table
        )

    def test_layers_that_the_config_does_not_know_are_named(self):
        self.write()
        self.change_config(num_hidden_layers=1)
        with self.assertRaisesRegex(
            errors.InputError, "not in the model bert/encoder/layer_1/"
        ):
            google.read(self.folder)
        self.change_config(num_hidden_layers=2, intermediate_size=48)
        with self.assertRaisesRegex(
            errors.InputError,
            r"layer_0/intermediate/dense/kernel is \(16, 32\) there and "
            r"\(16, 48\)",
        ):
            google.read(self.folder)

    @parameterized.parameters(
        ({"hidden_act": "tanh"}, "hidden_act gelu or relu, got 'tanh'"),
        ({"hidden_act": ["gelu"]}, "hidden_act gelu or relu"),
        ({"hidden_size": "gone"}, "lacks hidden_size"),
        ({"hidden_size": "16"}, "whole number for hidden_size, got '16'"),
        ({"num_attention_heads": 3}, "not a multiple of num_heads"),
        ({"hidden_dropout_prob": 1.0}, "below 1 for hidden_dropout_prob"),
        ({"initializer_range": float("nan")}, "above 0 for initializer_range"),
        ({"hidden_size": True}, "whole number for hidden_size, got True"),
        ({"num_hidden_layers": 10**9}, "1,000,000,000"),
        ({"do_lower_case": "no"}, "true or false for do_lower_case"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"hidden_dropout_prob": None}, "a number .*for hidden_dropout_prob"),
        ({"inner_group_num": 2}, "expected inner_group_num 1, got 2"),
    )
    def test_a_config_that_cannot_be_read_is_explained(self, change, message):
        self.write()
        self.change_config(**change)
        with self.assertRaisesRegex(
            errors.InputError, f"{google.BERT_CONFIG}.*{message}"
        ):
            google.read(self.folder)

    def test_a_checkpoint_of_tensorflow_2_is_explained(self):
        self.write()
        for name in (f"{google.PREFIX}.index", DATA_FILE):
            os.remove(self.path(name))
        tf.train.Checkpoint(x=tf.Variable(1.0)).write(self.path(google.PREFIX))
        with self.assertRaisesRegex(errors.InputError, "by TensorFlow 2"):
            google.read(self.folder)

    @parameterized.parameters(
        ({"norm_first": True}, "norm_first=True"),
        ({"causal": True}, "causal=True"),
        ({"position": "sinusoidal"}, "position='sinusoidal'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ({"activation": "gelu"}, "activation='gelu'"),
    )
    def test_what_google_s_format_cannot_hold_is_not_written(
        self, change, message
    ):
        config = tiny.bert(**({"activation": "gelu_tanh"} | change))
        written = model_lib.BertModel(
            bert.BertEncoder(config), classifier_task()
        )
        with self.assertRaisesRegex(errors.InputError, message):
            google.write(self.path("new"), written, tiny.tokenizer())
        self.assertFalse(os.path.exists(self.path("new")))

    def test_a_folder_that_holds_something_else_is_not_written_into(self):
        self.write()
        before = tensors(self.folder)
        with self.assertRaisesRegex(errors.InputError, "already contains"):
            self.write(classifier_task())
        self.assertSameElements(tensors(self.folder), before)

    def test_writing_leaves_four_files(self):
        self.write()
        self.assertSameElements(
            os.listdir(self.folder),
            [
                *(google.BERT_CONFIG, google.VOCABULARY, DATA_FILE),
                f"{google.PREFIX}.index",
            ],
        )


if __name__ == "__main__":
    absltest.main()
