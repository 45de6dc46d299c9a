/* glibc gives each thread an arena of its own, and keeps in it what any buffer of up to 32 MiB has left behind. Here a
 * dozen threads hand large buffers to one another: one arena for all, and the largest buffers not in it, take half of the
 * memory and no more time; and what falls free at its end is not given back before it is much, for it is asked for again
 * at once (docs/decisions/0014). Before main, since threads have their arenas from then on. */
#include <features.h>

#ifdef __GLIBC__
#include <malloc.h>

__attribute__((constructor)) static void set_allocator(void) {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 2000000);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
}
#endif
