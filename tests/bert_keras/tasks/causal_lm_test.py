"""Causal language model: its loss, and the texts that it continues."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

import bert_keras
from bert_keras import checkpoint, errors, layers, predictor
from bert_keras import model as model_lib
from bert_keras.data import records
from bert_keras.networks import bert
from bert_keras.tasks import causal_lm
from bert_keras.tokenizers import base as tokenizers
from tests import beam_reference, sharp, tiny

TEXTS = ["the film is", "", "很 好 电影 !", "a dull old story with a plot", "a"]
SIZE = len(tiny.VOCABULARY)
LONG = "a very good old film is not a dull story " * 9


def make(config=None, *, weights=1, **settings):
    config = config or tiny.bert(**bert.GPT)
    task = causal_lm.CausalLM(seq_length=32, **settings)
    model = model_lib.BertModel(config, task.adapt([], tiny.tokenizer()))
    sharp.spread(model, weights)
    return predictor.Predictor(model, tiny.tokenizer())


def batch(rows=4, length=12):
    """Features of one segment: row r has r padding tokens at its end."""
    inputs = tiny.inputs(rows, length)
    return {name: inputs[name] for name in ("token_ids", "padding_mask")}


def prompt_of(model, text):
    features = model.task.preprocess(
        {"text": tf.constant([text])}, model.tokenizer
    )
    return features["token_ids"].numpy()[features["padding_mask"] > 0].tolist()


def next_logits(model, ids):
    """The logits (V,) after ids, of the whole network."""
    row = tf.constant([ids])
    logits = model.model({"token_ids": row, "padding_mask": tf.ones_like(row)})
    return logits["causal_lm"][0, -1].numpy().astype(np.float64)


def uncached(model, text, count):
    """Continues a text by running the whole network for every token."""
    ids = prompt_of(model, text)
    start = len(ids)
    while len(ids) < start + count:
        ids.append(int(np.argmax(next_logits(model, ids))))
        if ids[-1] == model.task.end_id:
            return ids[start:-1], True
    return ids[start:], False


def uncached_beams(model, text, beams, **rules):
    """Searches by running the whole network for every token."""
    prompt = prompt_of(model, text)

    def log_probs(ids):
        logits = next_logits(model, prompt + ids)
        return logits - np.log(np.exp(logits).sum())

    rules = beam_reference.Rules(end_id=model.task.end_id, **rules)
    return beam_reference.search(
        log_probs, lambda ids: np.zeros(0), rules, beams
    )


class LossTest(parameterized.TestCase):
    def test_it_is_the_mean_over_the_next_tokens_of_all_rows(self):
        model, features = make(), batch()
        targets = model.task.randomize(features, {}, None)[1]
        outputs = model.model(features)
        logits = outputs["causal_lm"].numpy().astype(np.float64)
        ids, mask = (features[name].numpy() for name in features)
        total = count = right = 0
        for row, real in enumerate(mask.sum(axis=1)):
            for position in range(real - 1):
                scores = logits[row, position]
                label = ids[row, position + 1]
                total += np.log(np.exp(scores).sum()) - scores[label]
                right += np.argmax(scores) == label
                count += 1
        loss = model.task.loss(outputs, features, targets)["causal_lm"]
        weights = targets["causal_lm"][1]
        self.assertEqual(float(tf.reduce_sum(weights)), count)
        np.testing.assert_allclose(loss, total, rtol=1e-6)
        sums = model.task.metric_sums(outputs, features, targets)
        np.testing.assert_array_equal(
            sums["causal_lm_accuracy"], [right, count]
        )

    def test_packed_texts_do_not_predict_each_other(self):
        features = batch(1, 6)
        mask = tf.constant([[1, 1, 1, 2, 2, 0]])
        _, targets = make().task.randomize(
            features | {"padding_mask": mask}, {}, None
        )
        np.testing.assert_array_equal(
            targets["causal_lm"][1], [[1, 1, 0, 1, 0, 0]]
        )

    def test_perplexity_is_exp_of_the_mean(self):
        metrics = make().task.summarize({"loss/causal_lm": np.log(80.0)})
        self.assertAlmostEqual(metrics["perplexity"], 80.0)
        metrics = make().task.summarize({"loss/causal_lm": 1e4})
        self.assertEqual(metrics["perplexity"], np.inf)

    @parameterized.parameters(
        {},
        {"norm_first": True},
        {"position": "sinusoidal"},
        {"num_segments": 2},
    )
    def test_later_tokens_change_no_earlier_logits(self, **changes):
        model = make(tiny.bert(**bert.GPT | changes)).model
        features = batch(3, 12)
        if changes.get("num_segments"):
            features["segment_ids"] = tf.zeros_like(features["token_ids"])
        features["padding_mask"] = tf.ones_like(features["token_ids"])
        ids = features["token_ids"].numpy()
        ids[:, 7:] = ids[:, 7:] % 20 + 6
        one = model(features)["causal_lm"]
        two = model(features | {"token_ids": tf.constant(ids)})["causal_lm"]
        np.testing.assert_array_equal(one[:, :7], two[:, :7])
        self.assertGreater(np.abs(one[:, 7:] - two[:, 7:]).max(), 0.01)

    def test_bfloat16_logits_are_float32_and_near(self):
        model = make()
        with layers.global_policy("mixed_bfloat16"):
            half = model_lib.BertModel(model.model.encoder.config, model.task)
        half.set_weights(model.model.get_weights())
        features = batch()
        want = model.model(features)["causal_lm"]
        got = half(features)["causal_lm"]
        self.assertEqual(got.dtype, tf.float32)
        self.assertLess(np.abs(got - want).max(), 0.1 * np.std(want))

    def test_a_network_that_reads_the_answer_is_refused(self):
        with self.assertRaisesRegex(errors.InputError, "read the answer"):
            make(tiny.bert())

    def test_factorised_embeddings_have_a_projection(self):
        model = make(tiny.bert(**bert.GPT, embedding_size=8)).model
        self.assertIn(
            "project/kernel",
            {v.path.split("causal_lm/")[-1] for v in model.head.weights},
        )
        self.assertEqual(model(batch())["causal_lm"].shape[-1], SIZE)


class RecordsTest(parameterized.TestCase):
    MANIFEST = {"seq_length": 64, "objective": "none", "packing": "full"}

    def test_fields_come_from_the_manifest(self):
        task = causal_lm.CausalLM().for_records(self.MANIFEST)
        self.assertEqual((task.seq_length, task.packing), (64, "full"))
        framed = {"seq_length": 64, "objective": "none"}
        task = causal_lm.CausalLM().for_records(framed)
        self.assertEqual(task.packing, "segments")

    @parameterized.parameters(
        ({"objective": "nsp"}, "pairs of sentences"),
        ({"format": records.GOOGLE}, "have masks"),
    )
    def test_other_records_are_refused(self, changes, words):
        with self.assertRaisesRegex(errors.InputError, words):
            causal_lm.CausalLM().for_records(self.MANIFEST | changes)


class ContinueTest(parameterized.TestCase):
    @parameterized.parameters(1, 2, 3, 4)
    @pytest.mark.slow_after(2)
    def test_greedy_tokens_are_those_without_a_cache(self, weights):
        model = make(weights=weights, max_new_tokens=10)
        for text, answer in zip(TEXTS, model.predict(TEXTS), strict=True):
            ids, ended = uncached(model, text, 10)
            self.assertEqual(answer["tokens"], model.tokenizer.tokens(ids))
            self.assertEqual(answer["ended"], ended)

    @parameterized.parameters(
        {},
        {"do_sample": True},
        {"top_p": 0.9, "seed": 5},
        {"top_k": 4, "temperature": 1.5},
        {"num_beams": 3, "length_penalty": 0.0},
    )
    @pytest.mark.slow_after(1)
    def test_an_answer_does_not_depend_on_the_batch(self, **settings):
        model = make(**settings)
        texts = [*TEXTS, *reversed(TEXTS), LONG]
        together = model.predict(texts, batch_size=4)
        for text, answer in zip(texts, together, strict=True):
            self.assertEqual(model.predict(text), [answer])

    @pytest.mark.slow
    def test_the_seed_and_the_text_choose_the_answer(self):
        one = make(do_sample=True, seed=1).predict(TEXTS)
        self.assertEqual(one, make(do_sample=True, seed=1).predict(TEXTS))
        two = make(do_sample=True, seed=2).predict(TEXTS)
        for first, second in zip(one, two, strict=True):
            self.assertNotEqual(first["tokens"], second["tokens"])
        self.assertLen({tuple(a["tokens"]) for a in one}, len(TEXTS))

    def test_the_end_of_a_long_text_is_kept(self):
        model = make(max_new_tokens=8)
        answer, short = model.predict([LONG, TEXTS[0]])
        self.assertTrue(answer["truncated"])
        self.assertFalse(short["truncated"])
        words = LONG.split()
        features = model.task.preprocess(
            {"text": tf.constant([LONG])}, model.tokenizer
        )
        self.assertEqual(
            model.tokenizer.tokens(features["token_ids"][0].numpy()),
            words[-24:],
        )
        (last,) = model.predict(" ".join(words[-24:]))
        self.assertEqual(answer["tokens"], last["tokens"])
        self.assertFalse(last["truncated"])

    def test_an_empty_text_begins_after_the_end_of_another(self):
        model = make()
        features = model.task.preprocess(
            {"text": tf.constant(["", "a"])}, model.tokenizer
        )
        ids = features["token_ids"].numpy()
        self.assertEqual(ids[0, 0], model.tokenizer.end_id)
        self.assertEqual(ids[1].tolist(), [tiny.VOCABULARY.index("a"), 0])
        none = dataclasses.replace(model.task, end_id=None)
        features = none.preprocess({"text": tf.constant([""])}, model.tokenizer)
        self.assertEqual(
            features["token_ids"].numpy()[0, 0], model.tokenizer.unk_id
        )

    def test_rows_with_a_frame_begin_with_its_start(self):
        model = make(packing="segments", max_new_tokens=4)
        features = model.task.preprocess(
            {"text": tf.constant(["a film", LONG])}, model.tokenizer
        )
        ids = features["token_ids"].numpy()
        np.testing.assert_array_equal(ids[:, 0], model.tokenizer.cls_id)
        self.assertNotIn(model.tokenizer.sep_id, ids)
        self.assertEqual(ids.shape[1], 28)

    def test_text_and_continuation_join(self):
        model = make()
        tokenizer = model.tokenizer
        for text, new, want in (
            ("the film", ["##s", "is", "old"], "s is old"),
            ("the film", ["is", "old", "."], " is old ."),
            ("很", ["好", "film"], "好film"),
            ("", ["a", "film"], "a film"),
        ):
            ids = tf.ragged.constant(
                [[tiny.VOCABULARY.index(t) for t in new]], dtype=tf.int32
            )
            got = causal_lm._continuation(tokenizer, tokenizer([text]), ids)
            self.assertEqual(got.numpy()[0].decode(), want)
            complete = tf.concat([tokenizer([text]), ids], axis=1)
            self.assertEqual(
                text + want, tokenizer.detokenize(complete).numpy()[0].decode()
            )

    def test_half_a_character_is_marked(self):
        class Bytes(tokenizers.Tokenizer):
            """Each byte is a token; only what is needed here."""

            def detokenize(self, ids):
                table = tf.constant([bytes([i]) for i in range(256)])
                values = tf.gather(table, ids.values)
                return tf.strings.reduce_join(ids.with_values(values), axis=-1)

        prompt, new = "电", "影好".encode()[:-1]
        got = causal_lm._continuation(
            Bytes(),
            tf.ragged.constant([list(prompt.encode())], dtype=tf.int32),
            tf.ragged.constant([list(new)], dtype=tf.int32),
        )
        self.assertEqual(got.numpy()[0].decode(), "影\ufffd")

    @parameterized.parameters({}, {"do_sample": True}, {"num_beams": 2})
    @pytest.mark.slow_after(1)
    def test_damaged_weights_continue_no_text(self, **settings):
        model = make(max_new_tokens=2, **settings)
        weight = model.model.encoder.blocks[-1].weights[0]
        weight.assign(weight * np.nan)
        with self.assertRaisesRegex(errors.InputError, "weights are damaged"):
            model.predict("a film")

    def test_without_new_tokens_the_next_one_is_scored(self):
        model = make(max_new_tokens=0)
        for text, answer in zip(TEXTS, model.predict(TEXTS), strict=True):
            ids, _ = uncached(make(), text, 1)
            if ids:
                self.assertEqual(
                    answer["token"], model.tokenizer.tokens(ids)[0]
                )
            self.assertBetween(answer["score"], 1 / SIZE, 1.0)


class SearchTest(parameterized.TestCase):
    @parameterized.parameters(
        (2, {}),
        (3, {"length_penalty": 0.0, "no_repeat_ngram_size": 1}),
    )
    @pytest.mark.slow_after(1)
    def test_texts_are_those_of_plain_python(self, beams, settings):
        texts = TEXTS[:3]
        model = make(
            max_new_tokens=4,
            num_beams=beams,
            num_return_sequences=beams,
            **settings,
        )
        rules = {"length_penalty": 1.0} | settings
        for text, answer in zip(texts, model.predict(texts), strict=True):
            want = uncached_beams(model, text, beams, limit=4, **rules)
            self.assertLen(answer["texts"], beams)
            np.testing.assert_allclose(
                answer["scores"], [each.score for each in want], rtol=1e-4
            )
            self.assertEqual(
                answer["tokens"], model.tokenizer.tokens(want[0].ids)
            )
            self.assertEqual(answer["ended"], want[0].ended)
            prompt = tf.ragged.constant([prompt_of(model, text)], tf.int32)
            for got, each in zip(answer["texts"], want, strict=True):
                new = tf.RaggedTensor.from_row_lengths(
                    tf.constant(each.ids, tf.int32), [len(each.ids)]
                )
                continuation = causal_lm._continuation(
                    model.tokenizer, prompt, new
                )
                self.assertEqual(got, continuation.numpy()[0].decode())
            self.assertEqual(answer["text"], answer["texts"][0])

    @pytest.mark.slow
    def test_several_texts_have_their_own_beams(self):
        settings = {"num_beams": 3, "max_new_tokens": 6}
        model = make(num_return_sequences=2, **settings)
        together = model.predict(TEXTS)
        for text, answer in zip(
            make(**settings).predict(TEXTS), together, strict=True
        ):
            self.assertEqual(
                answer, text | {k: answer[k] for k in ("texts", "scores")}
            )
        for text, answer in zip(TEXTS, together, strict=True):
            (alone,) = model.predict(text)
            self.assertEqual(alone["texts"], answer["texts"])
            np.testing.assert_allclose(
                alone["scores"], answer["scores"], rtol=1e-5
            )
            self.assertLess(answer["scores"][1], answer["scores"][0])
        self.assertEqual(model.predict([]), [])

    def test_tokens_are_constrained(self):
        for settings in ({"do_sample": True}, {"num_beams": 2}):
            model = make(
                max_new_tokens=20,
                min_new_tokens=20,
                no_repeat_ngram_size=1,
                **settings,
            )
            for answer in model.predict(TEXTS):
                self.assertLen(answer["tokens"], 20)
                self.assertLen(set(answer["tokens"]), 20)

    @pytest.mark.slow
    def test_a_request_may_limit_the_tokens(self):
        model = make(num_beams=3, num_return_sequences=3, max_new_tokens=5)
        self.assertEqual(
            model.task.request_settings, {"max_new_tokens": "int32"}
        )
        self.assertIn("top_p", make(num_beams=1).task.request_settings)
        answers = model.serve_text(
            text=tf.constant([TEXTS[0]] * 3),
            max_new_tokens=tf.constant([0, 2, 9]),
        )
        empty, two, five = predictor.rows_of(model.task, answers)
        self.assertEqual(empty["texts"], [""])
        self.assertEqual(empty["scores"], [0.0])
        self.assertTrue(np.all(np.isfinite(answers["scores"])))
        self.assertLen(two["texts"], 3)
        self.assertLessEqual(len(two["tokens"]), 2)
        self.assertEqual(five["texts"], model.predict(TEXTS[0])[0]["texts"])

    def test_beams_share_the_memory_of_a_pass(self):
        self.assertEqual(causal_lm.CausalLM().copies_per_row, 1)
        self.assertEqual(causal_lm.CausalLM(num_beams=5).copies_per_row, 5)

    def test_on_a_device_there_is_no_search(self):
        task = causal_lm.CausalLM(
            seq_length=32,
            num_beams=4,
            num_return_sequences=4,
            length_penalty=0.5,
            min_new_tokens=3,
        )
        self.assertEqual(
            task.for_device(),
            causal_lm.CausalLM(seq_length=32, max_new_tokens=0),
        )


class SettingsTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"max_new_tokens": 32}, "less than the 32"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0.5}, "top_k is 0.5"),
        ({"do_sample": False, "top_p": 0.5}, "no effect with do_sample=False"),
        ({"num_beams": 4, "top_p": 0.5}, "top_p=0.5 has no effect with num_b"),
        ({"num_return_sequences": 2}, "at most 1, the value of `num_beams`"),
        ({"min_new_tokens": 17}, "at most 16, the value of `max_new_tokens`"),
    )
    def test_invalid_ones_are_refused_by_name(self, settings, words):
        with self.assertRaisesRegex(errors.InputError, words):
            causal_lm.CausalLM(seq_length=32, **settings)

    def test_any_setting_of_samples_turns_sampling_on(self):
        self.assertFalse(causal_lm.CausalLM().samples)
        for settings in ({"top_p": 0.9}, {"seed": 0}, {"do_sample": True}):
            self.assertTrue(causal_lm.CausalLM(**settings).samples)
        self.assertFalse(causal_lm.CausalLM(do_sample=False).samples)

    def test_a_checkpoint_is_loaded_with_other_settings(self):
        folder, model = self.create_tempdir().full_path, make()
        checkpoint.save(folder, model.model, model.tokenizer, step=0)
        settings = {"max_new_tokens": 5, "top_p": 0.9, "seed": 3}
        again = bert_keras.load(folder, settings=settings)
        self.assertEqual(again.predict(TEXTS), make(**settings).predict(TEXTS))
        self.assertEqual(
            bert_keras.load(folder).predict(TEXTS), model.predict(TEXTS)
        )

    def test_other_tasks_refuse_them(self):
        folder = self.create_tempdir().full_path
        model = sharp.make("classification")
        checkpoint.save(folder, model.model, model.tokenizer, step=0)
        with self.assertRaisesRegex(
            errors.InputError, "`top_p` is no setting of .* .classification"
        ):
            bert_keras.load(folder, settings={"top_p": 0.9})

    @pytest.mark.slow
    def test_a_request_may_have_settings_of_its_own(self):
        model = make(max_new_tokens=8)
        each = (
            {"max_new_tokens": 8, "temperature": 0.0, "top_k": 0},
            {"max_new_tokens": 3, "temperature": 0.0, "top_k": 0},
            {"max_new_tokens": 8, "temperature": 1.0, "top_k": 3},
            {"max_new_tokens": 8, "temperature": 2.0, "top_k": 0},
        )
        text = TEXTS[3]
        answers = model.serve_text(
            text=tf.constant([text] * 4),
            top_p=tf.ones(4),
            seed=tf.constant([4] * 4),
            **{name: tf.constant([e[name] for e in each]) for name in each[0]},
        )
        for row, settings in enumerate(each):
            (want,) = make(**settings, seed=4).predict(text)
            got = [t.decode() for t in answers["tokens"][row].numpy() if t]
            self.assertEqual(got, want["tokens"])


if __name__ == "__main__":
    absltest.main()
