"""Rules, schedule and decay against published formulas in float64."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from bert_keras import errors, optimizers
from bert_keras import model as model_lib
from bert_keras.networks import bert as bert_lib
from bert_keras.tasks import classification, masked_lm
from bert_keras.training import devices as devices_lib
from tests import devices, tiny  # noqa: F401 (devices: two CPUs)

STEPS = 50
NO_DECAY = ("bias", "beta", "gamma")
# Far below epsilon, about it, far above it.
MAGNITUDES = 10.0 ** np.arange(-8, 1)
SCHEDULE = optimizers.Schedule(peak=0.1, warmup_steps=7, total_steps=60)


def linear(peak, warmup, total, step):
    """Linear warm-up, then linear decay to 0 (Devlin et al. 2019, A.2)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (total - step) / (total - warmup)


def adamw(theta, gradients, *, decay, corrected, beta=(0.9, 0.999), eps=1e-6):
    """Loshchilov & Hutter 2019, algorithm 2, lines 6 to 12.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
    m_hat = m / (1 - b1^t),  v_hat = v / (1 - b2^t),
    theta -= eta (m_hat / (sqrt(v_hat) + eps) + lambda theta),
    where theta on the right is that of the step before. Not corrected, m_hat
    is m and v_hat is v (Google's BERT, optimization.py).
    """
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(gradients, start=1):
        m = beta[0] * m + (1 - beta[0]) * g
        v = beta[1] * v + (1 - beta[1]) * g**2
        whole = [1 - b**t if corrected else 1.0 for b in beta]
        change = m / whole[0] / (np.sqrt(v / whole[1]) + eps)
        rate = linear(0.1, 7, 60, t - 1)
        theta = theta - rate * (change + decay * theta)
    return theta


def lamb(
    x, gradients, *, decay, corrected, adapted, beta=(0.9, 0.999), eps=1e-6
):
    """You et al. 2020, algorithm 2, with phi the identity.

    r = m_hat / (sqrt(v_hat) + eps),
    x -= eta |x| / |r + lambda x| (r + lambda x);
    the ratio is 1 where a norm is 0 and for what is not adapted.
    """
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, start=1):
        m = beta[0] * m + (1 - beta[0]) * g
        v = beta[1] * v + (1 - beta[1]) * g**2
        whole = [1 - b**t if corrected else 1.0 for b in beta]
        change = m / whole[0] / (np.sqrt(v / whole[1]) + eps) + decay * x
        norms = np.linalg.norm(x), np.linalg.norm(change)
        ratio = norms[0] / norms[1] if adapted and all(norms) else 1.0
        x = x - linear(0.1, 7, 60, t - 1) * ratio * change
    return x


def random_gradients(shape, steps=STEPS):
    """(steps, *shape); the last axis has every magnitude, and some zeros."""
    random = np.random.default_rng(0)
    signs = random.normal(size=(steps, *shape)) + 0.5
    kept = random.random((steps, *shape)) < 0.9
    return (signs * kept * MAGNITUDES).astype(np.float32)


