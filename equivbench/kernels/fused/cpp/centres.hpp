// The loops over threads, centres, blocks of channels and edges of an edge product; what is done
// for one edge or one matrix (forward, couple, ...) is generated.

// The tensors; null: not given or not asked for. y are harmonics, v the environment's factors.
struct Tensors {
  const real *x, *y, *v, *w, *g, *u_x, *u_y, *u_v, *u_w;
  real *out, *by_x, *by_y, *by_v, *by_w;
};

static inline int degree_of(int row) {
  int degree = 0;
  while ((degree + 1) * (degree + 1) <= row) degree++;
  return degree;
}

// Rows of the environment that an edge adds: v Y, for each of its rows.
static inline void surround(const V *v, const real *y, V *env) {
  for (int degree = 0; degree < DEGREES; degree++)
    for (int row = degree * degree; row < (degree + 1) * (degree + 1); row++)
      env[row] += v[degree] * y[row];
}

// Back from the environment to one edge: by v and, summed over the channels, by Y.
static inline void unravel(const V *by_env, const real *y, const V *v, V *by_v, real *by_y) {
  for (int degree = 0; degree < DEGREES; degree++)
    for (int row = degree * degree; row < (degree + 1) * (degree + 1); row++) {
      by_v[degree] += by_env[row] * y[row];
      by_y[row] += lanes<LANES>::total(by_env[row] * v[degree]);
    }
}

// LANES channels of the edges of one centre. `kind`: 0 the output, 1 first derivatives, 2 either
// along tangents, the output without g. The gradient by w is added to `by_w`.
static void sweep(int kind, const Order &o, const Tensors &a, int64_t centre, int block,
                  real *by_w) {
  const int begin = block * LANES, left = CHANNELS - begin, count = left < LANES ? left : LANES;
  const int64_t from = o.first[centre], to = o.first[centre + 1];
  const bool back = a.by_y || a.by_v || a.by_w;
  V w[PATHS], u_w[PATHS], env[ROWS], u_env[ROWS], m[SLOTS], n[SLOTS], by_m[SLOTS], along_m[SLOTS];
  V v[DEGREES], u_v[DEGREES];
  static const real zeros[ROWS] = {};
  memset(env, 0, sizeof env);
  memset(u_env, 0, sizeof u_env);
  memset(by_m, 0, sizeof by_m);
  memset(along_m, 0, sizeof along_m);
  read(a.w + begin, PATHS, count, w);
  if (kind == 2) read(a.u_w ? a.u_w + begin : 0, PATHS, count, u_w);
  for (int64_t s = from; s < to; s++) {
    const int64_t edge = o.edge[s], place = edge * DEGREES * CHANNELS + begin;
    read(a.v + place, DEGREES, count, v);
    surround(v, a.y + edge * ROWS, env);
    if (kind == 2 && a.u_y) surround(v, a.u_y + edge * ROWS, u_env);
    if (kind == 2 && a.u_v) {
      read(a.u_v + place, DEGREES, count, u_v);
      surround(u_v, a.y + edge * ROWS, u_env);
    }
  }
  couple(w, env, m);
  if (kind == 2) couple_along(w, env, u_w, u_env, n);
  for (int64_t s = from; s < to; s++) {
    const int64_t place = o.edge[s] * ROWS * CHANNELS + begin;
    V x[ROWS], u[ROWS], g[ROWS], out[ROWS], by_x[ROWS];
    read(a.x + place, ROWS, count, x);
    if (a.g) read(a.g + place, ROWS, count, g);
    if (kind == 2) read(a.u_x ? a.u_x + place : 0, ROWS, count, u);
    if (kind == 0) forward(m, x, out);
    if (kind == 2 && a.out) along(m, n, x, u, out);
    if (kind == 1) first(m, x, g, by_x, by_m);
    if (kind == 2 && a.g) second(n, x, u, g, by_x, by_m, along_m);
    if (a.out) write(out, ROWS, count, a.out + place);
    if (a.by_x) write(by_x, ROWS, count, a.by_x + place);
  }
  if (!back) return;
  V by_env[ROWS], along_env[ROWS], weights[PATHS];
  memset(by_env, 0, sizeof by_env);
  memset(along_env, 0, sizeof along_env);
  read(by_w ? by_w + begin : 0, PATHS, count, weights);
  if (kind == 1) separate(w, env, by_m, weights, by_env);
  if (kind == 2) separate_along(w, env, u_w, u_env, by_m, along_m, weights, by_env, along_env);
  if (by_w) write(weights, PATHS, count, by_w + begin);
  if (!a.by_y && !a.by_v) return;
  for (int64_t s = from; s < to; s++) {
    const int64_t edge = o.edge[s], place = edge * DEGREES * CHANNELS + begin;
    const real *y = a.y + edge * ROWS;
    V by_v[DEGREES];
    real by_y[ROWS] = {};
    memset(by_v, 0, sizeof by_v);
    read(a.v + place, DEGREES, count, v);
    if (kind == 1) unravel(by_env, y, v, by_v, by_y);
    if (kind == 2) {
      read(a.u_v ? a.u_v + place : 0, DEGREES, count, u_v);
      unravel(along_env, y, v, by_v, by_y);
      unravel(by_env, a.u_y ? a.u_y + edge * ROWS : zeros, u_v, by_v, by_y);
    }
    if (a.by_v) write(by_v, DEGREES, count, a.by_v + place);
    for (int row = 0; a.by_y && row < ROWS; row++) {
      real *to_row = a.by_y + edge * ROWS + row;
      *to_row = block ? *to_row + by_y[row] : by_y[row];
    }
  }
}

// 0, or 1: no memory, 2: a centre that is not there
extern "C" int launch(int kind, int64_t nodes, int64_t edges, int64_t threads,
                      const int64_t *centre_of, const Tensors *a) {
  Order o = {};
  o.nodes = nodes, o.edges = edges, o.threads = threads;
  o.neighbour = o.centre = centre_of;
  const int64_t count = nodes + 1 + edges + threads + 1 + 2 * threads;
  const int64_t weights = a->by_w ? (int64_t)PATHS * CHANNELS : 0;
  int64_t *space = (int64_t *)malloc(sizeof(int64_t) * count);
  real *parts = (real *)calloc(weights * threads + 1, sizeof(real));
  int problem = !space || !parts;
  if (!problem) {
    o.first = space;
    o.edge = o.first + nodes + 1;
    o.node = o.edge + edges;
    o.low = o.node + threads + 1;
    o.high = o.low + threads;
    problem = arrange(o);
  }
  if (!problem) {
    large_pages(a->out, sizeof(real) * edges * ROWS * CHANNELS);
    large_pages(a->by_x, sizeof(real) * edges * ROWS * CHANNELS);
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads((int)threads)
#endif
    for (int64_t t = 0; t < threads; t++)
      for (int64_t centre = o.node[t]; centre < o.node[t + 1]; centre++)
        for (int block = 0; block < BLOCKS && o.first[centre] < o.first[centre + 1]; block++)
          sweep(kind, o, *a, centre, block, weights ? parts + t * weights : 0);
    // The parts added up in the order of the threads.
    for (int64_t n = 0; n < weights; n++) {
      a->by_w[n] = 0;
      for (int64_t t = 0; t < threads; t++) a->by_w[n] += parts[t * weights + n];
    }
  }
  free(space);
  free(parts);
  return problem;
}
