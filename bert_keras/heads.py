"""Task heads: the small output layers on top of the encoder.

Like the encoder's layers, heads are built from the configuration alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from bert_keras import errors, kernels, layers
from bert_keras.networks import base
from bert_keras.types import Shape, Tensor

# The logit of a class that an example does not have, as of an absent choice.
ABSENT_SCORE = layers.MASKED_SCORE


class MaskedLMHead(keras.layers.Layer):
    """Scores the vocabulary at the masked positions (BERT, 3.1, task 1).

    hidden (B, S, H), positions (B, P) int32, table (V, E) -> logits
    (B, P, V), float32. `table` is the token embeddings. Positions after the
    last mask are padding: their loss has weight 0. If positions is None,
    hidden is (B, P, H) and contains the masked positions only.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.transform = layers.dense(
            config,
            config.embedding_width,
            name="transform",
            dtype=self.dtype_policy,
        )
        self.activation = layers.ungated(config)
        self.norm = layers.layer_norm(
            config, name="norm", dtype=self.dtype_policy
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.transform.build((None, self.config.hidden_size))
        self.norm.build((None, self.config.embedding_width))
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            dtype="float32",  # also under the policy bfloat16
            autocast=False,
        )
        self.built = True

    def call(
        self,
        hidden: Tensor,
        positions: Tensor | None,
        table: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        if positions is not None:
            hidden = layers.gather(hidden, positions)
        x = self.transform(layers.rows(hidden))
        x = self.norm(self.activation(x, training=training))  # (B P, E)
        table = ops.cast(table, self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        logits = logits + self.bias
        shape = (*ops.shape(hidden)[:2], self.config.vocab_size)
        return ops.reshape(logits, shape)


class SpanBoundaryHead(keras.layers.Layer):
    """Scores masked tokens by the two tokens around their span (SpanBERT, 3.2).

    hidden (B, S, H), positions (B, P) int32, table (V, E) -> logits (B, P, V),
    float32. A span is a run of masked positions; position 0 is never masked and
    stands for padding. With x the hidden states, s to e the span and p an
    embedding of the place in it, token i is scored from

      h0 = [x_(s-1); x_(e+1); p_(i-s+1)],  h1 = LayerNorm(GeLU(W1 h0)),
      y = LayerNorm(GeLU(W2 h1))           (Joshi et al. 2020, equation 2)

    by the token embeddings and a bias. Places from the _PLACES-th share one
    embedding.
    """

    _PLACES = 20

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        width, dtype = config.embedding_width, self.dtype_policy
        self.activation = layers.Activation("gelu")
        self.inner = layers.dense(
            config, config.hidden_size, name="inner", dtype=dtype
        )
        self.inner_norm = layers.layer_norm(
            config, name="inner_norm", dtype=dtype
        )
        self.transform = layers.dense(
            config, width, name="transform", dtype=dtype
        )
        self.norm = layers.layer_norm(config, name="norm", dtype=dtype)

    def build(self, input_shape: Shape | None = None) -> None:
        width, hidden = self.config.embedding_width, self.config.hidden_size
        self.place = self.add_weight(
            name="place",
            shape=(self._PLACES, width),
            initializer=layers.initializer(self.config),
            dtype="float32",
            autocast=False,
        )
        self.inner.build((None, 2 * hidden + width))
        self.inner_norm.build((None, hidden))
        self.transform.build((None, hidden))
        self.norm.build((None, width))
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(
        self,
        hidden: Tensor,
        positions: Tensor,
        table: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        before, after = span_boundaries(positions, ops.shape(hidden)[1])
        place = ops.minimum(positions - before, self._PLACES) - 1
        place = ops.take(self.place, ops.maximum(place, 0), axis=0)
        x = ops.concatenate(
            [
                layers.gather(hidden, before),
                layers.gather(hidden, after),
                ops.cast(place, hidden.dtype),
            ],
            axis=-1,
        )
        x = self.inner(layers.rows(x))
        x = self.inner_norm(self.activation(x, training=training))
        x = self.transform(x)
        x = self.norm(self.activation(x, training=training))
        table = ops.cast(table, self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        shape = (*ops.shape(positions), self.config.vocab_size)
        return ops.reshape(logits + self.bias, shape)


def span_boundaries(
    positions: Tensor, length: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the positions before and after each position's run.

    positions (B, P) int32, 0 at padding -> (B, P) twice, from 0 to length - 1.
    In a row of 8 tokens [2, 3, 6] gives [1, 1, 5] and [4, 4, 7].
    """
    index = ops.arange(length, dtype="int32")
    at = ops.expand_dims(positions, -1)  # (B, P, 1)
    is_chosen = ops.any(ops.equal(at, index), axis=1) & (index > 0)  # (B, S)
    is_open = ops.expand_dims(ops.logical_not(is_chosen), 1)  # (B, 1, S)
    before = ops.where(is_open & (index < at), index, 0)
    after = ops.where(is_open & (index > at), index, length - 1)
    return ops.max(before, axis=-1), ops.min(after, axis=-1)


class TokenDetectionHead(keras.layers.Layer):
    """Scores each token as changed (Clark et al. 2020, section 2).

    hidden (B, S, H) -> logits (B, S), float32: a dense layer with the network's
    activation, and one with a single output, as in ELECTRA's code.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.transform = layers.dense(
            config,
            config.hidden_size,
            name="transform",
            dtype=self.dtype_policy,
        )
        self.activation = layers.ungated(config)
        self.score = layers.dense(config, 1, name="score", dtype="float32")

    def build(self, input_shape: Shape | None = None) -> None:
        self.transform.build((None, self.config.hidden_size))
        self.score.build((None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor, training: bool | None = None) -> Tensor:
        x = self.transform(layers.rows(hidden))
        logits = self.score(self.activation(x, training=training))
        return ops.reshape(logits, ops.shape(hidden)[:2])


class PositionHead(keras.layers.Layer):
    """Selects a position of the row for each place (Cui et al. 2022, 3.3).

    hidden (B, S, H), positions (B, P) int32, padding_mask (B, S) -> logits
    (B, P, S), float32; of all places if positions is None. Dot products of
    normalised, transformed states with all states, times 1/sqrt(H), which the
    paper's have not; ABSENT_SCORE at padding.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.transform = layers.dense(
            config,
            config.hidden_size,
            name="transform",
            dtype=self.dtype_policy,
        )
        self.activation = layers.ungated(config)
        self.norm = layers.layer_norm(
            config, name="norm", dtype=self.dtype_policy
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.transform.build((None, self.config.hidden_size))
        self.norm.build((None, self.config.hidden_size))
        self.built = True

    def call(
        self,
        hidden: Tensor,
        positions: Tensor | None,
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        places = hidden
        if positions is not None:
            places = layers.gather(hidden, positions)
        x = self.transform(layers.rows(places))
        x = self.norm(self.activation(x, training=training))
        x = ops.reshape(x, ops.shape(places)) * self.config.hidden_size**-0.5
        logits = ops.matmul(x, ops.transpose(hidden, (0, 2, 1)))
        is_token = ops.expand_dims(padding_mask > 0, 1)
        return ops.where(is_token, ops.cast(logits, "float32"), ABSENT_SCORE)


class StateProjections(keras.layers.Layer):
    """Makes hidden states as wide as a teacher's (Jiao et al. 2020, 3.1).

    L + 1 tensors (B, S, H), the embeddings first -> as many (B, S, width). A
    matrix without bias is for the embeddings and one for all layers, as in
    equations 8 and 9; none if the widths are equal.
    """

    def __init__(self, config: base.NetworkConfig, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.dense = [
            layers.dense(config, width, name=name, use_bias=False)
            for name in ("embeddings", "layers")
            if width != config.hidden_size
        ]

    def build(self, input_shape: Shape | None = None) -> None:
        for dense in self.dense:
            dense.build((None, None, self.config.hidden_size))
        self.built = True

    def call(
        self, hidden: Sequence[Tensor], training: bool | None = None
    ) -> list[Tensor]:
        if not self.dense:
            return list(hidden)
        of_embeddings, of_layers = self.dense
        first, *others = hidden
        return [of_embeddings(first), *map(of_layers, others)]


class CausalLMHead(keras.layers.Layer):
    """Scores the vocabulary as the next token (Radford et al. 2018, eq. 2).

    hidden (B, S, H), table (V, E) -> logits (B, S, V), float32. `table` is the
    token embeddings. There is neither a transform nor a bias; if E is not H, a
    dense layer without an activation makes the widths equal.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.project = None
        if config.embedding_width != config.hidden_size:
            self.project = layers.dense(
                config,
                config.embedding_width,
                name="project",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape: Shape | None = None) -> None:
        if self.project:
            self.project.build((None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor, table: Tensor) -> Tensor:
        x = layers.rows(hidden)
        if self.project:
            x = self.project(x)
        table = ops.cast(table, self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        shape = (*ops.shape(hidden)[:2], self.config.vocab_size)
        return ops.reshape(logits, shape)


class NextSentenceHead(keras.layers.Layer):
    """Scores the classes of a pair of segments (BERT, 3.1, task 2).

    pooled (B, H) -> logits (B, C), float32. Of 2 classes, 0 = the second
    segment follows the first, 1 = it does not, as in Google's checkpoints.
    Sentence-order prediction uses the same head (ALBERT, 3.1).
    """

    def __init__(
        self, config: base.NetworkConfig, num_classes: int = 2, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config = config
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled: Tensor) -> Tensor:
        return self.score(pooled)


class BidirectionalLMHead(keras.layers.Layer):
    """Scores the words of a vocabulary (Peters et al. 2018, section 3.1).

    states (B, S, H / 2) of one direction -> logits (B, S, V), float32. Both
    directions share its weights.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape: Shape | None = None) -> None:
        width = self.config.hidden_size // 2
        self.table = self.add_weight(
            name="table",
            shape=(self.config.vocab_size, width),
            initializer=layers.unless_loaded(
                keras.initializers.RandomNormal(stddev=width**-0.5)
            ),
            dtype="float32",
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.config.vocab_size,),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, states: Tensor) -> Tensor:
        table = ops.cast(self.table, self.compute_dtype)
        x = ops.cast(layers.rows(states), self.compute_dtype)
        logits = ops.cast(kernels.matmul_transposed(x, table), "float32")
        shape = (*ops.shape(states)[:2], self.config.vocab_size)
        return ops.reshape(logits + self.bias, shape)

    def score_some(
        self, states: Tensor, labels: Tensor, sampled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores the labels, and words that each row has sampled.

        states (B, S, H / 2), labels (B, S), sampled (B, K) int32 ->
        (B, S), (B, S, K), float32.
        """
        states = ops.cast(states, "float32")
        table, bias = (
            ops.convert_to_tensor(weight) for weight in (self.table, self.bias)
        )
        right = ops.sum(states * ops.take(table, labels, axis=0), axis=-1)
        others = ops.take(table, sampled, axis=0)  # (B, K, H / 2)
        wrong = ops.matmul(states, ops.transpose(others, (0, 2, 1)))
        return (
            right + ops.take(bias, labels),
            wrong + ops.expand_dims(ops.take(bias, sampled), 1),
        )


class LayerMix(keras.layers.Layer):
    """gamma * sum_j softmax(w)_j h_j (Peters et al. 2018, equation 1).

    hidden: tensors (B, S, H), of which those at `indices` are mixed
    -> (B, S, H). With layer_norm each is normalised first, token by token,
    without weights.
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        indices: Sequence[int],
        *,
        layer_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.indices = tuple(indices)
        self.width = config.hidden_size
        self.epsilon = config.layer_norm_epsilon
        self.layer_norm = layer_norm

    def build(self, input_shape: Shape | None = None) -> None:
        # Named as biases, which have no weight decay.
        self.layer_bias = self.add_weight(
            name="layer_bias",
            shape=(len(self.indices),),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.gamma = self.add_weight(
            name="gamma",
            shape=(),
            initializer="ones",
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, hidden: Sequence[Tensor]) -> Tensor:
        weights = ops.convert_to_tensor(self.layer_bias)
        # A softmax, of which Keras' warns if there is one layer.
        shares = ops.exp(weights - ops.logsumexp(weights))
        total = 0.0
        for number, index in enumerate(self.indices):
            x = ops.cast(hidden[index], "float32")
            if self.layer_norm:
                ones, zeros = ops.ones(self.width), ops.zeros(self.width)
                x = kernels.layer_norm(x, ones, zeros, self.epsilon)
            total = total + shares[number] * x
        return ops.cast(total * self.gamma, self.compute_dtype)


def pool(
    hidden: Tensor, padding_mask: Tensor, number: int | None = None
) -> Tensor:
    """Averages the hidden states of one packed text in each row.

    hidden (B, S, H), padding_mask (B, S): 0 = padding, k = the k-th packed
    text -> (B, H) float32, the mean over the tokens of text `number`; 0 in
    rows without such a text. With number=None over all texts of the row.
    """
    mask = padding_mask > 0 if number is None else padding_mask == number
    # Sum in float32: a sum over a long text loses precision in 16 bits.
    weights = ops.cast(ops.expand_dims(mask, -1), "float32")  # (B, S, 1)
    total = ops.sum(ops.cast(hidden, "float32") * weights, axis=1)
    return total / ops.maximum(ops.sum(weights, axis=1), 1.0)


# Ways to pool hidden states into one vector; see Pooling.
POOLINGS = ("first", "last", "mean", "max", "layers", "lstm", "concat")
# "layers" concatenates the last 4 layers (Devlin et al. 2019, table 7).
_LAYERS = 4
# Poolings that read only the first n positions of the last layer. "first"
# reads none: it uses the encoder's pooled output.
_READ = {"first": 0, "layers": 1}


def positions_pooled(pooling: str, padding_mask: Tensor) -> Tensor | None:
    """Returns the positions of the last layer that a pooling reads.

    padding_mask (B, S) -> (B, 0 or 1) int32, or None: all. See
    `Task.positions_read`.
    """
    if pooling not in _READ:
        return None
    return ops.zeros((ops.shape(padding_mask)[0], _READ[pooling]), "int32")


class Pooling(keras.layers.Layer):
    """Pools the hidden states of a text into one vector.

    {"hidden": L+1 of (B, S, H), "pooled": (B, H)}, padding_mask (B, S)
    -> (B, width), where `width` is H, 4 H for "layers", or seq_length H for
    "concat".

    "first" is the pooler's output for [CLS], "last" the hidden state of the
    last token; "mean" and "max" are over tokens; "layers" concatenates the
    [CLS] of the last four layers; "lstm" is the last state of two stacked
    LSTMs over the last layer. "concat" concatenates the states of all tokens,
    in their order, and zeros for the rest of `seq_length`, which only it
    needs.

    InputError for "layers" of a causal network, whose first token attends only
    to itself, for "concat" without `seq_length`, and when it gets longer rows.
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        pooling: str,
        *,
        seq_length: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if pooling == "layers" and getattr(config, "causal", False):
            raise errors.InputError(
                "pooling=layers reads the first token, which in a causal "
                "network attends only to itself, so that all texts would have "
                "the same answer; use pooling=last.",
                argument="pooling",
            )
        if pooling == "concat" and seq_length is None:
            raise errors.InputError(
                "pooling=concat: expected seq_length, the number of tokens "
                "that are concatenated, found None.",
                argument="seq_length",
            )
        self.pooling = pooling
        self.hidden_size = config.hidden_size
        self.seq_length = seq_length or 0
        counts = {
            "layers": min(_LAYERS, config.num_layers),
            "concat": self.seq_length,
        }
        self.width = config.hidden_size * counts.get(pooling, 1)
        self.lstms = []
        if pooling == "lstm":
            self.lstms = [
                keras.layers.LSTM(
                    config.hidden_size,
                    return_sequences=True,
                    name=f"lstm_{number}",
                    dtype=self.dtype_policy,
                )
                for number in range(2)
            ]

    def build(self, input_shape: Shape | None = None) -> None:
        for lstm in self.lstms:
            lstm.build((None, None, self.hidden_size))
        self.built = True

    def call(
        self,
        encoded: Mapping[str, Any],
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        hidden = encoded["hidden"][-1]
        if self.pooling == "first":
            return encoded["pooled"]
        if self.pooling == "layers":
            count = self.width // self.hidden_size
            return ops.concatenate(
                [layer[:, 0] for layer in encoded["hidden"][-count:]], axis=-1
            )
        if self.pooling == "mean":
            return pool(hidden, padding_mask)
        mask = ops.expand_dims(padding_mask > 0, -1)  # (B, S, 1)
        if self.pooling == "concat":
            return self._concatenated(hidden, mask)
        if self.pooling == "max":
            least = ops.cast(layers.MASKED_SCORE, "float32")
            return ops.max(
                ops.where(mask, ops.cast(hidden, "float32"), least), axis=1
            )
        for lstm in self.lstms:
            # No mask: padding is at the end, after the state that is read.
            hidden = lstm(hidden, training=training)
        length = ops.sum(ops.cast(mask, "int32"), axis=1)  # (B, 1)
        last = ops.expand_dims(ops.maximum(length - 1, 0), -1)  # (B, 1, 1)
        return ops.squeeze(ops.take_along_axis(hidden, last, axis=1), 1)

    def _concatenated(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, S, H), mask (B, S, 1) -> (B, seq_length H)."""
        if hidden.shape[1] is not None and hidden.shape[1] > self.seq_length:
            raise errors.InputError(
                f"pooling=concat: expected rows of at most {self.seq_length} "
                f"tokens, the seq_length that the head has weights for, found "
                f"{hidden.shape[1]}; truncate them.",
                argument="seq_length",
            )
        missing = self.seq_length - ops.shape(hidden)[1]
        tokens = ops.where(mask, hidden, ops.zeros((), hidden.dtype))
        tokens = ops.pad(tokens, ((0, 0), (0, missing), (0, 0)))
        return ops.reshape(tokens, (-1, self.width))


class ClassScores(keras.layers.Dense):
    """A dense layer that may compute the outputs of some classes only.

    x (B, H) -> (B, C); with classes (B, K) int32 -> (B, K), the outputs of the
    classes of each row: B K products in place of B C. The kernel is still
    transposed, and its gradient is dense, so a step keeps a part that grows
    with C.
    """

    def call(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        if classes is None:
            return super().call(x)
        kernel = ops.take(ops.transpose(self.kernel), classes, axis=0)
        x = ops.expand_dims(x, -1)  # (B, H, 1)
        logits = ops.squeeze(ops.matmul(kernel, x), -1)  # (B, K)
        return logits + ops.take(self.bias, classes, axis=0)


class ClassificationHead(keras.layers.Layer):
    """Scores the C classes of a text or a pair of texts (BERT, 4.1).

    encoded as in Pooling, padding_mask (B, S) -> logits (B, C), float32.
    Pooling, dropout, then one dense layer. With num_texts, that many
    consecutive rows are texts of one example, whose vectors are added before
    the dense layer: (B num_texts, S) -> (B, C). seq_length is for the pooling
    "concat". With classes (B, K) int32 the logits of these only, (B, K).
    """

    def __init__(
        self,
        config: base.NetworkConfig,
        num_classes: int,
        pooling: str = "first",
        *,
        num_texts: int = 1,
        seq_length: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_texts = num_texts
        self.pooling = Pooling(
            config,
            pooling,
            seq_length=seq_length,
            name="pooling",
            dtype=self.dtype_policy,
        )
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.score = ClassScores(
            num_classes,
            kernel_initializer=layers.initializer(config),
            name="score",
            dtype="float32",
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.pooling.build()
        self.score.build((None, self.pooling.width))
        self.built = True

    def call(
        self,
        encoded: Mapping[str, Any],
        padding_mask: Tensor,
        classes: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        pooled = self.pooling(encoded, padding_mask, training=training)
        if self.num_texts > 1:
            shape = (-1, self.num_texts, self.pooling.width)
            pooled = ops.sum(ops.reshape(pooled, shape), axis=1)
        pooled = self.dropout(pooled, training=training)
        return self.score(pooled, classes=classes)


class SpanHead(keras.layers.Layer):
    """Scores each token as the start and as the end of a span (BERT, 4.2).

    hidden (B, S, H) -> start logits, end logits (B, S), float32. One dense
    layer computes both.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.score = layers.dense(config, 2, name="score", dtype="float32")

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.score(hidden)
        return logits[..., 0], logits[..., 1]


class TokenClassificationHead(keras.layers.Layer):
    """Scores the C classes of each token (BERT, 5.3).

    hidden (B, S, H) -> logits (B, S, C), float32. Dropout, then one dense
    layer.
    """

    def __init__(
        self, config: base.NetworkConfig, num_classes: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.config = config
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.score = layers.dense(
            config, num_classes, name="score", dtype="float32"
        )

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden: Tensor, training: bool | None = None) -> Tensor:
        return self.score(self.dropout(hidden, training=training))


class SentenceHead(keras.layers.Layer):
    """Scores sentences by the states of their tokens (Liu and Lapata 2019).

    hidden (B, S, H), positions (B, P) int32 -> logits (B, P), float32: of the
    token at each position. Dropout, then one dense layer. If positions is None,
    hidden is (B, P, H) and contains these tokens only.
    """

    def __init__(self, config: base.NetworkConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.dropout = layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.score = layers.dense(config, 1, name="score", dtype="float32")

    def build(self, input_shape: Shape | None = None) -> None:
        self.score.build((None, None, self.config.hidden_size))
        self.built = True

    def call(
        self,
        hidden: Tensor,
        positions: Tensor | None,
        training: bool | None = None,
    ) -> Tensor:
        if positions is not None:
            hidden = layers.gather(hidden, positions)
        return self.score(self.dropout(hidden, training=training))[..., 0]
