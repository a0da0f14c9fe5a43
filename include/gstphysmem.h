/* SPDX-License-Identifier: MPL-2.0 */
/**
 * gstphysmem.h: where a buffer's memory is, and pools over memory of the application, for C
 * and C++. Made by cbindgen of src/ffi.rs, src/meta/ffi.rs and cbindgen.toml.
 *
 * To read the meta, link nothing: what is for it is inline, at the end. Load the plugin as
 * any other (its elements do that, or gst_plugin_load_by_name("physmem")). The functions
 * before, gst_phys_..., are the library's, which is the plugin: link it (pkg-config --cflags
 * --libs gstphysmem), and call gst_init() first.
 *
 * The pool is a GObject and needs no header at all:
 *
 *   GstPlugin *plugin = gst_plugin_load_by_name ("physmem");
 *   GstBufferPool *pool = g_object_new (g_type_from_name ("GstPhysBufferPool"), NULL);
 *   gst_object_ref_sink (pool);
 *
 * Its properties, the first five given to g_object_new() and not changed later:
 *
 *   kind                GstPhysMemoryKind  what the buffers are made of
 *   heap                gchararray         a dma-heap below /dev/dma_heap; of kind udmabuf: hugetlb, shmem;
 *                                          of kind region: the memory, as in /dev/mem@0x30000000+64M
 *   require-dma-buf     gboolean           with kind auto: pass over kinds without a dma-buf
 *   require-contiguous  gboolean           only memory that is one physical piece
 *   max-address         guint64            refuse memory beyond, 0 for no limit
 *   free, filled, total guint              buffers, read only
 *   buffer-size         guint64            bytes, read only
 *   stats               GstStructure       counters, state and address of each buffer, read only
 *   last-error          gchararray         why the last activation, configuration or signal that failed
 *                                          did, read only; of what GStreamer refuses without asking the
 *                                          pool (activation before configuration, configuration while
 *                                          active) it knows nothing
 *
 * Its action signals, for g_signal_emit_by_name(). Buffers returned are the caller's to unref;
 * buffers given stay the caller's too (the signal takes a reference of its own): unref after
 * submit-filled and release-filled. A timeout is in nanoseconds, 0 for no wait, -1 for ever.
 *
 *   acquire-free    (gint64 timeout) -> GstBuffer or NULL   a free buffer, to be filled
 *   submit-filled   (GstBuffer)      -> gboolean            to the end of the filled queue
 *   acquire-filled  (gint64 timeout) -> GstBuffer or NULL   the oldest filled buffer
 *   release-filled  (GstBuffer)      -> gboolean            ends the consumer's use of it
 *   buffer-by-id    (guint id)       -> GstBuffer or NULL   for an interrupt that knows the id
 *   describe        (GstBuffer)      -> GstStructure or NULL, what the meta says; `extents` by
 *                                       gst_structure_get_array()
 *   export-dmabuf   (guint id)       -> gint, a new descriptor that the caller closes, or -1
 *   add-memory      (guint64 data, guint64 size, GVariant extents, gint dmabuf_fd, GObject owner)
 *                                    -> gboolean, for a pool of kind external that is not configured
 *                                       yet: as gst_phys_buffer_handle_new_full(), with extents of type
 *                                       a(tt) or NULL, and owner kept as long as the memory is in use
 *   add-dmabuf      (gint dmabuf_fd) -> gboolean, the same with a whole dma-buf, which the pool maps; it
 *                                       takes a duplicate
 *   validate        (guint id)       -> gboolean
 *   validate-all    ()               -> gboolean
 *   dump            ()               -> gchararray, one line a buffer, for people
 *
 * Signal `validating` (guint id) -> gboolean is emitted by validate; a handler that returns
 * FALSE declares the buffer invalid, as one does in Python that raises or returns nothing.
 */
#ifndef GST_PHYS_MEM_H
#define GST_PHYS_MEM_H

#include <gst/gst.h>
#include <stddef.h>
#include <stdint.h>

G_BEGIN_DECLS

#ifdef __GI_SCANNER__
typedef struct _GstPhysBufferPool GstPhysBufferPool;
struct _GstPhysBufferPool { GstBufferPool parent; };
#else
/** The pool. In C it is another name of GstBufferPool, so that no call needs a cast. */
typedef GstBufferPool GstPhysBufferPool;
#endif

