/* glibc gives each thread an arena of its own, and keeps in it what any buffer of up to 32 MiB has left behind. Here a
 * dozen threads hand large buffers to one another: one arena for all, and the largest buffers not in it, take half of the
 * memory and no more time (docs/decisions/0014). Before main, since threads have their arenas from then on. */
#include <features.h>

#ifdef __GLIBC__
#include <malloc.h>

__attribute__((constructor)) static void set_allocator(void) {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 2000000);
}
#endif
