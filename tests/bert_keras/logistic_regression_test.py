import numpy as np
from absl.testing import absltest, parameterized

from bert_keras import logistic_regression


def make(rows=400, width=6, classes=3):
    random = np.random.default_rng(1)
    features = random.normal(size=(rows, width)) * np.arange(1, width + 1) + 5
    features[:, 1] += 3 * features[:, 2]  # correlated
    noise = random.normal(size=(rows, classes))
    labels = (features @ random.normal(size=(width, classes)) + noise).argmax(1)
    return features.astype(np.float32), labels


class LogisticRegressionTest(parameterized.TestCase):
    @parameterized.parameters(1.0, 1e-2, 1e-4)
    def test_the_gradient_of_the_published_loss_vanishes(self, l2):
        features, labels = make()
        problem = logistic_regression.Problem(features)
        fitted = problem.fit(labels, 3, l2=l2)
        x = features.astype(np.float64)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        scores = np.exp(x @ fitted.kernel + fitted.bias)
        errors = scores / scores.sum(axis=1, keepdims=True) - np.eye(3)[labels]
        gradient = x.T @ errors / len(x) + l2 * fitted.kernel
        np.testing.assert_allclose(gradient, 0, atol=2e-3)
        np.testing.assert_allclose(errors.mean(axis=0), 0, atol=2e-3)

    def test_separable_classes_are_separated(self):
        features, labels = make()
        features[:, 0] = 10 * labels
        problem = logistic_regression.Problem(features)
        fitted = problem.fit(labels, 3, l2=1e-4)
        self.assertGreater(np.mean(fitted.predict(features) == labels), 0.99)

    def test_constant_features_give_the_most_frequent_class(self):
        labels = np.array([1, 1, 0, 2, 1])
        features = np.full((5, 4), 7, np.float32)
        problem = logistic_regression.Problem(features)
        fitted = problem.fit(labels, 3, l2=1e-2)
        self.assertEqual(set(fitted.predict(features)), {1})

    def test_a_fit_from_another_start_is_the_same(self):
        features, labels = make()
        problem = logistic_regression.Problem(features)
        direct = problem.fit(labels, 3, l2=1e-2)
        first = problem.fit(labels, 3, l2=1.0)
        self.assertGreater(np.abs(first.kernel - direct.kernel).max(), 0.1)
        second = problem.fit(labels, 3, l2=1e-2, start=first)
        np.testing.assert_allclose(second.kernel, direct.kernel, atol=5e-2)


if __name__ == "__main__":
    absltest.main()
