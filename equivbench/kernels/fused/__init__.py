"""Our own kernels: the convolution with gather, Clebsch-Gordan sums, weighting and scatter in one
pass over the edges."""