def start(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def trained(name, rule, theta, gradients, *, decay):
    """The variable `name`, after the optimizer's steps."""
    variable = keras.Variable(theta, name=name)
    optimizer = optimizers.Optimizer(
        [variable], rule=rule, schedule=SCHEDULE, weight_decay=decay
    )

    @tf.function
    def update(gradient, step):
        optimizer.apply([gradient], step, has_gradient=[True])

    for step, gradient in enumerate(gradients):
        update(tf.constant(gradient), tf.constant(step, tf.int64))
    return variable.numpy()


class AdamWTest(parameterized.TestCase):
    @parameterized.product(
        decay=(0.0, 0.1), corrected=(True, False), name=("kernel", "bias")
    )
    def test_it_is_algorithm_2_at_gradients_of_every_size(
        self, decay, corrected, name
    ):
        gradients = random_gradients((5, len(MAGNITUDES)))
        theta = start(gradients.shape[1:])
        rule = optimizers.AdamW(bias_correction=corrected)
        actual = trained(name, rule, theta, gradients, decay=decay)
        expected = adamw(
            theta.astype(np.float64),
            gradients.astype(np.float64),
            decay=decay if name == "kernel" else 0.0,
            corrected=corrected,
        )
        # The kernel has beta_2 in float32: 1 - beta_2 is off by 1.3e-5.
        within = 2e-6 if corrected else 1e-5
        np.testing.assert_allclose(
            actual - theta, expected - theta, rtol=within, atol=2e-6
        )

    def test_the_first_step_is_g_over_g_and_epsilon(self):
        # m_hat = g and v_hat = g^2, so the variable moves by
        # eta g / (|g| + epsilon); a quarter of that with epsilon-hat, where
        # |g| is 10 epsilon.
        gradients = MAGNITUDES[np.newaxis].astype(np.float32)
        zeros = np.zeros(len(MAGNITUDES), np.float32)
        actual = trained(
            "kernel", optimizers.AdamW(), zeros, gradients, decay=0.0
        )
        expected = -0.1 / 7 * MAGNITUDES / (MAGNITUDES + 1e-6)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)

    @parameterized.parameters((0.0, 0.999), (0.0, 0.0), (0.9, 0.5))
    def test_betas_of_any_value(self, *beta):
        gradients = random_gradients((2, len(MAGNITUDES)), steps=9)
        theta = start(gradients.shape[1:])
        rule = optimizers.AdamW(*beta)
        actual = trained("kernel", rule, theta, gradients, decay=0.01)
        expected = adamw(
            theta,
            gradients.astype(float),
            decay=0.01,
            corrected=True,
            beta=beta,
        )
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6)

    def test_it_is_that_of_keras_where_epsilon_is_nothing(self):
        # Keras' epsilon is epsilon-hat: at 1e-20 the two do not differ.
        gradients = random_gradients((3, len(MAGNITUDES)))[..., 4:]
        theta = start(gradients.shape[1:])
        expected = keras.Variable(theta)
        optimizer = keras.optimizers.AdamW(
            weight_decay=0.01, epsilon=1e-20, beta_2=0.999
        )
        for step, gradient in enumerate(gradients):
            optimizer.learning_rate = linear(0.1, 7, 60, step)
            optimizer.apply([tf.constant(gradient)], [expected])
        actual = trained(
            "kernel",
            optimizers.AdamW(epsilon=1e-20),
            theta,
            gradients,
            decay=0.01,
        )
        np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


class LambTest(parameterized.TestCase):
    @parameterized.product(
        decay=(0.0, 0.1), corrected=(True, False), name=("kernel", "bias")
    )
    def test_it_is_algorithm_2(self, decay, corrected, name):
        gradients = random_gradients((5, len(MAGNITUDES)))
        x = start(gradients.shape[1:])
        rule = optimizers.Lamb(bias_correction=corrected)
        actual = trained(name, rule, x, gradients, decay=decay)
        adapted = name == "kernel"
        expected = lamb(
            x.astype(np.float64),
            gradients.astype(np.float64),
            decay=decay if adapted else 0.0,
            corrected=corrected,
            adapted=adapted,
        )
        np.testing.assert_allclose(
            actual - x, expected - x, rtol=2e-6, atol=2e-6
        )

    @parameterized.parameters(0.0, 0.1)
    def test_an_adapted_variable_moves_by_its_length(self, decay):
        gradients = random_gradients((4, len(MAGNITUDES)), steps=1)
        x = start(gradients.shape[1:])
        moved = {
            name: np.linalg.norm(
                trained(
                    name, optimizers.Lamb(), x, gradients, decay=decay
                ).astype(float)
                - x
            )
            for name in ("kernel", "gamma")
        }
        length = 0.1 / 7 * np.linalg.norm(x.astype(float))
        self.assertAlmostEqual(moved["kernel"], length, delta=1e-5 * length)
        self.assertNotAlmostEqual(moved["gamma"], length, delta=0.1 * length)

    def test_a_norm_of_0_leaves_the_step_as_it_is(self):
        gradients = random_gradients((4, len(MAGNITUDES)), steps=1)
        zeros, ones = np.zeros((2, 4, len(MAGNITUDES)), np.float32)
        ones += 1
        rule = optimizers.Lamb()
        moved = trained("kernel", rule, zeros, gradients, decay=0.0)
        expected = adamw(zeros, gradients, decay=0.0, corrected=True)
        np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-9)
        still = trained("kernel", rule, ones, 0 * gradients, decay=0.0)
        np.testing.assert_array_equal(still, ones)


