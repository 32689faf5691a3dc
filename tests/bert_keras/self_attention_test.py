import math

import keras
import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import checkpoint, errors, predictor, self_attention
from bert_keras import model as model_lib
from bert_keras.tasks import bidirectional_lm, masked_lm
from tests import sharp, tiny

TEXT = "the old film is [MASK] ."
TOKENS = ("[CLS]", *TEXT.split(), "[SEP]")


def make(**changes):
    task = masked_lm.MaskedLM(seq_length=32).adapt([], tiny.tokenizer())
    model = model_lib.BertModel(tiny.bert(**changes).build_encoder(), task)
    sharp.spread(model, 1)
    return predictor.Predictor(model, tiny.tokenizer())


def inputs_of_layers(model, ids, segments):
    """The states that each layer's attention reads, of the network itself."""
    encoder = model.model.encoder
    hidden = encoder(
        token_ids=np.array([ids]),
        segment_ids=np.array([segments]),
        padding_mask=np.ones((1, len(ids)), "int32"),
    )["hidden"]
    return [np.asarray(each[0], np.float64) for each in hidden[:-1]]


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def attention(x, block, *, heads, scale, causal=False):
    """softmax(Q K' / sqrt(d)) of one layer, head by head, from its weights."""
    kernel, bias = (
        np.asarray(each, np.float64)
        for each in (block.attention.qkv.kernel, block.attention.qkv.bias)
    )
    width = x.shape[1]
    # The keys' columns, before the values': those of the queries, if shared.
    keys = slice(kernel.shape[1] - 2 * width, kernel.shape[1] - width)
    size = width // heads
    result = []
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        query = x @ kernel[:, :width][:, columns] + bias[:width][columns]
        key = x @ kernel[:, keys][:, columns] + bias[keys][columns]
        scores = query @ key.T / (math.sqrt(size) if scale else 1)
        if causal:
            scores[np.triu_indices(len(x), 1)] = -np.inf
        result.append(softmax(scores))
    return np.array(result)


