// The loop over threads, each with its share of the edges, and the gradient by the features of nodes,
// SOURCE a node, to which the edges of several threads add.

// The rows of this gradient that are thread t's to finish: the parts added up in the order of the
// threads.
static void gather(const Order &o, real *by_x, int64_t t) {
  for (int64_t j = o.nodes * t / o.threads; j < o.nodes * (t + 1) / o.threads; j++) {
    real *row = by_x + j * SOURCE;
    if (j < o.low[0] || j >= o.high[0]) memset(row, 0, sizeof(real) * SOURCE);
    for (int64_t p = 1; p < o.threads; p++)
      if (j >= o.low[p] && j < o.high[p]) {
        const real *other = o.part[p] + (j - o.low[p]) * SOURCE;
        for (int n = 0; n < SOURCE; n++) row[n] += other[n];
      }
  }
}

// sweep(t) does the edges of thread t, and adds to the gradient's rows in o.part[t]: those of their
// neighbours and, if `centres`, of their centres.
// 0, or 1: no memory, 2: an edge to a node that is not there
template <class Sweep> static int run(Order &o, real *by_x, bool centres, Sweep sweep) {
  const int64_t count = o.nodes + 1 + o.edges + o.threads + 1 + 2 * o.threads;
  int64_t *space = (int64_t *)malloc(sizeof(int64_t) * count + sizeof(real *) * o.threads);
  if (!space) return 1;
  o.first = space;
  o.edge = o.first + o.nodes + 1;
  o.node = o.edge + o.edges;
  o.low = o.node + o.threads + 1;
  o.high = o.low + o.threads;
  o.part = (real **)(o.high + o.threads);
  int problem = arrange(o);
  for (int64_t t = 0; !problem && centres && t < o.threads; t++)
    if (o.node[t] < o.node[t + 1]) {
      if (o.node[t] < o.low[t]) o.low[t] = o.node[t];
      if (o.node[t + 1] > o.high[t]) o.high[t] = o.node[t + 1];
    }
  real *parts = 0;
  if (!problem && by_x) {
    // The first thread adds straight into the result, the others into parts of their own.
    int64_t rows = 0;
    for (int64_t t = 1; t < o.threads; t++) rows += o.high[t] > o.low[t] ? o.high[t] - o.low[t] : 0;
    parts = (real *)malloc(sizeof(real) * SOURCE * rows + 1);
    if (!parts) problem = 1;
    o.part[0] = by_x + (o.high[0] > o.low[0] ? o.low[0] : 0) * SOURCE;
    rows = 0;
    for (int64_t t = 1; t < o.threads; t++) {
      o.part[t] = parts + rows * SOURCE;
      rows += o.high[t] > o.low[t] ? o.high[t] - o.low[t] : 0;
    }
  }
  if (!problem) {
#ifdef _OPENMP
#pragma omp parallel num_threads((int)o.threads)
    {
#pragma omp for schedule(static, 1)
#endif
      for (int64_t t = 0; t < o.threads; t++) {
        if (by_x && o.high[t] > o.low[t])
          memset(o.part[t], 0, sizeof(real) * SOURCE * (o.high[t] - o.low[t]));
        sweep(t);
      }
#ifdef _OPENMP
#pragma omp for schedule(static, 1)
#endif
      for (int64_t t = 0; t < o.threads; t++)
        if (by_x) gather(o, by_x, t);
#ifdef _OPENMP
    }
#endif
  }
  free(parts);
  free(space);
  return problem;
}
