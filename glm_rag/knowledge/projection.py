"""A picture of vectors: the plane in which they differ most. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Plane:
    """Where vectors are laid on: `mean` is `[D]`, `axes` are two directions, `[2, D]`."""

    mean: np.ndarray
    axes: np.ndarray

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors, `[N, D]` to `[N, 2]`; also of others than it was made from."""
        placed: np.ndarray = (np.asarray(vectors, dtype=np.float64) - self.mean) @ self.axes.T
        return placed


def principal_plane(vectors: np.ndarray) -> Plane:
    """The first two principal components of `[N, D]` vectors, N and D at least 1.

    The same vectors give the same picture: each axis points to where its largest weight is
    positive. An axis along which nothing differs is zero.
    """
    data = np.asarray(vectors, dtype=np.float64)
    mean = data.mean(axis=0)
    centred = data - mean
    # D is small beside N here, and only two of its directions are wanted.
    values, directions = np.linalg.eigh(centred.T @ centred)
    axes = np.zeros((2, data.shape[1]))
    enough = data.shape[1] * np.finfo(np.float64).eps * max(float(values[-1]), 1e-12)
    for place in range(min(2, data.shape[1])):
        axis = directions[:, -1 - place]
        if values[-1 - place] > enough:
            axes[place] = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return Plane(mean, axes)
