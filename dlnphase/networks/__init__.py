"""Networks as batches of chains of matrices: weights, products, initial draws, reduction to what gradients reach."""