/**
 * Flag of GstPhysMemMeta: source, phys_addr and extents are valid.
 */
#define GST_PHYS_MEM_FLAG_ADDRESS_KNOWN (1 << 0)

/**
 * Flag of GstPhysMemMeta: one extent holds the whole buffer.
 */
#define GST_PHYS_MEM_FLAG_CONTIGUOUS (1 << 1)

/**
 * Flag of GstPhysMemMeta: the kernel cannot move the pages, so the address stays true.
 */
#define GST_PHYS_MEM_FLAG_PINNED (1 << 2)

/**
 * Flag of GstPhysMemMeta: the pool did not allocate the memory.
 */
#define GST_PHYS_MEM_FLAG_EXTERNAL (1 << 3)

/**
 * Flag of GstPhysMemMeta: another process sent the memory, and what the meta says of it.
 */
#define GST_PHYS_MEM_FLAG_RECEIVED (1 << 4)

/**
 * The phys_addr of a block whose address is to be looked up in /proc/self/pagemap, which needs
 * CAP_SYS_ADMIN.
 */
#define GST_PHYS_ADDR_UNKNOWN 0

/**
 * Where a buffer's memory comes from.
 */
typedef enum GstPhysMemoryKind {
  /**
   * The first of cma, udmabuf, hugepage and normal that works.
   */
  GST_PHYS_MEMORY_KIND_AUTO,
  /**
   * A dma-buf heap over the contiguous memory allocator.
   */
  GST_PHYS_MEMORY_KIND_CMA,
  /**
   * The dma-buf heap `system`, or the heap that the request names.
   */
  GST_PHYS_MEMORY_KIND_SYSTEM,
  /**
   * A memfd exported as a dma-buf by /dev/udmabuf.
   */
  GST_PHYS_MEMORY_KIND_UDMABUF,
  /**
   * A memfd of huge pages.
   */
  GST_PHYS_MEMORY_KIND_HUGEPAGE,
  /**
   * A memfd of normal pages.
   */
  GST_PHYS_MEMORY_KIND_NORMAL,
  /**
   * Memory that the application or a driver owns.
   */
  GST_PHYS_MEMORY_KIND_EXTERNAL,
  /**
   * Memory that exists already at a known physical address, and that the heap names.
   */
  GST_PHYS_MEMORY_KIND_REGION,
} GstPhysMemoryKind;

/**
 * Where an address was learnt.
 */
typedef enum GstPhysAddressSource {
  /**
   * /proc/self/pagemap.
   */
  GST_PHYS_ADDRESS_SOURCE_PAGEMAP,
  /**
   * The kernel's cma tracepoint, seen while the block was allocated.
   */
  GST_PHYS_ADDRESS_SOURCE_CMA_TRACE,
  /**
   * `smem_start` of a framebuffer (struct fb_fix_screeninfo).
   */
  GST_PHYS_ADDRESS_SOURCE_SMEM_START,
  /**
   * The owner of external memory gave it, or the name of memory of /dev/mem.
   */
  GST_PHYS_ADDRESS_SOURCE_USER,
  /**
   * A driver told it in sysfs: UIO, u-dma-buf, PCI.
   */
  GST_PHYS_ADDRESS_SOURCE_SYSFS,
} GstPhysAddressSource;

/**
 * Why a function below returned NULL, FALSE or -1. The error domain is GST_PHYS_POOL_ERROR.
 */
typedef enum GstPhysPoolError {
  /**
   * A system call failed; the message has the details.
   */
  GST_PHYS_POOL_ERROR_FAILED = 0,
  /**
   * No buffer came within the timeout.
   */
  GST_PHYS_POOL_ERROR_NO_BUFFER = 1,
  /**
   * The pool is flushing or inactive.
   */
  GST_PHYS_POOL_ERROR_FLUSHING = 2,
  /**
   * No more memory can be allocated.
   */
  GST_PHYS_POOL_ERROR_NO_MEMORY = 3,
  /**
   * The buffer's state does not allow the operation, or the buffer is not one of this pool's.
   */
  GST_PHYS_POOL_ERROR_ILLEGAL_STEP = 4,
  /**
   * No buffer of the pool has this id.
   */
  GST_PHYS_POOL_ERROR_NO_SUCH_ID = 5,
  /**
   * The owner of the memory has freed it.
   */
  GST_PHYS_POOL_ERROR_GONE = 6,
  /**
   * Memory of this kind has no dma-buf.
   */
  GST_PHYS_POOL_ERROR_NO_DMA_BUF = 7,
} GstPhysPoolError;

