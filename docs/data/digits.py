"""Write scikit-learn's bundled digits as a regression: 64 pixels in, 10 classes (one-hot) out."""

import sys

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
X, Y = digits.data / 16, np.eye(10)[digits.target]
np.savez(sys.argv[1], X=X[:1500], Y=Y[:1500], X_test=X[1500:], Y_test=Y[1500:])
