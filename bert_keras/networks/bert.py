"""BertEncoder: token ids in, every layer's hidden states out."""

import keras
from keras import ops

from bert_keras import errors, layers
from bert_keras.networks import bert_config


@keras.saving.register_keras_serializable("bert_keras")
class BertEncoder(keras.Model):
    """The BERT encoder (Devlin et al. 2019, section 3).

    token_ids, segment_ids, padding_mask (B, S) int32 ->
      "hidden": L + 1 tensors (B, S, H): the embeddings, then each layer;
      "pooled": (B, H), tanh of a product of the first token's last hidden,
        or of the last token's where the network is causal;
      "attentions": L tensors (B, N, S, S) float32, when asked for.

    padding_mask is 0 on padding and k on the k-th packed text of a row;
    texts of one row do not see each other. `embed`, `blocks` and `pool` are
    public, for ways of walking the layers that differ from `call`.
    """

    def __init__(
        self, config: bert_config.BertConfig, name="encoder", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.config = config
        dtype = self.dtype_policy
        if dtype.compute_dtype == "float64":
            raise errors.InputError(
                "the dtype policy is float64, but softmax and LayerNorm "
                "compute in float32; take float32 or a 16-bit policy."
            )
        self.embeddings = layers.Embeddings(
            config, name="embeddings", dtype=dtype
        )
        groups = config.num_hidden_groups or config.num_layers
        distinct = [
            layers.Block(config, name=f"block_{group}", dtype=dtype)
            for group in range(groups)
        ]
        self.blocks = [
            distinct[config.group(layer)] for layer in range(config.num_layers)
        ]
        self.final_norm = None
        if config.norm_first:
            self.final_norm = layers.layer_norm(
                config, name="final_norm", dtype=dtype
            )
        self.pooler = layers.dense(
            config,
            config.hidden_size,
            activation="tanh",
            name="pooler",
            dtype=dtype,
        )
        self.build()

    def build(self, input_shape=None):
        self.embeddings.build()
        for block in self.blocks:
            if not block.built:  # shared ones are met again
                block.build()
        if self.final_norm:
            self.final_norm.build((None, None, self.config.hidden_size))
        self.pooler.build((None, self.config.hidden_size))
        self.built = True

    def embed(self, token_ids, segment_ids, position_ids=None, training=None):
        """(B, S) three times -> (B, S, H)."""
        return self.embeddings(
            token_ids, segment_ids, position_ids, training=training
        )

    def pool(self, hidden, padding_mask):
        """(B, S, H), (B, S) -> (B, H): of [CLS], or of the last token.

        In a causal network the first token has seen nothing but itself.
        """
        if not self.config.causal:
            return self.pooler(hidden[:, 0])
        real = ops.cast(ops.greater(padding_mask, 0), hidden.dtype)
        following = ops.pad(real[:, 1:], [[0, 0], [0, 1]])
        last = ops.expand_dims(real * (1 - following), -1)  # (B, S, 1)
        return self.pooler(ops.sum(hidden * last, axis=1))

    def call(
        self,
        token_ids,
        segment_ids,
        padding_mask,
        position_ids=None,
        attentions=False,
        training=None,
    ):
        mask = layers.attention_mask(padding_mask, causal=self.config.causal)
        x = self.embed(token_ids, segment_ids, position_ids, training=training)
        hidden, distributions = [x], []
        for block in self.blocks:
            x, attention = block(x, mask, training=training, attentions=True)
            hidden.append(x)
            distributions.append(attention)
        if self.final_norm:
            hidden[-1] = self.final_norm(x)
        encoded = {
            "hidden": hidden,
            "pooled": self.pool(hidden[-1], padding_mask),
        }
        if attentions:
            encoded["attentions"] = distributions
        return encoded

    @property
    def token_table(self):
        """The token embeddings (V, E), for heads that borrow them."""
        return ops.convert_to_tensor(self.embeddings.token_table)

    def get_config(self):
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": self.config.to_dict(),
            "frozen": layers.frozen(self),
        }

    @classmethod
    def from_config(cls, config):
        encoder = cls(
            bert_config.BertConfig.from_dict(config["config"]),
            name=config["name"],
            dtype=config.get("dtype"),  # older files have none
        )
        layers.freeze(encoder, config.get("frozen", ()))
        return encoder