class SgdTest(parameterized.TestCase):
    @parameterized.product(decay=(0.0, 0.1), name=("kernel", "bias"))
    def test_it_is_the_gradient_and_the_decay_of_what_was(self, decay, name):
        """theta -= eta (g + lambda theta), theta that of the step before."""
        gradients = random_gradients((2, len(MAGNITUDES)), steps=9)
        theta = start(gradients.shape[1:])
        actual = trained(name, optimizers.Sgd(), theta, gradients, decay=decay)
        expected = theta.astype(np.float64)
        for step, gradient in enumerate(gradients.astype(np.float64)):
            shrunk = decay * expected if name == "kernel" else 0.0
            expected = expected - linear(0.1, 7, 60, step) * (gradient + shrunk)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


class TotalWeightTest(absltest.TestCase):
    def test_it_is_exact_near_0_and_near_1(self):
        steps = np.array([0, 1, 2, 5, 10, 100, 10_000, 10**7, 2**40])
        for beta in (0.1, 0.9, 0.999, 0.99999):
            actual = [
                optimizers._bias_correction(beta, tf.constant(step))
                for step in steps
            ]
            expected = -np.expm1((steps + 1) * np.log(beta))
            np.testing.assert_allclose(actual, expected, rtol=3e-7)


class ScheduleTest(parameterized.TestCase):
    @parameterized.parameters((7, 60), (0, 10), (1, 10), (10, 10), (0, 1))
    def test_it_is_the_formula_at_every_step(self, warmup, total):
        schedule = optimizers.Schedule(3e-4, warmup, total)
        actual = [schedule(tf.constant(step)) for step in range(total)]
        expected = [linear(3e-4, warmup, total, s) for s in range(total)]
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        self.assertAlmostEqual(max(map(float, actual)), 3e-4, delta=1e-9)
        self.assertGreater(float(actual[0]), 0)
        self.assertGreater(float(actual[-1]), 0)
        for after in (total, total + 9):
            self.assertEqual(float(schedule(tf.constant(after))), 0)


class OptimizerTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        task = masked_lm.MaskedLM().adapt([], tiny.tokenizer())
        pooled = classification.Classification(
            labels=("no", "yes"), pooling="lstm"
        )
        bert = tiny.bert(embedding_size=8, norm_first=True)
        self.models = [
            model_lib.BertModel(bert_lib.BertEncoder(tiny.bert()), task),
            model_lib.BertModel(bert_lib.BertEncoder(bert), pooled),
        ]

    def optimizer(self, variables, **options):
        options = {
            "rule": optimizers.AdamW(),
            "schedule": optimizers.Schedule(1e-2, 0, 10),
            "weight_decay": 0.1,
        } | options
        return optimizers.Optimizer(variables, **options)

    @parameterized.parameters(0.1, 0.0)
    def test_matrices_decay_and_are_adapted_vectors_are_not(self, decay):
        # Every vector of BERT is a bias or of a LayerNorm.
        for model in self.models:
            variables = model.trainable_variables
            optimizer = self.optimizer(variables, weight_decay=decay)
            ranks = [len(variable.shape) for variable in variables]
            self.assertEqual(set(ranks), {1, 2})
            self.assertEqual(optimizer.adapted, [rank == 2 for rank in ranks])
            self.assertEqual(
                optimizer.decays,
                [decay if rank == 2 else 0.0 for rank in ranks],
            )

    @parameterized.parameters(
        optimizers.AdamW(), optimizers.Sgd(), optimizers.Lamb()
    )
    def test_without_a_gradient_matrices_shrink_and_nothing_else_moves(
        self, rule
    ):
        model = self.models[0]
        random = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(random.normal(size=variable.shape))
        before = [v.numpy() for v in model.trainable_variables]
        self.optimizer(model.trainable_variables, rule=rule).apply(
            [tf.zeros(v.shape) for v in model.trainable_variables],
            tf.constant(0, tf.int64),
            has_gradient=[True] * len(before),
        )
        # LAMB's step has the length of the variable, whatever the decay.
        share = 1e-2 if isinstance(rule, optimizers.Lamb) else 1e-3
        for old, variable in zip(
            before, model.trainable_variables, strict=True
        ):
            rest = 1 - share if old.ndim == 2 else 1
            np.testing.assert_allclose(
                variable, old * rest, rtol=1e-6, err_msg=variable.path
            )

    @parameterized.parameters(
        optimizers.AdamW(), optimizers.Sgd(), optimizers.Lamb()
    )
    def test_what_no_loss_reads_stays_with_its_slots(self, rule):
        variables = [
            keras.Variable(start((2, 3)), name=name)
            for name in ("read", "pooler")
        ]
        before = [variable.numpy() for variable in variables]
        optimizer = self.optimizer(variables, rule=rule)
        optimizer.apply(
            [tf.ones((2, 3))] * 2,
            tf.constant(0, tf.int64),
            has_gradient=[True, False],
        )
        self.assertGreater(np.abs(variables[0] - before[0]).min(), 1e-4)
        np.testing.assert_array_equal(variables[1], before[1])
        for _, slot in zip(rule.slots, optimizer.slots[1], strict=True):
            self.assertEqual(np.abs(slot).max(), 0)

    @parameterized.parameters(
        optimizers.AdamW(), optimizers.Sgd(), optimizers.Lamb()
    )
    def test_two_replicas_update_as_one(self, rule):
        gradient = tf.constant(random_gradients((2, len(MAGNITUDES)), 1)[0])
        theta, updated = start(gradient.shape), []
        for strategy in (
            tf.distribute.get_strategy(),
            devices_lib.make_strategy("mirrored"),
        ):
            with strategy.scope():
                variable = keras.Variable(theta, name="kernel")
                optimizer = self.optimizer([variable], rule=rule)

            @tf.function
            def update(step, optimizer=optimizer, strategy=strategy):
                strategy.run(
                    lambda: optimizer.apply(
                        [gradient], step, has_gradient=[True]
                    )
                )

            for step in range(3):
                update(tf.constant(step, tf.int64))
            replicas = strategy.experimental_local_results(variable.value)
            updated += [replica.numpy() for replica in replicas]
        self.assertLen(updated, 3)
        self.assertGreater(np.abs(updated[0] - theta).max(), 1e-3)
        for other in updated[1:]:
            np.testing.assert_array_equal(other, updated[0])

    def test_slots_have_names_of_their_own_and_start_at_0(self):
        variables = self.models[0].trainable_variables
        state = self.optimizer(variables).state()
        self.assertLen(state, 2 * len(variables))
        for variable in variables:
            for slot in ("m", "v"):
                value = state[f"{variable.path}/{slot}"]
                self.assertEqual(value.shape, variable.shape)
                self.assertEqual(np.abs(value).max(), 0)


