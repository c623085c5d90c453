// Rows of a node or an edge, one vector of their CHANNELS at a time; that number is defined by the
// file that includes this one.

enum { LANES = width(CHANNELS), BLOCKS = (CHANNELS + LANES - 1) / LANES };
typedef lanes<LANES>::type V;
// What is generated is long, and is not to be copied to where it is called.
#define KERNEL static __attribute__((noinline)) void

// `count` channels of each of `rows`; zeros in lanes that are left and where there is no tensor.
static inline void read(const real *p, int rows, int count, V *to) {
  for (int row = 0; row < rows; row++) {
    V v = {};
    if (p && count == LANES) v = load<V>(p + row * CHANNELS);
    if (p && count < LANES) memcpy(&v, p + row * CHANNELS, sizeof(real) * count);
    to[row] = v;
  }
}
static inline void write(const V *from, int rows, int count, real *p) {
  for (int row = 0; row < rows; row++) {
    if (count == LANES) store<V>(p + row * CHANNELS, from[row]);
    else memcpy(p + row * CHANNELS, from + row, sizeof(real) * count);
  }
}
