"""Our own kernels: the convolution and PaiNN's message with gather, sums over coefficients,
weighting and scatter in one pass over the edges, and the polynomials of the symmetric
contraction."""
