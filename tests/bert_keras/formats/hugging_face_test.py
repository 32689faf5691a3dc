import dataclasses
import json
import os
import shutil

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, formats, loading, predictor
from bert_keras import model as model_lib
from bert_keras.formats import hugging_face
from bert_keras.networks import bert
from bert_keras.tasks import (
    classification,
    masked_lm,
    multiple_choice,
    question_answering,
    tagging,
)
from tests import tiny

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FAST = "tokenizer.json"
PICKLED = os.path.join(tiny.SHARED_DATA, "checkpoints", "hf_bert_xsmall_dummy")
TABLE = "bert.embeddings.word_embeddings.weight"

LABELS = ("bad", "good")


def model(task=None, **changes):
    """A network whose every weight is random: all zeros prove nothing."""
    task = task or classification.Classification(labels=LABELS, seq_length=32)
    result = model_lib.BertModel(bert.BertEncoder(tiny.bert(**changes)), task)
    random = np.random.default_rng(0)
    for variable in result.weights:
        if "seed" not in variable.path:
            variable.assign(0.2 * random.normal(size=variable.shape))
    return result


def masked(objective):
    task = masked_lm.MaskedLM(seq_length=32, objective=objective)
    return task.adapt([], tiny.tokenizer())


MODELS = (
    ("classification", classification.Classification(labels=LABELS)),
    ("pair", classification.Classification(labels=("b", "a"), pair=True)),
    ("pretraining", masked("nsp")),
    ("sentence_order", masked("sop")),
    ("masked_lm", masked("none")),
    ("question_answering", question_answering.QuestionAnswering()),
    ("tagging", tagging.Tagging(types=("PER", "LOC"))),
    ("tagging_bmes", tagging.Tagging(types=("PER",), scheme="BMES")),
)


def write_json(values, *path):
    with open(os.path.join(*path), "w", encoding="utf-8") as file:
        json.dump(values, file)


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


class HuggingFaceTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def write(self, written=None):
        written = written or model()
        hugging_face.write(self.folder, written, tiny.tokenizer())
        return written

    def change(self, name, **changes):
        path = (self.folder, name)
        write_json(read_json(*path) | changes, *path)

    def change_tensors(self, function):
        path = os.path.join(self.folder, WEIGHTS)
        tensors = safetensors.numpy.load_file(path)
        changed = function(dict(tensors))
        safetensors.numpy.save_file(changed, path, metadata={"format": "pt"})

    def assert_refused(self, *words, **options):
        with self.assertRaises(errors.InputError) as caught:
            hugging_face.read(self.folder, **options)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)

    def assert_same_weights(self, one, other):
        one, other = checkpoint.weights(one), checkpoint.weights(other)
        self.assertEqual(list(one), list(other))
        for path, variable in one.items():
            np.testing.assert_array_equal(variable, other[path], path)

    def assert_reads_back(self, written):
        again = loading.load_model(hugging_face.read(self.folder))
        self.assert_same_weights(written.encoder, again.encoder)
        self.assert_same_weights(written.head, again.head)

    # What was written comes back.

    @parameterized.named_parameters(*MODELS)
    def test_round_trip_is_bit_equal(self, task):
        written = self.write(model(task, causal=True, activation="gelu_tanh"))
        source = hugging_face.read(self.folder)
        self.assertEqual(source.config, written.encoder.config)
        self.assertEqual(source.task, task)
        self.assertEqual(source.tokenizer().fingerprint, tiny_fingerprint())
        self.assert_reads_back(written)

    def test_an_encoder_alone_is_their_base_model(self):
        written = model()
        self.write(written.encoder)
        names = safetensors.numpy.load_file(os.path.join(self.folder, WEIGHTS))
        self.assertIn("embeddings.word_embeddings.weight", names)
        source = hugging_face.read(self.folder)
        self.assertIsNone(source.task)
        again = loading.load_model(source, written.task)
        self.assert_same_weights(written.encoder, again.encoder)
        with self.assertRaisesRegex(errors.InputError, "without a head"):
            loading.load_model(source)

    def test_a_folder_is_found_by_what_lies_in_it(self):
        written = self.write()
        texts = ["a good film", "not very good"]
        self.assertEqual(
            predictor.load(self.folder).predict(texts),
            predictor.Predictor(written, tiny.tokenizer()).predict(texts),
        )

    def test_shards_hold_the_same_model(self):
        written = self.write()
        path = os.path.join(self.folder, WEIGHTS)
        tensors = safetensors.numpy.load_file(path)
        os.remove(path)
        shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
        where = {name: shards[i % 3] for i, name in enumerate(tensors)}
        for shard in shards:
            part = {n: v for n, v in tensors.items() if where[n] == shard}
            safetensors.numpy.save_file(part, os.path.join(self.folder, shard))
        index = {"weight_map": where}
        write_json(index, self.folder, "model.safetensors.index.json")
        self.assertTrue(hugging_face.recognises(self.folder))
        self.assert_reads_back(written)
        os.remove(os.path.join(self.folder, shards[1]))
        self.assert_refused(shards[1], "3 files", "copy")

    def test_old_names_of_norms_and_buffers_are_known(self):
        written = self.write()

        def age(tensors):
            tensors["bert.embeddings.position_ids"] = np.arange(64)[None]
            for new, old in (("weight", "gamma"), ("bias", "beta")):
                tensors = {
                    name.replace(f"LayerNorm.{new}", f"LayerNorm.{old}"): value
                    for name, value in tensors.items()
                }
            return tensors

        self.change_tensors(age)
        self.assert_reads_back(written)

    @parameterized.parameters(np.float16, ml_dtypes.bfloat16, np.float64)
    def test_other_precisions_become_float32(self, dtype):
        written = self.write()
        self.change_tensors(
            lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()}
        )
        again = loading.load_model(hugging_face.read(self.folder))
        expected = written.encoder.token_table.numpy().astype(dtype)
        np.testing.assert_array_equal(
            again.encoder.token_table, expected.astype(np.float32)
        )

    def test_tied_copies_must_be_equal(self):
        written = self.write(model(masked("nsp")))
        copy = "cls.predictions.decoder.weight"
        self.change_tensors(lambda tensors: tensors | {copy: tensors[TABLE]})
        self.assert_reads_back(written)
        self.change_tensors(lambda tensors: tensors | {copy: tensors[copy] + 1})
        self.assert_refused(copy, "word_embeddings")

    # Heads.

    def test_the_tensors_tell_the_head_and_not_the_configuration(self):
        # bert-base-uncased is such a folder.
        self.write(model(masked("nsp")))
        self.change(CONFIG, architectures=["BertForMaskedLM"], bert_keras=None)
        task = hugging_face.read(self.folder).task
        self.assertEqual(
            task,
            masked("nsp").from_config(
                dataclasses.asdict(masked("nsp")) | {"seq_length": 64}
            ),
        )

    def test_labels_are_those_of_id2label(self):
        self.write()
        labels = {"1": "neutral", "0": "negative"}
        self.change(CONFIG, id2label=labels, label2id=None, bert_keras=None)
        task = hugging_face.read(self.folder).task
        self.assertEqual(task.labels, ("negative", "neutral"))
        self.change(CONFIG, id2label={**labels, "2": "positive"})
        self.assert_refused("classifier.weight", "(2, 16)", "(3, 16)")
        self.change(CONFIG, id2label={**labels, "2": "neutral"})
        self.assert_refused("id2label")

    @parameterized.parameters(
        ("BertForTokenClassification", "classifier"),
        ("BertForNextSentencePrediction", "cls.seq_relationship"),
    )
    def test_a_head_without_a_task_of_ours_leaves_an_encoder(self, name, head):
        written = self.write()
        self.change(CONFIG, architectures=[name])
        self.change_tensors(
            lambda tensors: {
                name.replace("classifier", head): value
                for name, value in tensors.items()
            }
        )
        source = hugging_face.read(self.folder)
        self.assertIsNone(source.task)
        again = loading.load_model(source, written.task)
        self.assert_same_weights(written.encoder, again.encoder)

    def test_choices_are_as_many_as_ours_or_four(self):
        task = multiple_choice.MultipleChoice(num_choices=3, seq_length=16)
        written = self.write(model(task))
        source = hugging_face.read(self.folder)
        self.assertEqual(source.task, task.for_serving())
        again = loading.load_model(source)
        self.assert_same_weights(written, again)
        self.change(CONFIG, bert_keras=None)
        with self.assertWarnsRegex(UserWarning, "up to 4"):
            source = hugging_face.read(self.folder)
        self.assertEqual(source.task.num_choices, 4)

    def test_tags_in_an_order_of_their_own_are_not_taken_over(self):
        self.write(model(tagging.Tagging(types=("PER",))))
        for labels, types in (
            (("O", "B-ORG", "I-ORG"), ("ORG",)),
            (("B-ORG", "I-ORG", "O"), None),
        ):
            names = {str(index): label for index, label in enumerate(labels)}
            self.change(CONFIG, id2label=names, label2id=None, bert_keras=None)
            task = hugging_face.read(self.folder).task
            self.assertEqual(task and task.types, types)

    def test_a_regression_or_several_labels_are_no_classes(self):
        self.write()
        for problem in ("multi_label_classification", "regression"):
            self.change(CONFIG, problem_type=problem)
            source = hugging_face.read(self.folder)
            self.assertIsNone(source.task)
            with self.assertRaisesRegex(
                errors.InputError,
                f"problem_type '{problem}'.*trainers.finetune",
            ):
                loading.load_model(source)
            self.assertIsNotNone(loading.load_model(source, model().task))

    def test_why_a_head_is_left_out_is_said(self):
        self.write(model(tagging.Tagging(types=("PER",))))
        labels = {"0": "B-PER", "1": "I-PER", "2": "O"}
        self.change(CONFIG, id2label=labels, label2id=None, bert_keras=None)
        with self.assertRaisesRegex(errors.InputError, "'I-PER', 'O'.*scheme"):
            loading.load_model(hugging_face.read(self.folder))
        self.folder = self.create_tempdir().full_path
        self.write()
        self.change(CONFIG, architectures=["BertForNextSentencePrediction"])
        self.change_tensors(
            lambda tensors: {
                name.replace("classifier", "cls.seq_relationship"): value
                for name, value in tensors.items()
            }
        )
        with self.assertRaisesRegex(errors.InputError, "NextSentencePredict"):
            loading.load_model(hugging_face.read(self.folder))
        self.folder = self.create_tempdir().full_path
        self.write(model().encoder)
        with self.assertRaisesRegex(errors.InputError, "without a head;"):
            loading.load_model(hugging_face.read(self.folder))

    @parameterized.parameters(5, "text_classification", (["regression"],), True)
    def test_a_problem_type_that_is_none_is_refused(self, value):
        self.write()
        self.change(CONFIG, problem_type=value)
        self.assert_refused(CONFIG, "problem_type", str(value))

    @parameterized.parameters(
        ({"label2id": {"bad": 1, "good": 0}}, "label2id"),
        ({"label2id": {"bad": 0}}, "label2id"),
        ({"label2id": {"bad": 0, "good": 1, "fair": 2}}, "label2id"),
        ({"label2id": {"a": 0, "b": 0}, "id2label": None}, "label2id"),
        ({"num_labels": 3}, "num_labels is 3 and 2 labels"),
        ({"num_labels": "2"}, "num_labels is '2'"),
    )
    def test_labels_that_are_said_in_two_ways_are_refused(self, changes, word):
        self.write()
        self.change(CONFIG, bert_keras=None, **changes)
        self.assert_refused(CONFIG, word)
        self.change(CONFIG, id2label={"0": "bad", "1": "good"}, num_labels=2)
        self.change(CONFIG, label2id={"good": 1, "bad": 0})
        self.assertEqual(hugging_face.read(self.folder).task.labels, LABELS)

    def test_heads_of_one_name_need_architectures(self):
        self.write()
        self.change(CONFIG, architectures=["BertForSomethingElse"])
        self.assert_refused("classifier.", "BertForTokenClassification")

    def test_a_masked_lm_answers_without_a_pooler_and_others_name_it(self):
        written = self.write(model(masked("none")))
        self.change_tensors(without("pooler"))
        source = hugging_face.read(self.folder)
        text = ["a [MASK] film"]
        self.assertEqual(
            predictor.Predictor(
                loading.load_model(source), source.tokenizer()
            ).predict(text),
            predictor.Predictor(written, tiny.tokenizer()).predict(text),
        )
        task = classification.Classification(labels=LABELS, seq_length=32)
        with self.assertRaisesRegex(
            errors.InputError, "missing pooler/.*`allow_missing`"
        ):
            loading.load_model(source, task)
        source = hugging_face.read(self.folder, allow_missing="pooler")
        np.testing.assert_array_equal(
            loading.load_model(source, task).encoder.token_table,
            written.encoder.token_table,
        )

    # Vocabulary and casing.

    def test_vocabulary_and_casing_may_stand_in_tokenizer_json(self):
        written = self.write()
        for name in ("vocab.txt", "tokenizer_config.json"):
            os.remove(os.path.join(self.folder, name))
        words = {piece: i for i, piece in enumerate(tiny.VOCABULARY)}
        values = {"model": {"type": "WordPiece", "vocab": words}}
        write_json(values, self.folder, FAST)
        self.assert_refused("`lowercase`")
        self.change(FAST, normalizer={"lowercase": True})
        tokenizer = hugging_face.read(self.folder).tokenizer()
        self.assertEqual(tokenizer.fingerprint, tiny_fingerprint())
        self.assert_reads_back(written)
        del words["film"]
        self.change(FAST, model={"type": "WordPiece", "vocab": words})
        self.assert_refused("a wordpiece for every id", "[7]")
        self.change(FAST, model={"type": "Unigram", "vocab": []})
        self.assert_refused("WordPiece", "Unigram")

    @parameterized.parameters(
        (False, None, False),
        (True, None, True),
        (None, None, True),  # the vocabulary has no capitals
        (False, True, True),
        (True, False, False),
    )
    def test_casing(self, said, asked, expected):
        self.write()
        self.change("tokenizer_config.json", do_lower_case=said)
        source = hugging_face.read(self.folder, lowercase=asked)
        self.assertEqual(source.tokenizer().lowercase, expected)

    @parameterized.parameters(
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"added_tokens_decoder": {"7": {"content": "<e1>"}}},
    )
    def test_a_tokenizer_that_would_give_other_ids_is_refused(self, **setting):
        self.write()
        self.change("tokenizer_config.json", **setting)
        ((name, value),) = setting.items()
        self.assert_refused("<e1>" if "added" in name else str(value))

    @parameterized.product(
        file=("tokenizer_config.json", "special_tokens_map.json"),
        setting=(
            {"additional_special_tokens": ["<e1>"]},
            {"additional_special_tokens": [{"content": "<e1>"}]},
            {"extra_special_tokens": {"entity_token": "<e1>"}},
            {"extra_special_tokens": ["<e1>"]},
            {"bos_token": "<e1>"},
            {"eos_token": {"content": "<e1>", "lstrip": False}},
        ),
    )
    def test_a_special_token_that_is_split_here_is_refused(self, file, setting):
        self.write(model(vocab_size=37))
        self.add_word("<e1>")
        write_json(setting, self.folder, file)
        self.assert_refused("<e1>", file, "splits")

    @parameterized.parameters(
        {"additional_special_tokens": ["film"]},
        {"additional_special_tokens": ["[CLS]"], "bos_token": None},
        {"additional_special_tokens": []},
        {"extra_special_tokens": {}},
    )
    def test_a_special_token_that_is_a_piece_here_is_read(self, **setting):
        self.write()
        write_json(setting, self.folder, "special_tokens_map.json")
        hugging_face.read(self.folder)

    @parameterized.parameters(
        ({"additional_special_tokens": ["<e2>"]}, "no such entry"),
        ({"additional_special_tokens": "<e1>"}, "a list of tokens"),
        ({"extra_special_tokens": [5]}, "as strings"),
        ({"eos_token": {"id": 5}}, "as strings"),
        ({"unk_token": "<unk>"}, "'[UNK]'"),
        ({"sep_token": {"content": "</s>"}}, "'[SEP]'"),
    )
    def test_a_map_of_special_tokens_is_refused(self, special, word):
        self.write()
        os.remove(os.path.join(self.folder, "tokenizer_config.json"))
        write_json(special, self.folder, "special_tokens_map.json")
        self.assert_refused("special_tokens_map.json", word)

    def test_special_tokens_of_one_file_hide_none_of_another(self):
        self.write()  # its tokenizer_config.json has [UNK]
        write_json(
            {"unk_token": "<unk>"}, self.folder, "special_tokens_map.json"
        )
        self.assert_refused("special_tokens_map.json", "<unk>", "[UNK]")

    def add_word(self, word):
        with open(os.path.join(self.folder, "vocab.txt"), "a") as file:
            file.write(f"{word}\n")

    @parameterized.parameters("tokenizer_config.json", CONFIG)
    def test_a_tokenizer_is_named_by_either_configuration(self, file):
        self.write()
        settings = read_json(self.folder, "tokenizer_config.json")
        del settings["tokenizer_class"], settings["unk_token"]
        write_json(settings, self.folder, "tokenizer_config.json")
        for name, value in (
            ("tokenizer_class", "BertJapaneseTokenizer"),
            ("tokenizer_class", "evil_module.BertTokenizer"),
            ("tokenizer_class", ["BertTokenizer"]),
            ("word_tokenizer_type", "mecab"),
            ("subword_tokenizer_type", "character"),
            ("do_basic_tokenize", False),
            ("never_split", ["<e1>"]),
            ("unk_token", "<unk>"),
            ("auto_map", {"AutoTokenizer": ["tok.Mine", None]}),
        ):
            before = read_json(self.folder, file)
            self.change(file, **{name: value})
            said = value[0] if isinstance(value, list) else str(value)
            self.assert_refused(name if name == "auto_map" else said, file)
            write_json(before, self.folder, file)
        self.change(file, tokenizer_class="BertTokenizerFast")
        hugging_face.read(self.folder)

    def test_the_class_in_tokenizer_config_comes_first(self):
        self.write()
        self.change(CONFIG, tokenizer_class="BertJapaneseTokenizer")
        hugging_face.read(self.folder)

    def write_fast(self, *, vocabulary=False, **changes):
        """The tokenizer.json that `tokenizers` writes for our vocabulary."""
        self.write()
        ids = {piece: i for i, piece in enumerate(tiny.VOCABULARY)}
        frame = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
        frame += [{"Sequence": {"id": "A", "type_id": 0}}]
        frame += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
        other = [{"Sequence": {"id": "B", "type_id": 1}}]
        other += [{"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
        values = {
            "version": "1.0",
            "truncation": {"max_length": 128},
            "padding": {"strategy": "BatchLongest"},
            "added_tokens": [
                {"id": i, "content": piece, "special": True}
                for i, piece in enumerate(tiny.VOCABULARY[:5])
            ],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": frame,
                "pair": frame + other,
                "special_tokens": {
                    "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
                },
            },
            "decoder": {"type": "WordPiece"},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": ids,
            },
        }
        for name, change in changes.items():
            value = values[name]
            merge = isinstance(change, dict) and isinstance(value, dict)
            merge = merge and "type" not in change
            values[name] = value | change if merge else change
        write_json(values, self.folder, FAST)
        if not vocabulary:
            os.remove(os.path.join(self.folder, "vocab.txt"))
            self.change("tokenizer_config.json", do_lower_case=None)

    @parameterized.parameters(
        {},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "BertNormalizer", "lowercase": True}],
            }
        },
        {
            "post_processor": {
                "type": "BertProcessing",
                "sep": ["[SEP]", 3],
                "cls": ["[CLS]", 2],
            }
        },
    )
    def test_a_tokenizer_json_of_bert_gives_the_same_ids(self, **changes):
        for vocabulary in (True, False):
            self.folder = self.create_tempdir().full_path
            self.write_fast(vocabulary=vocabulary, **changes)
            for name in ("BertTokenizer", "PreTrainedTokenizerFast"):
                self.change("tokenizer_config.json", tokenizer_class=name)
                words = hugging_face.read(self.folder).tokenizer()
                self.assertEqual(words.fingerprint, tiny_fingerprint())

    @parameterized.named_parameters(
        ("no_normalizer", "null", {"normalizer": None}),
        (
            "a_sequence",
            "Sequence of NFD, Lowercase, StripAccents",
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [
                        {"type": "NFD"},
                        {"type": "Lowercase"},
                        {"type": "StripAccents"},
                    ],
                }
            },
        ),
        ("one_other", "Lowercase", {"normalizer": {"type": "Lowercase"}}),
        ("no_cleaning", "clean_text", {"normalizer": {"clean_text": False}}),
        ("no_text", "normalizer", {"normalizer": "BertNormalizer"}),
        ("no_split", "null", {"pre_tokenizer": None}),
        ("split", "Whitespace", {"pre_tokenizer": {"type": "Whitespace"}}),
        (
            "splits",
            "Sequence of WhitespaceSplit, Digits",
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "WhitespaceSplit"},
                        {"type": "Digits"},
                    ],
                }
            },
        ),
        ("no_frame", "post_processor", {"post_processor": None}),
        (
            "frame",
            "RobertaProcessing",
            {"post_processor": {"type": "RobertaProcessing"}},
        ),
        (
            "swapped",
            "post_processor",
            {
                "post_processor": {
                    "type": "BertProcessing",
                    "cls": ["[SEP]", 3],
                    "sep": ["[CLS]", 2],
                }
            },
        ),
        ("one_sep", "post_processor", {"post_processor": {"pair": []}}),
        ("prefix", "'@@'", {"model": {"continuing_subword_prefix": "@@"}}),
        ("words", "50", {"model": {"max_input_chars_per_word": 50}}),
        ("unknown", "<unk>", {"model": {"unk_token": "<unk>"}}),
        ("kind", "BPE", {"model": {"type": "BPE", "vocab": {}}}),
        (
            "special_id",
            "[CLS]",
            {"added_tokens": [{"id": 9, "content": "[CLS]"}]},
        ),
        ("added", "<e1>", {"added_tokens": [{"id": 36, "content": "<e1>"}]}),
        ("no_token", "added tokens", {"added_tokens": [{"id": "x"}]}),
        ("not_a_list", "a list", {"added_tokens": {"0": "[PAD]"}}),
        ("not_a_model", "a JSON object", {"model": ["WordPiece"]}),
        ("ids", "'one'", {"model": {"vocab": {"[PAD]": "one"}}}),
        ("one_id", "2 with", {"model": {"vocab": {"[PAD]": 0, "a": 0}}}),
        ("casing", "true or false", {"normalizer": {"lowercase": "yes"}}),
    )
    def test_a_tokenizer_json_is_refused_by_name_for(self, word, changes):
        for vocabulary in (True, False):
            self.folder = self.create_tempdir().full_path
            size = 37 if word == "<e1>" else 36
            self.write_fast(vocabulary=vocabulary, **changes)
            if size > 36:
                self.change_tensors(
                    lambda tensors: (
                        tensors
                        | {TABLE: np.pad(tensors[TABLE], [(0, 1), (0, 0)])}
                    )
                )
                self.change(CONFIG, vocab_size=size)
            if word == "true or false":
                self.change("tokenizer_config.json", do_lower_case=None)
            self.assert_refused(word)

    def test_a_vocabulary_that_contradicts_tokenizer_json_is_refused(self):
        self.write_fast(vocabulary=True)
        pieces = list(tiny.VOCABULARY)
        pieces[7], pieces[8] = pieces[8], pieces[7]
        path = os.path.join(self.folder, "vocab.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(pieces))
        self.assert_refused("'is' as entry 7", "'film'", "one model")

    @parameterized.parameters(3, 5, 1)
    def test_labels_without_names_are_numbered(self, count):
        labels = tuple(map(str, range(count)))
        self.write(model(classification.Classification(labels=labels)))
        values = read_json(self.folder, CONFIG)
        for name in ("id2label", "label2id", "bert_keras"):
            del values[name]
        write_json(values | {"num_labels": count}, self.folder, CONFIG)
        task = hugging_face.read(self.folder).task
        expected = tuple(f"LABEL_{index}" for index in range(count))
        self.assertEqual(task and task.labels, expected if count > 1 else None)
        write_json(values | {"num_labels": "3"}, self.folder, CONFIG)
        self.assert_refused("num_labels", "'3'")
        ids = {"label2id": dict(zip(("x", "y", "z"), range(3), strict=True))}
        if count == 3:
            write_json(values | ids, self.folder, CONFIG)
            task = hugging_face.read(self.folder).task
            self.assertEqual(task.labels, ("x", "y", "z"))

    # What training left in the folder.

    def test_a_file_latest_does_not_make_it_a_run_of_ours(self):
        written = self.write()
        for name in ("latest", "best"):
            with open(os.path.join(self.folder, name), "w") as file:
                file.write("global_step1000")
        source = formats.read(self.folder)
        self.assertIs(formats.find(self.folder), hugging_face)
        self.assert_same_weights(written.head, loading.load_model(source).head)

    @parameterized.parameters("module.", "_orig_mod.", "module._orig_mod.")
    def test_a_wrapper_s_prefix_is_taken_off_and_the_load_says_so(self, prefix):
        written = self.write()
        self.change_tensors(
            lambda tensors: {f"{prefix}{k}": v for k, v in tensors.items()}
        )
        with self.assertWarnsRegex(UserWarning, f"begins with {prefix}"):
            self.assert_reads_back(written)

    def test_a_prefix_of_some_names_is_left(self):
        self.write()
        self.change_tensors(
            lambda tensors: {
                f"module.{k}" if k == TABLE else k: v
                for k, v in tensors.items()
            }
        )
        self.assert_refused(f"module.{TABLE}", "missing")

    def test_an_added_word_stands_at_its_id(self):
        self.write(model(vocab_size=len(tiny.VOCABULARY) + 1))
        write_json({"remake": 36}, self.folder, "added_tokens.json")
        tokenizer = hugging_face.read(self.folder).tokenizer()
        self.assertEqual(tokenizer(["a remake"]).to_list(), [[6, 36]])

    @parameterized.parameters(37, 64, 300)
    def test_a_larger_table_keeps_its_rows_and_the_load_says_so(self, rows):
        written = self.write(model(vocab_size=rows))
        with self.assertWarnsRegex(UserWarning, f"{rows} rows .* 36 entries"):
            words = hugging_face.read(self.folder).tokenizer()
        self.assertEqual(words.vocabulary[:36], tuple(tiny.VOCABULARY))
        self.assertEqual(words.vocabulary[-1], f"[unused_row{rows - 1}]")
        text = ["a good film, [unused_row36]"]
        before = tiny.tokenizer()(text).to_list()
        self.assertEqual(words(text).to_list(), before)
        self.assert_reads_back(written)

    def test_a_key_that_stands_twice_is_refused(self):
        self.write()
        path = os.path.join(self.folder, CONFIG)
        with open(path) as file:
            text = file.read()
        for again in ('"hidden_size": 16', '"id2label": {"0": "a", "0": "b"}'):
            with open(path, "w") as file:
                file.write(f"{text.rstrip()[:-1]}, {again}}}")
            self.assert_refused(CONFIG, "twice")

    @parameterized.parameters(
        "hidden_size",
        "hidden_dropout_prob",
        "layer_norm_eps",
        "num_labels",
    )
    def test_a_number_that_no_float_holds_is_refused(self, name):
        self.write()
        self.change(CONFIG, **{name: 10**400, "id2label": None})
        self.change(CONFIG, label2id=None)
        self.assert_refused(name, "10000")
        self.change(CONFIG, **{name: -(10**400)})
        self.assert_refused(name, "-10000")

    def test_an_id_that_no_memory_holds_is_refused(self):
        self.write_fast(vocabulary=False)
        vocabulary = {"[PAD]": 0, "a": (1 << 31) - 1}
        self.change(FAST, model={"type": "WordPiece", "vocab": vocabulary})
        self.assert_refused("a wordpiece for every id", "[1, 2, 3, 4, 5]")
        vocabulary["a"] = 10**400
        self.change(FAST, model={"type": "WordPiece", "vocab": vocabulary})
        self.assert_refused("expected an id", "10000")

    def test_a_size_that_only_the_configuration_has_makes_no_vocabulary(self):
        self.write()
        self.change(CONFIG, vocab_size=2_000_000_000)
        self.assert_refused("2,000,000,000", "36 rows")
        self.change(CONFIG, vocab_size=36, num_hidden_layers=9_999)
        self.assert_refused("9,999", "tensors")
        self.change(CONFIG, vocab_size=36, num_hidden_layers=1_000_000_000)
        self.assert_refused("num_layers is 1,000,000,000", "at most")

    @parameterized.parameters(35, 20)
    def test_a_table_smaller_than_the_vocabulary_is_refused(self, rows):
        self.write(model(vocab_size=rows))
        self.assert_refused("36 entries", f"{rows} rows")

    # What does not fit.

    def test_a_pickle_is_refused_with_the_way_out(self):
        self.write()
        path = os.path.join(self.folder, WEIGHTS)
        shutil.move(path, os.path.join(self.folder, "pytorch_model.bin"))
        self.assertTrue(hugging_face.recognises(self.folder))
        self.assert_refused("a pickle, which can run code", "save_pretrained")

    def test_a_published_pickle_is_refused(self):
        if not os.path.isdir(PICKLED):
            self.skipTest("hf_bert_xsmall_dummy is not in ../shared/data")
        self.folder = PICKLED
        self.assertTrue(hugging_face.recognises(PICKLED))
        self.assert_refused("pytorch_model.bin, a pickle")
        config, _ = hugging_face.configs.read(PICKLED)
        self.assertEqual((config.hidden_size, config.num_layers), (20, 1))
        words = hugging_face.tokenizers.read(
            PICKLED, rows=config.vocab_size, lowercase=None
        )
        self.assertEqual(words.vocab_size, 250)

    def test_a_cut_file_is_refused(self):
        self.write()
        path = os.path.join(self.folder, WEIGHTS)
        for size in (os.path.getsize(path) - 5, 100, 3, 0):
            os.truncate(path, size)
            self.assert_refused(WEIGHTS, "damaged or truncated")

    @parameterized.named_parameters(
        (
            "left_over",
            lambda tensors: tensors | {"bert.extra.weight": np.zeros(1)},
            ("not in the model extra.weight",),
        ),
        (
            "missing",
            lambda tensors: without("layer.1.output.dense.bias")(tensors),
            ("missing encoder.layer.1.output.dense.bias", "`allow_missing`"),
        ),
        (
            "of_another_shape",
            lambda tensors: (
                tensors
                | {"bert.encoder.layer.0.attention.self.key.weight": np.eye(15)}
            ),
            ("attention.self.key.weight", "(15, 15)", "(16, 16)"),
        ),
        (
            "quantized",
            lambda tensors: tensors | {TABLE: tensors[TABLE].astype("int8")},
            (TABLE, "I8"),
        ),
        (
            "twice",
            lambda tensors: tensors | {TABLE[5:]: tensors[TABLE]},
            ("twice", TABLE),
        ),
    )
    def test_a_tensor_stops_the_load_if(self, change, words):
        self.write()
        self.change_tensors(change)
        self.assert_refused(*words)

    def test_what_may_be_missing_starts_at_random(self):
        written = self.write()
        self.change_tensors(without("pooler"))
        self.assert_refused("missing pooler.dense.bias")
        source = hugging_face.read(self.folder, allow_missing="^pooler")
        again = loading.load_model(source)
        np.testing.assert_array_equal(
            again.encoder.token_table, written.encoder.token_table
        )
        self.assert_same_weights(written.head, again.head)

    @parameterized.parameters(
        {"model_type": "electra"},
        {"position_embedding_type": "relative_key"},
        {"add_cross_attention": True},
        {"hidden_act": "silu"},
        {"hidden_size": "wide"},
        {"num_attention_heads": None},
        {"num_attention_heads": 0},
        {"hidden_size": True},
        {"hidden_size": 16.0},
        {"max_position_embeddings": -1},
        {"type_vocab_size": "2"},
        {"hidden_dropout_prob": float("nan")},
        {"attention_probs_dropout_prob": 1.5},
        {"layer_norm_eps": 0},
        {"initializer_range": float("inf")},
        {"is_decoder": "no"},
        {"hidden_act": ["gelu"]},
        {"id2label": ["bad", "good"]},
        {"architectures": "BertForSequenceClassification"},
        {"auto_map": {"AutoModel": "modeling_mine.MyBert"}},
    )
    def test_another_network_is_named(self, **change):
        self.write()
        self.change(CONFIG, **change)
        ((name, value),) = change.items()
        self.assert_refused(name, repr(value))

    @parameterized.named_parameters(
        ("empty", "{}", "no model_type"),
        ("no_model_type", '{"hidden_size": 16}', "no model_type"),
        (
            "no_sizes",
            '{"model_type": "bert"}',
            "lacks vocab_size, hidden_size, num_hidden_layers, "
            "num_attention_heads, intermediate_size",
        ),
        ("no_object", "[1, 2]", "expected a JSON object, found list"),
        ("no_json", "{'model_type'", "cannot be read"),
        ("nothing", "", "cannot be read"),
        ("not_utf8", '{"a": "\udcff"}', "cannot be read"),
        ("deep", "[" * 100_000, "nested too deeply"),
        (
            "long_number",
            '{"hidden_size": ' + "1" * 5000 + "}",
            "cannot be read",
        ),
    )
    def test_a_configuration_is_one_line_if_it_is(self, text, word):
        self.write()
        path = os.path.join(self.folder, CONFIG)
        with open(path, "w", errors="surrogateescape") as file:
            file.write(text)
        with self.assertRaises(errors.InputError) as caught:
            predictor.load(self.folder)
        self.assertRegex(str(caught.exception), f"{path}.*{word}")
        self.assertNotIn("\n", str(caught.exception))

    def test_files_outside_of_the_folder_are_not_shards(self):
        self.write()
        path = os.path.join(self.folder, WEIGHTS)
        os.replace(path, f"{self.folder}-elsewhere.safetensors")
        for name in ("../x.safetensors", "/etc/x", "a\\b", "..", "", 3, None):
            index = {"weight_map": {"a": name}}
            write_json(index, self.folder, "model.safetensors.index.json")
            self.assert_refused("names of files beside it")

    @parameterized.parameters(
        {"norm_first": True},
        {"num_hidden_groups": 1},  # an ALBERT with other embeddings
        {"position": "sinusoidal"},
    )
    def test_what_theirs_lacks_is_not_written(self, **change):
        written = tiny.classifier(**change)
        with self.assertRaisesRegex(errors.InputError, next(iter(change))):
            self.write(written)
        self.assertEmpty(os.listdir(self.folder))

    def test_a_folder_that_holds_something_is_not_written_over(self):
        self.write()
        with self.assertRaisesRegex(errors.InputError, "already contains"):
            self.write()

    def test_our_own_folder_is_not_taken_for_theirs(self):
        step = checkpoint.save(self.folder, model(), tiny.tokenizer(), step=1)
        self.assertFalse(hugging_face.recognises(step))
        self.assertFalse(hugging_face.recognises(self.folder))


def tiny_fingerprint():
    return tiny.tokenizer().fingerprint


def without(part):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


if __name__ == "__main__":
    absltest.main()
