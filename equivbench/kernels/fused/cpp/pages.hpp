// A result is often memory that the process has never touched, and bringing that in by small pages
// takes longer than filling it: ask for large ones (a hint, which a kernel without them ignores).
static void large_pages(const void *p, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  enum { PAGE = 4096, LARGE = 4 << 20 };
  const uintptr_t begin = ((uintptr_t)p + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = ((uintptr_t)p + bytes) / PAGE * PAGE;
  if (p && bytes >= LARGE) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#endif
}
