// Edges grouped by centre, and the share of each thread.

// Edges sorted by centre, and each thread's share: whole centres, about equally many edges.
struct Order {
  int64_t nodes, edges, threads;
  const int64_t *neighbour, *centre;
  int64_t *first;             // [nodes + 1] where a centre's edges begin in `edge`
  int64_t *edge;              // [edges]
  int64_t *node;              // [threads + 1]
  int64_t *low, *high;        // [threads] a thread's edges touch the neighbours low <= j < high
  real **part;                // [threads] where a thread adds up its gradient by x, row `low` first
};

// 0, or 1: no memory, 2: an edge to a node that is not there
static int arrange(Order &o) {
  for (int64_t n = 0; n <= o.nodes; n++) o.first[n] = 0;
  for (int64_t e = 0; e < o.edges; e++) {
    const uint64_t i = (uint64_t)o.centre[e], j = (uint64_t)o.neighbour[e];
    if (i >= (uint64_t)o.nodes || j >= (uint64_t)o.nodes) return 2;
    o.first[i + 1]++;
  }
  for (int64_t n = 0; n < o.nodes; n++) o.first[n + 1] += o.first[n];
  for (int64_t e = 0; e < o.edges; e++) o.edge[o.first[o.centre[e]]++] = e;
  for (int64_t n = o.nodes; n > 0; n--) o.first[n] = o.first[n - 1];
  o.first[0] = 0;
  o.node[0] = 0;
  for (int64_t t = 1; t < o.threads; t++) {
    int64_t n = o.node[t - 1];
    while (n < o.nodes && o.first[n] < o.edges * t / o.threads) n++;
    o.node[t] = n;
  }
  o.node[o.threads] = o.nodes;
  for (int64_t t = 0; t < o.threads; t++) {
    o.low[t] = o.nodes, o.high[t] = 0;
    for (int64_t s = o.first[o.node[t]]; s < o.first[o.node[t + 1]]; s++) {
      const int64_t j = o.neighbour[o.edge[s]];
      if (j < o.low[t]) o.low[t] = j;
      if (j >= o.high[t]) o.high[t] = j + 1;
    }
  }
  return 0;
}