class HeadScheduleTest(parameterized.TestCase):
    """Liu & Lapata 2019, section 4.2: encoder and decoder, each its own."""

    HEAD = optimizers.Schedule(peak=0.7, warmup_steps=2, total_steps=60)

    def update(self, rule, head_schedule, steps=3):
        """What three steps change in a classifier: {path: (before, after)}."""
        keras.utils.set_random_seed(1)
        variables = tiny.classifier(num_layers=1).trainable_variables
        before = {v.path: v.numpy() for v in variables}
        optimizer = optimizers.Optimizer(
            variables,
            rule=rule,
            schedule=SCHEDULE,
            head_schedule=head_schedule,
            weight_decay=0.1,
        )
        for step in range(steps):
            optimizer.apply(
                [self.gradient(v, step) for v in variables],
                tf.constant(step, tf.int64),
                has_gradient=[True] * len(variables),
            )
        after = {v.path: v.numpy() for v in variables}
        return before, after, optimizer

    def gradient(self, variable, step):
        random = np.random.default_rng([step, len(variable.path)])
        return tf.constant(random.normal(size=variable.shape), tf.float32)

    def test_three_steps_are_the_formula_with_the_rate_of_each(self):
        before, after, optimizer = self.update(optimizers.AdamW(), self.HEAD)
        heads = set()
        for variable in optimizer.variables:
            path = variable.path
            peak, warmup, total = 0.1, 7, 60
            if path.startswith("head/"):
                peak, warmup = 0.7, 2
                heads.add(path)
            decay = 0.0 if path.split("/")[-1] in NO_DECAY else 0.1
            theta = np.float64(before[path])
            m = v = np.zeros_like(theta)
            for t in (1, 2, 3):
                g = np.float64(self.gradient(variable, t - 1))
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
                rate = linear(peak, warmup, total, t - 1)
                change = m_hat / (np.sqrt(v_hat) + 1e-6)
                theta = theta - rate * (change + decay * theta)
            np.testing.assert_allclose(
                after[path], theta, rtol=1e-5, atol=1e-5, err_msg=path
            )
        self.assertEqual(
            heads, {"head/label/score/kernel", "head/label/score/bias"}
        )

    @parameterized.parameters(
        optimizers.AdamW(), optimizers.Sgd(), optimizers.Lamb()
    )
    def test_the_network_is_as_without_and_the_same_rate_changes_nothing(
        self, rule
    ):
        _, alone, _ = self.update(rule, None)
        _, same, _ = self.update(rule, SCHEDULE)
        _, other, _ = self.update(rule, self.HEAD)
        for path, value in alone.items():
            np.testing.assert_array_equal(same[path], value, path)
            is_equal = bool((other[path] == value).all())
            self.assertEqual(is_equal, not path.startswith("head/"), path)

    def test_slots_have_the_names_of_before(self):
        states = [
            self.update(optimizers.AdamW(), schedule, 1)[2].state()
            for schedule in (None, self.HEAD)
        ]
        self.assertEqual(*[list(state) for state in states])

    def test_both_rates_are_for_the_log(self):
        step = tf.constant(3, tf.int64)
        *_, alone = self.update(optimizers.Sgd(), None, 0)
        self.assertEqual(list(alone.learning_rates(step)), ["learning_rate"])
        *_, other = self.update(optimizers.Sgd(), self.HEAD, 0)
        rates = {k: float(v) for k, v in other.learning_rates(step).items()}
        self.assertAlmostEqual(rates["learning_rate"], 0.1 * 4 / 7, 6)
        self.assertAlmostEqual(rates["head_learning_rate"], 0.7 * 57 / 58, 6)


class LimitsTest(parameterized.TestCase):
    @parameterized.product(
        rule=(optimizers.AdamW, optimizers.Lamb),
        change=(
            {"beta_1": 1.0},
            {"beta_1": 1 - 1e-8},  # 1 in float32
            {"beta_1": -0.1},
            {"beta_2": 1.5},
            {"epsilon": 0.0},
        ),
    )
    def test_values_that_give_no_update_are_refused(self, rule, change):
        (name,) = change
        with self.assertRaisesRegex(errors.InputError, f"{name} is"):
            rule(**change)


if __name__ == "__main__":
    absltest.main()
