// Vectors of channels: how wide they are here, and how rows of tensors come into them and back.
// `real` (float or double) is defined by the file that includes this one.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__AVX512F__)
enum { VECTOR = 64 / sizeof(real) };
#elif defined(__AVX__)
enum { VECTOR = 32 / sizeof(real) };
#else
enum { VECTOR = 16 / sizeof(real) };
#endif

#if defined(__clang__)
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define ROLLED _Pragma("GCC unroll 1")
#endif

// Lanes for so many channels: the machine's, or the power of two that holds them, of at least two.
static constexpr int width(int channels, int lanes = VECTOR) {
  return lanes > 2 && lanes / 2 >= channels ? width(channels, lanes / 2) : lanes;
}

template <int N> struct lanes {
  typedef real type __attribute__((vector_size(N * sizeof(real))));
  static inline real total(type v) {
    typename lanes<N / 2>::type low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    return lanes<N / 2>::total(low + high);
  }
};
template <> struct lanes<1> {
  typedef real type;
  static inline real total(type v) { return v; }
};

template <class V> static inline V load(const real *p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class V> static inline void store(real *p, V v) { memcpy(p, &v, sizeof v); }
template <class V> static inline void add(real *p, V v) { store<V>(p, load<V>(p) + v); }
