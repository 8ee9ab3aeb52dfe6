"""Networks as batches of chains of matrices: weights, products, initial draws, reduction to what gradients reach.

Enters: widths, a scale and seeds; or layers of shapes (B, n_l, n_{l-1}).
Leaves: a :class:`~dlnphase.networks.chain.Network`: B members of one shape as one flat tensor θ of shape (B,
P), and all that one chain of matrices can answer: products, gradients for a given ∇C, directional derivatives,
the tangent kernel, balancedness.

Open

- `chain.py` for the network and its formulas; ``Network.gradient`` is the slope of every dynamics over a batch;
- `products.py` for products of layers, whatever holds them, and for balanced factors: nobody else writes the loop;
- `sampling.py` for Gaussian and balanced starts; a start is drawn member by member, each from its own stream;
- `representation.py` for how a network is held, full or reduced, and for drawing it so;
- `batch.py` for some members of whatever dataclass tells about a batch;
- `kernels.py` for sizes of tangent kernels from their Kronecker factors;
- krylov/ for networks reduced to the hidden directions that gradients reach.

Keep

- A network is a value: a step makes another one. Layers are views into θ (tests/test_network.py).
- Every formula is that of automatic differentiation, for all shapes, dtypes and devices, and a batch is its
  members (tests/test_network.py). No cost is known here: ∇C comes in.
- Full and reduced networks are one type; nobody asks which one it is.
- Rotations of hidden spaces change nothing that is seen from outside, and padding with zeros embeds a network
  in a wider one: laws, checked over random shapes.
- Member b of seed s is the same draw whatever else is drawn (tests/test_sampling.py, tests/test_backend.py).
"""