/**
 * Owns a block of memory together with the function that frees it. In languages that count references for
 * their programs, the block is freed when program and pool have both given it up.
 */
typedef struct GstPhysBufferHandle GstPhysBufferHandle;

/**
 * A block of memory that stays mapped read-write as long as its pool and the pool's buffers exist.
 */
typedef struct GstPhysMemBlock {
  /**
   * First byte, as the CPU sees it, not NULL.
   */
  gpointer data;
  /**
   * Length in bytes, not 0.
   */
  size_t size;
  /**
   * Physical address of the first byte, for a block in one physical extent; it is not verified. Or
   * GST_PHYS_ADDR_UNKNOWN.
   */
  uint64_t phys_addr;
} GstPhysMemBlock;

/**
 * A run of physically contiguous bytes.
 */
typedef struct GstPhysExtent {
  /**
   * Address of the first byte, as the memory controller counts: not an address behind an IOMMU.
   */
  uint64_t phys_addr;
  /**
   * Length in bytes.
   */
  uint64_t size;
} GstPhysExtent;

/**
 * What is known of a buffer's memory, to be read only. The meta owns what its pointers point to,
 * which stays valid as long as the meta, that is, as long as the buffer.
 *
 * A copy of the buffer keeps the meta only if it shares the whole memory, so that the address is
 * never that of other bytes. phys_addr and extents describe the buffer as the pool handed it out;
 * for a buffer that was resized since, use gst_buffer_get_phys_addr(). They are valid only if
 * gst_phys_mem_meta_is_address_known() says so; an address of 0 means nothing.
 */
typedef struct GstPhysMemMeta {
  /**
   * The GstMeta that this struct extends.
   */
  GstMeta meta;
  /**
   * The buffer's id: never 0, unique in the process that has the pool, the same for each use.
   */
  uint32_t id;
  /**
   * Bits of GST_PHYS_MEM_FLAG_...
   */
  uint32_t flags;
  /**
   * A GstPhysMemoryKind.
   */
  int32_t kind;
  /**
   * A GstPhysAddressSource, valid if the address is known.
   */
  int32_t source;
  /**
   * Physical address of the first byte, valid if the address is known.
   */
  uint64_t phys_addr;
  /**
   * Size of the buffer in bytes.
   */
  uint64_t size;
  /**
   * Offset in bytes at which the buffer began in its memory.
   */
  uint64_t offset;
  /**
   * The physically contiguous pieces in the order of the bytes, or NULL.
   */
  const GstPhysExtent *extents;
  /**
   * Number of extents, 0 if the address is unknown.
   */
  uint32_t n_extents;
  /**
   * File descriptor of the dma-buf, or -1. The memory owns it: dup() it to keep it, and never
   * close it. For a buffer that was received, ask the memory itself.
   */
  int32_t dmabuf_fd;
  /**
   * Name of the dma-heap or device that the memory came from, or NULL.
   */
  const char *heap;
  /**
   * Why the address is unknown, in one sentence, or NULL.
   */
  const char *unknown_reason;
  /**
   * The memory that the meta describes, only to be compared; NULL if it was received.
   */
  const GstMemory *memory;
  /**
   * Private: returns FALSE once the owner of external memory has freed it.
   */
  gboolean (*is_alive)(const struct GstPhysMemMeta *meta);
  /**
   * Private: returns whether the meta describes this memory.
   */
  gboolean (*is_about)(const struct GstPhysMemMeta *meta, GstMemory *memory);
  /**
   * Private.
   */
  gpointer opaque;
  /**
   * Private: the buffer that the meta is on.
   */
  const GstBuffer *buffer;
} GstPhysMemMeta;

/**
 * gst_phys_buffer_pool_get_type:
 *
 * The type of the pool: GST_TYPE_PHYS_BUFFER_POOL.
 */
GType gst_phys_buffer_pool_get_type(void);

/**
 * gst_phys_buffer_pool_new:
 * @kind: (type GstPhysMemoryKind): a GstPhysMemoryKind; GST_PHYS_MEMORY_KIND_AUTO takes the first that works
 *
 * Makes a pool that allocates memory of this kind when it is activated. For the other properties there is
 * g_object_new() with GST_TYPE_PHYS_BUFFER_POOL.
 *
 * Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, for another number
 */
GstBufferPool *gst_phys_buffer_pool_new(int kind);

/**
 * gst_phys_buffer_pool_new_with_regions:
 * @blocks: (array length=n_blocks): the blocks
 * @n_blocks: number of blocks
 *
 * Makes a pool with one buffer for each block. The blocks must outlive the pool and every buffer and
 * memory that came from it. Configure the pool with a buffer size that fits into the smallest block. The
 * array is copied.
 *
 * Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, for a block without data or
 * size, or that ends beyond the last address
 *
 * # Safety
 * `blocks` points to `n_blocks` blocks of memory that no other code manages.
 */
GstBufferPool *gst_phys_buffer_pool_new_with_regions(const GstPhysMemBlock *blocks,
                                                     uint32_t n_blocks);

/**
 * gst_phys_memory_kind_get_type:
 *
 * The type of GstPhysMemoryKind.
 */
GType gst_phys_memory_kind_get_type(void);

/**
 * gst_phys_buffer_handle_get_type:
 *
 * The boxed type of handles. A copy is one more owner of the same block.
 */
GType gst_phys_buffer_handle_get_type(void);

/**
 * gst_phys_buffer_handle_new:
 * @data: first byte
 * @size: length in bytes
 * @phys_addr: physical address of the first byte, as in GstPhysMemBlock
 * @destroy: (scope async) (closure user_data) (nullable): frees the block
 * @user_data: for destroy
 *
 * Takes over data, size bytes, which stay mapped read-write until destroy is called with user_data (a
 * pointer to what free, munmap or cudaFree need to know). destroy runs exactly once, on any thread: when
 * the handle is freed or, if a buffer over it is mapped then, right after the last unmap. A device that
 * uses the memory does not delay destroy: keep the buffer mapped meanwhile.
 *
 * Returns: (transfer full) (nullable): the handle; NULL, and a critical warning, for values that describe
 * no block (see GstPhysMemBlock); nothing is taken over in that case
 *
 * # Safety
 * `data` is a block of memory that no other code frees, and `destroy` can free it from any thread.
 */
GstPhysBufferHandle *gst_phys_buffer_handle_new(gpointer data,
                                                size_t size,
                                                uint64_t phys_addr,
                                                GDestroyNotify destroy,
                                                gpointer user_data);

/**
 * gst_phys_buffer_handle_new_full:
 * @data: first byte
 * @size: length in bytes
 * @extents: (array length=n_extents) (nullable): the pieces in the order of the bytes, size bytes in all; the
 *   array is copied. With NULL the addresses are looked up in /proc/self/pagemap.
 * @n_extents: number of pieces
 * @dmabuf_fd: a dma-buf over the same memory, whose first byte is that of data, or -1. The function duplicates
 *   it; the caller still closes its own. A map of a buffer tells the kernel of the CPU's access to it
 *   (DMA_BUF_IOCTL_SYNC).
 * @destroy: (scope async) (closure user_data) (nullable): frees the block
 * @user_data: for destroy
 *
 * As gst_phys_buffer_handle_new(), for memory in any number of physical pieces, and with its dma-buf.
 *
 * Returns: (transfer full) (nullable): the handle; NULL, and a critical warning, for values that describe
 * no block; nothing is taken over in that case
 *
 * # Safety
 * As gst_phys_buffer_handle_new(), and `extents` is NULL or points to `n_extents` extents.
 */
GstPhysBufferHandle *gst_phys_buffer_handle_new_full(gpointer data,
                                                     size_t size,
                                                     const GstPhysExtent *extents,
                                                     uint32_t n_extents,
                                                     int dmabuf_fd,
                                                     GDestroyNotify destroy,
                                                     gpointer user_data);

/**
 * gst_phys_buffer_handle_new_from_dmabuf:
 * @dmabuf_fd: the dma-buf, of which the function takes a duplicate; the caller still closes its own
 *
 * Maps a whole dma-buf read-write. The map ends when the handle is freed, as destroy of
 * gst_phys_buffer_handle_new() says. The addresses are looked up in /proc/self/pagemap, where drivers often show
 * none; if the driver tells them, map the dma-buf and use gst_phys_buffer_handle_new_full().
 *
 * Returns: (transfer full) (nullable): the handle; NULL with an error if the descriptor is no dma-buf, or
 * cannot be mapped
 *
 * # Safety
 * `error` is NULL or a place for an error.
 */
GstPhysBufferHandle *gst_phys_buffer_handle_new_from_dmabuf(int dmabuf_fd,
                                                            GError **error);

/**
 * gst_phys_buffer_handle_free: (skip)
 * @handle: (transfer full) (nullable): the handle
 *
 * Frees a handle that no pool owns. NULL is ignored.
 *
 * # Safety
 * `handle` is freed once, and was not given to a pool that owns it.
 */
void gst_phys_buffer_handle_free(GstPhysBufferHandle *handle);

/**
 * gst_phys_buffer_pool_new_with_handles:
 * @handles: (transfer full) (array length=n_handles): the handles; the array itself stays the caller's
 * @n_handles: number of handles
 *
 * Makes a pool that owns the handles. Each handle is freed when the pool and the last buffer and memory
 * that came from it are freed.
 *
 * Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle or the array is
 * NULL; no handle is taken in that case
 *
 * # Safety
 * `handles` points to `n_handles` handles, none twice; the pool owns them from now on.
 */
GstBufferPool *gst_phys_buffer_pool_new_with_handles(GstPhysBufferHandle *const *handles,
                                                     uint32_t n_handles);

/**
 * gst_phys_buffer_pool_new_with_borrowed_handles:
 * @handles: (transfer none) (array length=n_handles): the handles
 * @n_handles: number of handles
 *
 * Makes a pool that borrows the handles. The application may free each handle at any time. After that its
 * buffer is not handed out again, a map of the buffer fails, and `validate` returns FALSE.
 *
 * Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle or the array is
 * NULL
 *
 * # Safety
 * `handles` points to `n_handles` handles, none freed before this returns.
 */
GstBufferPool *gst_phys_buffer_pool_new_with_borrowed_handles(GstPhysBufferHandle *const *handles,
                                                              uint32_t n_handles);

/**
 * gst_phys_pool_error_quark:
 *
 * The domain of the errors above: GST_PHYS_POOL_ERROR.
 */
GQuark gst_phys_pool_error_quark(void);

/**
 * gst_phys_buffer_pool_acquire_free:
 * @pool: the pool
 * @timeout: nanoseconds; 0 does not wait, -1 waits for ever
 *
 * Returns a free buffer to be filled. Any number of threads may call this and the functions below at the
 * same time. Flushing or deactivating the pool ends every wait. Misuse of a function (a pool of another
 * type, a NULL buffer) is a critical warning, and sets no error.
 *
 * Returns: (transfer full) (nullable): the buffer
 *
 * # Safety
 * `pool` is an object, `error` NULL or a place for an error.
 */
GstBuffer *gst_phys_buffer_pool_acquire_free(GstPhysBufferPool *pool,
                                             int64_t timeout,
                                             GError **error);

/**
 * gst_phys_buffer_pool_submit_filled:
 * @pool: the pool
 * @buffer: (transfer full): the buffer, taken also when this fails (the signal of the same name takes
 *   none); in that case it is free again once its last reference is gone
 *
 * Puts a buffer at the end of the filled queue.
 *
 * # Safety
 * `pool` is an object, `error` NULL or a place for an error.
 */
gboolean gst_phys_buffer_pool_submit_filled(GstPhysBufferPool *pool,
                                            GstBuffer *buffer,
                                            GError **error);

/**
 * gst_phys_buffer_pool_acquire_filled:
 * @pool: the pool
 * @timeout: nanoseconds; 0 does not wait, -1 waits for ever
 *
 * Returns the oldest filled buffer.
 *
 * Returns: (transfer full) (nullable): the buffer
 *
 * # Safety
 * `pool` is an object, `error` NULL or a place for an error.
 */
GstBuffer *gst_phys_buffer_pool_acquire_filled(GstPhysBufferPool *pool,
                                               int64_t timeout,
                                               GError **error);

/**
 * gst_phys_buffer_pool_release_filled:
 * @pool: the pool
 * @buffer: (transfer full): the buffer, taken also when this fails (the signal of the same name takes none)
 *
 * Ends the consumer's use of a buffer. The buffer is free again when its last reference is gone.
 *
 * # Safety
 * `pool` is an object, `error` NULL or a place for an error.
 */
gboolean gst_phys_buffer_pool_release_filled(GstPhysBufferPool *pool,
                                             GstBuffer *buffer,
                                             GError **error);

/**
 * gst_phys_buffer_pool_export_dmabuf:
 * @pool: the pool
 * @id: the buffer's id
 *
 * Returns a new file descriptor of the dma-buf of the buffer with this id, to be given to another process.
 *
 * Returns: the descriptor, which the caller closes, or -1
 *
 * # Safety
 * `pool` is an object, `error` NULL or a place for an error.
 */
int gst_phys_buffer_pool_export_dmabuf(GstPhysBufferPool *pool,
                                       uint32_t id,
                                       GError **error);

/** The domain of the errors of this library. */
#define GST_PHYS_POOL_ERROR (gst_phys_pool_error_quark ())

/* The types, for programs that link with the library. */
#define GST_TYPE_PHYS_BUFFER_POOL (gst_phys_buffer_pool_get_type ())
#define GST_TYPE_PHYS_MEMORY_KIND (gst_phys_memory_kind_get_type ())
#define GST_TYPE_PHYS_BUFFER_HANDLE (gst_phys_buffer_handle_get_type ())
#define GST_IS_PHYS_BUFFER_POOL(object) (G_TYPE_CHECK_INSTANCE_TYPE ((object), GST_TYPE_PHYS_BUFFER_POOL))

/* What reads the meta is inline in C, so that a program links nothing for it. Other languages call functions
 * of the library that do the same. */
#ifdef __GI_SCANNER__
#define GST_PHYS_INLINE
#else
#define GST_PHYS_INLINE static inline
#endif

/**
 * gst_buffer_get_phys_mem_meta:
 * @buffer: a buffer
 *
 * The buffer's meta, or NULL. It costs a walk over the buffer's metas (and an fstat, for a buffer
 * that another process sent), and finds the type by its name: nothing needs to be linked, and a
 * process without the plugin finds that no buffer has it.
 *
 * NULL too once the buffer's memory is no longer that of the meta: GStreamer replaces the memory
 * of a shared buffer that is mapped for writing.
 *
 * Returns: (transfer none) (nullable): the meta, which the buffer owns
 */
GST_PHYS_INLINE const GstPhysMemMeta *gst_buffer_get_phys_mem_meta (GstBuffer *buffer);

/**
 * gst_phys_mem_meta_is_address_known:
 * @meta: the meta of a buffer
 *
 * Returns: TRUE if the meta says where the buffer is, and the memory was not freed by its owner
 */
GST_PHYS_INLINE gboolean gst_phys_mem_meta_is_address_known (const GstPhysMemMeta *meta);

/**
 * gst_phys_mem_meta_get_extents:
 * @meta: the meta of a buffer
 * @n_extents: (out): number of pieces, 0 if the address is unknown
 *
 * Returns: (array length=n_extents) (transfer none) (nullable): the physically contiguous pieces of
 *   the buffer as the pool handed it out
 */
GST_PHYS_INLINE const GstPhysExtent *gst_phys_mem_meta_get_extents (const GstPhysMemMeta *meta, guint32 *n_extents);

/**
 * gst_phys_mem_meta_address_at:
 * @meta: the meta of a buffer
 * @offset: which byte
 * @address: (out): its physical address
 *
 * Physical address of the byte at `offset` of the buffer as the pool handed it out.
 *
 * Returns: FALSE if it is unknown or `offset` is past the end
 */
GST_PHYS_INLINE gboolean gst_phys_mem_meta_address_at (const GstPhysMemMeta *meta, guint64 offset, guint64 *address);

/**
 * gst_buffer_get_phys_addr:
 * @buffer: a buffer
 * @address: (out): the physical address
 *
 * Physical address of the buffer's first byte as it is now, which may have been resized since
 * the pool handed it out.
 *
 * Returns: FALSE if it is unknown
 */
GST_PHYS_INLINE gboolean gst_buffer_get_phys_addr (GstBuffer *buffer, guint64 *address);

#ifndef __GI_SCANNER__

/* g_autoptr (GstPhysBufferHandle), until a pool owns the handle: g_steal_pointer(). */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (GstPhysBufferHandle, gst_phys_buffer_handle_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (GstPhysBufferPool, gst_object_unref)

GST_PHYS_INLINE const GstPhysMemMeta *
gst_buffer_get_phys_mem_meta (GstBuffer *buffer)
{
  static gsize api = 0;
  GType type = (GType) g_atomic_pointer_get (&api);
  const GstPhysMemMeta *meta;
  GstMemory *memory;

  if (G_UNLIKELY (type == 0)) {
    /* Registered when the plugin is loaded, for good. Until then each call asks again. */
    type = g_type_from_name ("GstPhysMemMetaAPI");
    if (type == 0)
      return NULL;
    g_atomic_pointer_set (&api, (gsize) type);
  }
  meta = (const GstPhysMemMeta *) (gpointer) gst_buffer_get_meta (buffer, type);
  if (meta == NULL || gst_buffer_n_memory (buffer) != 1)
    return NULL;
  memory = gst_buffer_peek_memory (buffer, 0);
  return memory == meta->memory || (meta->memory == NULL && meta->is_about (meta, memory)) ? meta : NULL;
}

GST_PHYS_INLINE gboolean
gst_phys_mem_meta_is_address_known (const GstPhysMemMeta *meta)
{
  if ((meta->flags & GST_PHYS_MEM_FLAG_ADDRESS_KNOWN) == 0)
    return FALSE;
  return (meta->flags & GST_PHYS_MEM_FLAG_EXTERNAL) == 0 || meta->is_alive (meta);
}

GST_PHYS_INLINE const GstPhysExtent *
gst_phys_mem_meta_get_extents (const GstPhysMemMeta *meta, guint32 *n_extents)
{
  gboolean known = gst_phys_mem_meta_is_address_known (meta);

  *n_extents = known ? meta->n_extents : 0;
  return known ? meta->extents : NULL;
}

GST_PHYS_INLINE gboolean
gst_phys_mem_meta_address_at (const GstPhysMemMeta *meta, guint64 offset, guint64 *address)
{
  guint32 i;

  if (!gst_phys_mem_meta_is_address_known (meta))
    return FALSE;
  for (i = 0; i < meta->n_extents; i++) {
    if (offset < meta->extents[i].size) {
      *address = meta->extents[i].phys_addr + offset;
      return TRUE;
    }
    offset -= meta->extents[i].size;
  }
  return FALSE;
}

GST_PHYS_INLINE gboolean
gst_buffer_get_phys_addr (GstBuffer *buffer, guint64 *address)
{
  const GstPhysMemMeta *meta = gst_buffer_get_phys_mem_meta (buffer);
  gsize offset;

  if (meta == NULL)
    return FALSE;
  gst_memory_get_sizes (gst_buffer_peek_memory (buffer, 0), &offset, NULL);
  return offset >= meta->offset && gst_phys_mem_meta_address_at (meta, offset - meta->offset, address);
}

#else

/* Other languages have these signals as methods, of the same names and with a GError. */
/**
 * GstPhysBufferPool::acquire-free: (skip)
 */
/**
 * GstPhysBufferPool::submit-filled: (skip)
 */
/**
 * GstPhysBufferPool::acquire-filled: (skip)
 */
/**
 * GstPhysBufferPool::release-filled: (skip)
 */
/**
 * GstPhysBufferPool::export-dmabuf: (skip)
 */

#endif

G_END_DECLS

#endif
