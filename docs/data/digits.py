"""Write scikit-learn's bundled digits: 64 pixels in, 10 classes (one-hot) out, for a regression or a classification.

With a second argument the inputs are that many principal components of the training samples, each of variance 1.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
X, Y = digits.data / 16, np.eye(10)[digits.target]
if len(sys.argv) > 2:
    from sklearn.decomposition import PCA

    X = PCA(int(sys.argv[2]), whiten=True).fit(X[:1500]).transform(X)
np.savez(sys.argv[1], X=X[:1500], Y=Y[:1500], X_test=X[1500:], Y_test=Y[1500:])
