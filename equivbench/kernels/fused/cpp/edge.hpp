// One edge as the kernels see it; SLOTS is defined by the file that includes this one.

// M of this many edges is computed at once; M of all of them must stay in the first-level cache.
enum { EDGES = SLOTS > 128 ? 4 : 8 };
typedef real many __attribute__((vector_size(EDGES * sizeof(real))));

// What a kernel sees of one edge: rows of the tensors, and M of its harmonics at m[slot * EDGES].
struct Edge {
  const real *x, *w, *g, *m, *u_x, *u_w, *m_u;
  real *out, *by_x, *by_w, *by_y;
};

// The tensors; null: not given or not asked for.
struct Tensors {
  const real *x, *y, *w, *g, *u_x, *u_y, *u_w;
  real *out, *by_x, *by_y, *by_w;
};
