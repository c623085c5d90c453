"""Our own kernels: the convolution and PaiNN's message with gather, sums over coefficients,
weighting and scatter in one pass over the edges, the polynomials of the symmetric contraction, and
Allegro's edge product centre by centre."""