def layer_norm(x, norm, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
    return scaled * np.asarray(norm.gamma) + np.asarray(norm.beta)


def entropy(weights):
    values = [
        -sum(p * math.log(p) for p in row if p > 0)
        for row in weights.reshape(-1, weights.shape[-1])
    ]
    return np.reshape(values, weights.shape[:-1]).mean(axis=-1)


class SelfAttentionTest(parameterized.TestCase):
    @parameterized.parameters(
        {},
        {"norm_first": True},
        {"causal": True},
        {"num_hidden_groups": 1},
        {"shared_query_key": True},
    )
    def test_weights_and_entropies_are_those_of_numpy(self, **changes):
        model = make(num_layers=3, **changes)
        found = self_attention.self_attention(model, TEXT, "not new")
        self.assertEqual(found.tokens, (*TOKENS, "not", "new", "[SEP]"))
        self.assertEqual(found.segments, (0,) * 8 + (1,) * 3)
        ids = [tiny.VOCABULARY.index(token) for token in found.tokens]
        encoder = model.model.encoder
        for layer, x in enumerate(inputs_of_layers(model, ids, found.segments)):
            block = encoder.blocks[layer]
            if changes.get("norm_first"):
                x = layer_norm(
                    x, block.attention_norm, encoder.config.layer_norm_epsilon
                )
            scaled, unscaled = (
                attention(
                    x,
                    block,
                    heads=2,
                    scale=scale,
                    causal="causal" in changes,
                )
                for scale in (True, False)
            )
            np.testing.assert_allclose(found.weights[layer], scaled, atol=1e-5)
            np.testing.assert_allclose(
                found.entropy[layer], entropy(scaled), atol=1e-5
            )
            np.testing.assert_allclose(
                found.unscaled_entropy[layer], entropy(unscaled), atol=1e-5
            )
        self.assertEqual(found.head_width, 8)

    def test_equal_weights_have_the_entropy_of_the_logarithm(self):
        model = make()
        for block in model.model.encoder.blocks:
            block.attention.qkv.kernel.assign(0 * block.attention.qkv.kernel)
        found = self_attention.self_attention(model, TEXT)
        for each in (found.entropy, found.unscaled_entropy):
            np.testing.assert_allclose(each, math.log(8), atol=1e-6)

    @parameterized.parameters({}, {"norm_first": True})
    def test_the_last_layer_predicts_what_predict_does(self, **changes):
        model = make(**changes)
        found = self_attention.self_attention(model, TEXT, top_k=3)
        (mask,) = found.masks
        (answer,) = model.predict([TEXT])
        self.assertEqual(found.tokens[mask.position], "[MASK]")
        self.assertEqual(mask.tokens[-1][0], answer["token"][0])
        self.assertAlmostEqual(
            float(mask.probabilities[-1, 0]), answer["score"][0], places=5
        )
        self.assertEqual(mask.probabilities.shape, (3, 3))

    def test_each_layer_is_sent_through_the_head(self):
        model = make()
        found = self_attention.self_attention(model, TEXT, top_k=2)
        ids = [tiny.VOCABULARY.index(token) for token in TOKENS]
        states = inputs_of_layers(model, ids, [0] * 8)
        head = model.model.head.by_name()["masked_lm"]
        table = np.asarray(model.model.encoder.token_table)
        epsilon = model.model.encoder.config.layer_norm_epsilon
        for layer, hidden in enumerate(states):
            x = hidden[5] @ np.asarray(head.transform.kernel)
            x = keras.activations.gelu(x + np.asarray(head.transform.bias))
            x = layer_norm(np.asarray(x), head.norm, epsilon)
            expected = softmax(x @ table.T + np.asarray(head.bias))
            best = np.argsort(-expected)[:2]
            self.assertEqual(
                found.masks[0].tokens[layer],
                tuple(tiny.VOCABULARY[each] for each in best),
            )
            np.testing.assert_allclose(
                found.masks[0].probabilities[layer], expected[best], atol=1e-5
            )

    def test_a_checkpoint_is_read_with_its_head_or_without(self):
        folder = self.create_tempdir().full_path
        for name, model, has_head in (
            ("lm", make(), True),
            ("classifier", sharp.make("classification"), False),
        ):
            path = f"{folder}/{name}"
            checkpoint.save(path, model.model, tiny.tokenizer(), step=0)
            found = self_attention.self_attention(
                self_attention.load(path), TEXT
            )
            self.assertEqual(found.has_masked_lm, has_head)
            self.assertLen(found.masks, int(has_head))

    def test_other_networks_are_refused_in_one_line(self):
        task = bidirectional_lm.BidirectionalLM(seq_length=16)
        task = task.adapt([], tiny.characters())
        model = model_lib.BertModel(tiny.elmo().build_encoder(), task)
        elmo = predictor.Predictor(model, tiny.characters())
        with self.assertRaisesRegex(
            errors.InputError, "^expected a BERT network.*this one is elmo.$"
        ):
            self_attention.self_attention(elmo, "a film")

    @parameterized.parameters(
        ((" ",), "text: expected a text with at least one token"),
        (("a film", ""), "text_pair: expected a text with at least one"),
        (("film " * 63,), "65 tokens, special tokens included, .* for 64"),
    )
    def test_texts_are_refused_rather_than_truncated(self, texts, expected):
        with self.assertRaisesRegex(errors.InputError, expected):
            self_attention.self_attention(make(), *texts)

    def test_a_pair_needs_two_segments(self):
        with self.assertRaisesRegex(errors.InputError, "two segments"):
            self_attention.self_attention(make(num_segments=1), "a", "film")

    def test_damaged_weights_are_refused(self):
        model = make()
        kernel = model.model.encoder.blocks[0].attention.qkv.kernel
        kernel.assign(np.nan * kernel)
        with self.assertRaisesRegex(errors.InputError, "weights are damaged"):
            self_attention.self_attention(model, TEXT)


if __name__ == "__main__":
    absltest.main()
