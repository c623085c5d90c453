// The loops over elements, blocks of channels and nodes, the same for all symmetric contractions;
// what is done for the channels of one node (forward, first, ...) is generated.

// The tensors; null: not given or not asked for.
struct Tensors {
  const real *x, *w, *g, *u_x, *u_w;
  real *out, *by_x, *by_w;
};

// Nodes that are worked on together: few enough for the first-level cache.
enum { NODES = 8 };

// Nodes grouped by element.
struct Order {
  int64_t nodes, elements;
  const int64_t *element;
  int64_t *first;             // [elements + 1] where an element's nodes begin in `node`
  int64_t *node;              // [nodes]
};

// 0, or 2: a node of an element that is not there
static int arrange(Order &o) {
  for (int64_t e = 0; e <= o.elements; e++) o.first[e] = 0;
  for (int64_t n = 0; n < o.nodes; n++) {
    if ((uint64_t)o.element[n] >= (uint64_t)o.elements) return 2;
    o.first[o.element[n] + 1]++;
  }
  for (int64_t e = 0; e < o.elements; e++) o.first[e + 1] += o.first[e];
  for (int64_t n = 0; n < o.nodes; n++) o.node[o.first[o.element[n]]++] = n;
  for (int64_t e = o.elements; e > 0; e--) o.first[e] = o.first[e - 1];
  o.first[0] = 0;
  return 0;
}

// The nodes of one element, LANES of their channels. No other call writes there, so that results
// are the same bits however calls are spread over threads. `kind`: 0 the output, 1 first
// derivatives, 2 either along tangents, the output without g.
static void sweep(int kind, const Order &o, const Tensors &a, int64_t element, int block) {
  const int begin = block * LANES, left = CHANNELS - begin, count = left < LANES ? left : LANES;
  const int64_t weights = element * PATHS * CHANNELS + begin;
  V w[PATHS], c[SLOTS], u_c[SLOTS], by_c[SLOTS];
  memset(by_c, 0, sizeof by_c);
  if (o.first[element] < o.first[element + 1]) {
    read(a.w + weights, PATHS, count, w);
    combine(w, c);
    read(a.u_w ? a.u_w + weights : 0, PATHS, count, w);
    combine(w, u_c);
  }
  const int64_t last = o.first[element + 1];
  for (int64_t s = o.first[element]; s < last; s += NODES) {
    const int nodes = last - s < NODES ? (int)(last - s) : NODES;
    V x[NODES * ROWS], u[NODES * ROWS], by_x[NODES * ROWS];
    V g[NODES * TARGETS], out[NODES * TARGETS];
    memset(out, 0, sizeof out);
    memset(by_x, 0, sizeof by_x);
    for (int k = 0; k < nodes; k++) {
      const int64_t source = o.node[s + k] * ROWS * CHANNELS + begin;
      const int64_t target = o.node[s + k] * TARGETS * CHANNELS + begin;
      read(a.x + source, ROWS, count, x + k * ROWS);
      if (kind == 2) read(a.u_x ? a.u_x + source : 0, ROWS, count, u + k * ROWS);
      if (a.g) read(a.g + target, TARGETS, count, g + k * TARGETS);
    }
    if (kind == 0) forward(nodes, x, c, out);
    if (kind == 1) first(nodes, x, c, g, by_x, by_c);
    if (kind == 2 && a.g) second(nodes, x, c, g, u, u_c, out, by_x, by_c);
    if (kind == 2 && !a.g) along(nodes, x, c, u, u_c, out);
    for (int k = 0; k < nodes; k++) {
      const int64_t source = o.node[s + k] * ROWS * CHANNELS + begin;
      const int64_t target = o.node[s + k] * TARGETS * CHANNELS + begin;
      if (a.out) write(out + k * TARGETS, TARGETS, count, a.out + target);
      if (a.by_x) write(by_x + k * ROWS, ROWS, count, a.by_x + source);
    }
  }
  if (a.by_w) {
    separate(by_c, w);
    write(w, PATHS, count, a.by_w + weights);
  }
}

extern "C" int launch(int kind, int64_t nodes, int64_t elements, int64_t threads,
                      const int64_t *element, const Tensors *a) {
  Order o = {};
  o.nodes = nodes, o.elements = elements, o.element = element;
  o.first = (int64_t *)malloc(sizeof(int64_t) * (elements + 1 + nodes));
  if (!o.first) return 1;
  o.node = o.first + elements + 1;
  const int problem = arrange(o);
  if (!problem) {
    large_pages(a->out, sizeof(real) * nodes * TARGETS * CHANNELS);
    large_pages(a->by_x, sizeof(real) * nodes * ROWS * CHANNELS);
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads)
#endif
    for (int64_t task = 0; task < elements * BLOCKS; task++)
      sweep(kind, o, *a, task / BLOCKS, (int)(task % BLOCKS));
  }
  free(o.first);
  return problem;
}
