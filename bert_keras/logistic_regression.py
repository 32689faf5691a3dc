"""Multinomial logistic regression: a linear classifier of fixed features."""

import dataclasses

import numpy as np

# Accelerated steps, and the decrease of the loss per step at which they end.
MAX_STEPS = 200
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier of standardized features.

    kernel (H, C) and bias (C,) are of (features - mean) / scale, both (H,).
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores the classes: (n, H) -> (n, C) float32."""
        return (features - self.mean) / self.scale @ self.kernel + self.bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the class of each row: (n, H) -> (n,) int64."""
        return self.logits(features).argmax(axis=1)


class Problem:
    """Features that classifiers are fitted to, for several labels and L2.

    features (n, H) float32. They are standardized, and their second moments are
    computed once. A constant feature becomes 0.
    """

    def __init__(self, features: np.ndarray):
        self.mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
        self.scale = np.where(scale > 0, scale, np.float32(1))
        self._features = (features - self.mean) / self.scale
        moments = self._features.T @ self._features / len(features)
        self._moments = moments.astype(np.float64)

    def fit(
        self,
        labels: np.ndarray,
        num_classes: int,
        *,
        l2: float,
        start: Classifier | None = None,
    ) -> Classifier:
        """Minimizes mean cross entropy + l2 / 2 x the kernel's squared norm.

        labels (n,) int: the class of each row. start: where to start; None:
        at 0. Nothing is random.

        The Hessian is at most the Kronecker product of the identity and
        M = X'X / 2n + l2 (Boehning 1992), so a step of M^-1 x gradient alone
        never increases the loss. The steps have Nesterov's momentum, which
        restarts where it points uphill (O'Donoghue and Candes 2015, 3.2).
        """
        x, width = self._features, self._features.shape[1]
        bound = np.full(width + 1, 2.0)  # that of the bias is 1 / 2
        inverse = np.linalg.inv(self._moments / 2 + l2 * np.eye(width))
        targets = np.eye(num_classes, dtype=np.float32)[labels]
        weights = np.zeros((width + 1, num_classes))
        if start is not None:
            weights = np.vstack([start.kernel, start.bias]).astype(np.float64)
        point, momentum = weights, 1.0
        for _ in range(MAX_STEPS):
            errors = _softmax(x @ point[:-1].astype(np.float32), point[-1])
            errors -= targets
            gradient = np.vstack([x.T @ errors, errors.sum(axis=0)]) / len(x)
            gradient = gradient.astype(np.float64)
            gradient[:-1] += l2 * point[:-1]
            step = bound[:, np.newaxis] * gradient
            step[:-1] = inverse @ gradient[:-1]
            after = point - step
            if np.sum(gradient * step) < TOLERANCE:
                weights = after
                break
            if np.sum(gradient * (after - weights)) > 0:
                momentum = 1.0
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            point = after + (momentum - 1) / following * (after - weights)
            weights, momentum = after, following
        kernel, bias = weights[:-1], weights[-1]
        return Classifier(
            self.mean,
            self.scale,
            kernel.astype(np.float32),
            bias.astype(np.float32),
        )


def _softmax(scores: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) of the classes, in place of `scores`."""
    scores += bias.astype(np.float32)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores
