"""Steps that are bit-equal on any number of replicas.

A batch is divided into a fixed number of shards, however many replicas compute
them, and their gradients and sums are added in a fixed order.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence

import tensorflow as tf

from bert_keras.training import step as step_lib


def tree_sum(
    values: Callable[[int], Sequence[tf.Tensor]], first: int, count: int
) -> list[tf.Tensor]:
    """Adds up values(first), values(first + 1), ... as a binary tree.

    For four: (a + b) + (c + d). A replica's part of the tree is a tree of its
    own if the counts are powers of two. `values` is called in order.
    """
    if count == 1:
        return list(values(first))
    half = count // 2
    left = tree_sum(values, first, half)
    with tf.control_dependencies(left):  # one after the other saves memory
        right = tree_sum(values, first + half, count - half)
    # Not +: of sums of sums TensorFlow makes one, in an order of its own.
    return [
        tf.reduce_sum(tf.stack(pair), axis=0)
        for pair in zip(left, right, strict=True)
    ]


@dataclasses.dataclass(eq=False)
class ElasticStep(step_lib.TrainStep):
    """A TrainStep whose micro-batches are the shards of all replicas.

    The number of shards and of replicas are powers of two. The graph has a copy
    of the network for each shard of a replica, and each replica gets the
    gradients of all others.
    """

    def _weight_sums(self, context, targets, terms):
        shards = self._micro_batches({"inputs": {}, "targets": targets})

        def weights(index):
            of_terms = [shards["targets"][term][1][index] for term in terms]
            return [tf.stack([tf.reduce_sum(each) for each in of_terms])]

        return self._reduce(
            context, tree_sum(weights, 0, self.accumulation_steps)
        )[0]

    def _accumulate(self, batch, terms, term_factors, first_micro_batch):
        shards = self._micro_batches(batch)

        def gradients(index):
            shard = tf.nest.map_structure(operator.itemgetter(index), shards)
            shard["step"] = batch["step"]
            found, sums = self._gradients(
                shard, terms, term_factors, first_micro_batch + index
            )
            return [*found, sums]

        *totals, sums = tree_sum(gradients, 0, self.accumulation_steps)
        return totals, sums

    def _reduce(self, context, tensors):
        """Adds up the replicas' tensors in the order of the replicas."""
        replicas = context.num_replicas_in_sync
        if replicas == 1:
            return tensors
        packed, unpack = step_lib.pack(tensors)
        gathered = context.all_gather(packed[tf.newaxis], axis=0)

        def of_replica(index):
            return [gathered[index]]

        return unpack(tree_sum(of_replica, 0, replicas)[0])
