// The loops over centres and edges of what takes features into the frames of edges or back; what is
// done for one edge (all_degrees) is generated.

// The tensors; null: not given or not asked for.
struct Tensors {
  const real *a, *w, *d, *b, *u_a, *u_w, *u_d, *u_b;
  real *by_a, *by_w, *by_d, *by_b;
};

template <class T> static inline T *row_of(T *p, int64_t row, int64_t size) {
  return p ? p + row * size : 0;
}

// One thread's edges.
template <bool along> static void sweep(const Order &o, const Tensors &t, int64_t thread) {
  static const real zeros[FRAME + WEIGHTS] = {};
  int64_t cleared = o.node[thread];
  for (int64_t s = o.first[o.node[thread]]; s < o.first[o.node[thread + 1]]; s++) {
    const int64_t edge = o.edge[s], i = o.centre[edge], j = o.neighbour[edge];
    for (; BACK && t.by_b && cleared <= i; cleared++)
      memset(t.by_b + cleared * SOURCE, 0, sizeof(real) * SOURCE);
    Edge e;
    e.a = row_of(t.a, edge, FEATURES);
    e.w = row_of(t.w, edge, WEIGHTS);
    e.d = row_of(t.d, edge, FRAME);
    e.u_a = row_of(t.u_a, edge, FEATURES);
    e.u_w = t.u_w ? t.u_w + edge * WEIGHTS : zeros;
    e.u_d = t.u_d ? t.u_d + edge * FRAME : zeros;
    e.by_a = row_of(t.by_a, edge, FEATURES);
    e.by_w = row_of(t.by_w, edge, WEIGHTS);
    e.by_d = row_of(t.by_d, edge, FRAME);
    for (int end = 0; end < ENDS; end++) {
      const int64_t node = BACK || end ? i : j;
      e.b[end] = row_of(t.b, node, SOURCE);
      e.u_b[end] = row_of(t.u_b, node, SOURCE);
      e.by_b[end] = 0;
      if (t.by_b)
        e.by_b[end] = BACK ? t.by_b + node * SOURCE
                           : o.part[thread] + (node - o.low[thread]) * SOURCE;
    }
    // Elements that are not used here have no derivative.
    if (e.by_d) memset(e.by_d, 0, sizeof(real) * FRAME);
    all_degrees<along>(e);
  }
  for (; BACK && t.by_b && cleared < o.node[thread + 1]; cleared++)
    memset(t.by_b + cleared * SOURCE, 0, sizeof(real) * SOURCE);
}

// `kind`: 0 the output, 1 first derivatives, 2 either along tangents, the output without g. A
// centre's edges are one thread's, so back from the frames no two threads add to the same row.
extern "C" int launch(int kind, int64_t nodes, int64_t edges, int64_t threads,
                      const int64_t *edge_index, const Tensors *t) {
  Order o = {};
  o.nodes = nodes, o.edges = edges, o.threads = threads;
  o.neighbour = edge_index, o.centre = edge_index + edges;
  large_pages(t->by_a, sizeof(real) * FEATURES * edges);
  large_pages(t->by_w, sizeof(real) * WEIGHTS * edges);
  large_pages(t->by_b, sizeof(real) * SOURCE * nodes);
  return run(o, BACK ? 0 : t->by_b, ENDS == 2, [&](int64_t thread) {
    if (kind == 2) sweep<true>(o, *t, thread);
    else sweep<false>(o, *t, thread);
  });
}
