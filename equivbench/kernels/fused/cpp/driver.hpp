// The loops over centres and edges, the same for all operations; what is done for one edge
// (forward, first, by_harmonics, ...) is generated.

static void harmonics_of(const Order &o, const real *y, int64_t s, int64_t count, many *m) {
  many rows[ROWS];
  real *at = (real *)rows;
  memset(rows, 0, sizeof rows);
  for (int64_t k = 0; k < count; k++)
    for (int row = 0; row < ROWS; row++) at[row * EDGES + k] = y[o.edge[s + k] * ROWS + row];
  couple(rows, m);
}

static inline void fetch(const real *weights, int64_t edge) {
  if (weights)
    for (int64_t n = 0; n < WEIGHTS; n += 64 / sizeof(real))
      __builtin_prefetch(weights + edge * WEIGHTS + n);
}

// One thread's edges. `kind` is a constant in each call: 0 the output, 1 first derivatives, 2
// either along tangents, the output without g.
template <int kind> static void sweep(const Order &o, const Tensors &a, int64_t t) {
  static const real zeros[SOURCE > WEIGHTS ? SOURCE : WEIGHTS] = {};
  many m[SLOTS + 1], m_u[SLOTS + 1];
  int64_t cleared = o.node[t];
  const int64_t last = o.first[o.node[t + 1]];
  memset(m_u, 0, sizeof m_u);
  for (int64_t s = o.first[o.node[t]]; s < last; s += EDGES) {
    const int64_t count = last - s < EDGES ? last - s : EDGES;
    harmonics_of(o, a.y, s, count, m);
    if (kind == 2 && a.u_y) harmonics_of(o, a.u_y, s, count, m_u);
    for (int64_t k = 0; k < count; k++) {
      const int64_t edge = o.edge[s + k], i = o.centre[edge], j = o.neighbour[edge];
      if (s + k + 1 < last && o.edge[s + k + 1] != edge + 1) {
        // The next row is not the one that the processor expects.
        fetch(a.w, o.edge[s + k + 1]);
        if (kind == 2) fetch(a.u_w, o.edge[s + k + 1]);
      }
      for (; a.out && cleared <= i; cleared++)
        memset(a.out + cleared * TARGET, 0, sizeof(real) * TARGET);
      real by_y[ROWS] = {};
      Edge e;
      e.x = a.x + j * SOURCE;
      e.w = a.w + edge * WEIGHTS;
      e.m = (const real *)m + k;
      e.m_u = (const real *)m_u + k;
      e.g = kind && a.g ? a.g + i * TARGET : 0;
      e.u_x = kind == 2 && a.u_x ? a.u_x + j * SOURCE : zeros;
      e.u_w = kind == 2 && a.u_w ? a.u_w + edge * WEIGHTS : zeros;
      e.out = a.out ? a.out + i * TARGET : 0;
      e.by_x = a.by_x ? o.part[t] + (j - o.low[t]) * SOURCE : 0;
      e.by_w = a.by_w ? a.by_w + edge * WEIGHTS : 0;
      e.by_y = by_y;
      if (kind == 0) forward(e);
      if (kind == 1 && (a.by_x || a.by_w)) first(e);
      if (kind == 1 && a.by_y) by_harmonics(e);
      if (kind == 2 && a.out) second_forward(e);
      if (kind == 2 && (a.by_x || a.by_w)) second(e);
      if (kind == 2 && a.by_y) second_by_harmonics(e);
      if (a.by_y) memcpy(a.by_y + edge * ROWS, by_y, sizeof by_y);
    }
  }
  for (; a.out && cleared < o.node[t + 1]; cleared++)
    memset(a.out + cleared * TARGET, 0, sizeof(real) * TARGET);
}

extern "C" int launch(int kind, int64_t nodes, int64_t edges, int64_t threads,
                      const int64_t *edge_index, const Tensors *a) {
  Order o = {};
  o.nodes = nodes, o.edges = edges, o.threads = threads;
  o.neighbour = edge_index, o.centre = edge_index + edges;
  large_pages(a->out, sizeof(real) * TARGET * nodes);
  large_pages(a->by_x, sizeof(real) * SOURCE * nodes);
  large_pages(a->by_w, sizeof(real) * WEIGHTS * edges);
  return run(o, a->by_x, false, [&](int64_t t) {
    if (kind == 0) sweep<0>(o, *a, t);
    if (kind == 1) sweep<1>(o, *a, t);
    if (kind == 2) sweep<2>(o, *a, t);
  });
}
