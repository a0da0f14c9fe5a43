/* SPDX-License-Identifier: MPL-2.0 */
/**
 * gstphysmem.h: where a buffer's memory is, for C and C++.
 *
 * Up to "Functions of the library" everything here is inline: include it, load the plugin as
 * any other (its elements do that, or gst_plugin_load_by_name("physmem")), link nothing.
 *
 * The pool is a GObject and needs no header at all:
 *
 *   GstPlugin *plugin = gst_plugin_load_by_name ("physmem");
 *   GstBufferPool *pool = g_object_new (g_type_from_name ("GstPhysBufferPool"), NULL);
 *
 * Its properties, the first five given to g_object_new() and not changed later:
 *
 *   kind                GstPhysMemoryKind  what the buffers are made of
 *   heap                gchararray         a dma-heap below /dev/dma_heap
 *   require-dma-buf     gboolean           with kind auto: pass over kinds without a dma-buf
 *   require-contiguous  gboolean           only memory that is one physical piece
 *   max-address         guint64            refuse memory beyond, 0 for no limit
 *   free, filled, total guint              buffers, read only
 *   buffer-size         guint64            bytes, read only
 *   stats               GstStructure       counters, state and address of each buffer, read only
 *   last-error          gchararray         why the last activation or signal that failed did, read only
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
 *   describe        (GstBuffer)      -> GstStructure or NULL, what the meta says
 *   export-dmabuf   (guint id)       -> gint, a new descriptor that the caller closes, or -1
 *   validate        (guint id)       -> gboolean
 *   validate-all    ()               -> gboolean
 *   dump            ()               -> gchararray, one line a buffer, for people
 *
 * Signal `validating` (guint id) -> gboolean is emitted by validate; a handler that returns
 * FALSE declares the buffer invalid.
 */
#ifndef GST_PHYS_MEM_H
#define GST_PHYS_MEM_H

#include <gst/gst.h>

G_BEGIN_DECLS

/** A run of physically contiguous bytes. */
typedef struct _GstPhysExtent {
  guint64 phys_addr; /**< first byte, as the memory controller counts: not behind an IOMMU */
  guint64 size;      /**< bytes */
} GstPhysExtent;

/** What a buffer is made of: the values of the GObject enumeration of the same name. */
typedef enum {
  GST_PHYS_MEMORY_KIND_AUTO = 0,     /**< asks for the best that works; never in a meta */
  GST_PHYS_MEMORY_KIND_CMA = 1,      /**< contiguous, dma-buf */
  GST_PHYS_MEMORY_KIND_SYSTEM = 2,   /**< scattered, dma-buf, address unknown */
  GST_PHYS_MEMORY_KIND_UDMABUF = 3,  /**< scattered, dma-buf */
  GST_PHYS_MEMORY_KIND_HUGEPAGE = 4, /**< contiguous within each huge page */
  GST_PHYS_MEMORY_KIND_NORMAL = 5,   /**< scattered */
  GST_PHYS_MEMORY_KIND_EXTERNAL = 6  /**< memory of somebody else */
} GstPhysMemoryKind;

/** Who said where the memory is. */
typedef enum {
  GST_PHYS_ADDRESS_SOURCE_PAGEMAP = 0,    /**< /proc/self/pagemap */
  GST_PHYS_ADDRESS_SOURCE_CMA_TRACE = 1,  /**< the kernel's cma tracepoint, at allocation */
  GST_PHYS_ADDRESS_SOURCE_SMEM_START = 2, /**< the framebuffer driver */
  GST_PHYS_ADDRESS_SOURCE_USER = 3        /**< the owner of external memory */
} GstPhysAddressSource;

/** Of GstPhysMemMeta.flags. */
typedef enum {
  GST_PHYS_MEM_FLAG_ADDRESS_KNOWN = 1 << 0, /**< source, phys_addr and extents are valid */
  GST_PHYS_MEM_FLAG_CONTIGUOUS = 1 << 1,    /**< one extent holds the whole buffer */
  GST_PHYS_MEM_FLAG_PINNED = 1 << 2,        /**< the pages cannot move: the address stays true */
  GST_PHYS_MEM_FLAG_EXTERNAL = 1 << 3,      /**< the pool did not allocate the memory */
  GST_PHYS_MEM_FLAG_RECEIVED = 1 << 4       /**< another process said all this, and sent the memory */
} GstPhysMemFlags;

/**
 * What is known of a buffer's memory. To be read only. Every pointer in it is owned by the meta
 * and valid as long as the meta is, that is, as long as the buffer.
 *
 * Only a copy that shares the whole memory keeps the meta: its address is never that of other
 * bytes. An address is valid only if flags has GST_PHYS_MEM_FLAG_ADDRESS_KNOWN; 0 means nothing.
 */
typedef struct _GstPhysMemMeta GstPhysMemMeta;
struct _GstPhysMemMeta {
  GstMeta meta;                 /**< parent */
  guint32 id;                   /**< unique in the pool's process, never 0, same for each use */
  guint32 flags;                /**< GstPhysMemFlags */
  gint32 kind;                  /**< GstPhysMemoryKind */
  gint32 source;                /**< GstPhysAddressSource, if the address is known */
  guint64 phys_addr;            /**< of the buffer's first byte, if known */
  guint64 size;                 /**< of the buffer as the pool handed it out, bytes */
  const GstPhysExtent *extents; /**< contiguous pieces, in the order of the bytes, or NULL */
  guint32 n_extents;            /**< how many, 0 if the address is unknown */
  gint32 dmabuf_fd;             /**< or -1; the memory's: dup() to keep it, never close it. Of a
                                 * buffer that was received ask the memory itself */
  const gchar *heap;            /**< dma-heap or device that the memory came from, or NULL */
  const gchar *unknown_reason;  /**< why the address is unknown, one sentence, or NULL */
  const GstMemory *memory;      /**< what all this is about, NULL if received; only to be compared */
  /*< private >*/
  gboolean (*is_about) (const GstPhysMemMeta *meta, GstMemory *memory);
  gpointer priv;
};

/**
 * The buffer's meta, or NULL. It costs a walk over the buffer's metas (and an fstat, for a buffer
 * that another process sent), and finds the type by its name: nothing needs to be linked, and a
 * process without the plugin finds that no buffer has it.
 *
 * NULL too once the buffer's memory is no longer that of the meta: GStreamer replaces the memory
 * of a shared buffer that is mapped for writing.
 */
static inline const GstPhysMemMeta *
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

/** TRUE if the meta says where the buffer is. */
static inline gboolean
gst_phys_mem_meta_is_address_known (const GstPhysMemMeta *meta)
{
  return (meta->flags & GST_PHYS_MEM_FLAG_ADDRESS_KNOWN) != 0;
}

/**
 * Physical address of the byte at `offset`, in *address; FALSE if it is unknown or `offset` is
 * past the end.
 */
static inline gboolean
gst_phys_mem_meta_address_at (const GstPhysMemMeta *meta, guint64 offset, guint64 *address)
{
  guint32 i;

  for (i = 0; i < meta->n_extents; i++) {
    if (offset < meta->extents[i].size) {
      *address = meta->extents[i].phys_addr + offset;
      return TRUE;
    }
    offset -= meta->extents[i].size;
  }
  return FALSE;
}

/*
 * Functions of the library, which is the plugin's: link it (pkg-config --cflags --libs
 * gstphysmem). Call gst_init() first.
 */

/* --- Memory of the application --- */

/** A phys_addr that is to be looked up (in /proc/self/pagemap, which needs CAP_SYS_ADMIN). */
#define GST_PHYS_ADDR_UNKNOWN G_MAXUINT64

/** A block of memory that stays mapped read-write as long as anybody uses its pool. */
typedef struct _GstPhysMemBlock {
  gpointer data;     /**< first byte, as the CPU sees it, not NULL */
  gsize size;        /**< bytes, not 0 */
  guint64 phys_addr; /**< of a contiguous block, believed; or GST_PHYS_ADDR_UNKNOWN */
} GstPhysMemBlock;

/** Owns a block of memory together with the way to free it. */
typedef struct _GstPhysBufferHandle GstPhysBufferHandle;

/**
 * A pool over blocks that outlive it and every buffer and memory that came from it, one buffer
 * each. Configure it with a buffer size that the smallest block can hold. The array is copied.
 *
 * Returns: (transfer full): the pool, or NULL for a block without data or size
 */
GstBufferPool *gst_phys_buffer_pool_new_with_regions (const GstPhysMemBlock *blocks, guint n_blocks);

/**
 * Takes over `data`, `size` bytes, mapped read-write until `destroy` is called with `user_data`
 * (a pointer to whatever free, munmap or cudaFree need to know). `destroy` runs exactly once,
 * on any thread: when the handle is freed, or, while the memory is mapped, right after the
 * last map.
 *
 * Returns: (transfer full): the handle, or NULL for NULL or size 0; then nothing was taken over
 */
GstPhysBufferHandle *gst_phys_buffer_handle_new (gpointer data, gsize size, guint64 phys_addr,
    GDestroyNotify destroy, gpointer user_data);

/** Frees a handle that no pool owns; NULL is ignored. */
void gst_phys_buffer_handle_free (GstPhysBufferHandle *handle);

/**
 * A pool that owns the handles: each is freed when the pool and the last buffer and memory that
 * came from it are gone.
 *
 * handles: (transfer full) (array length=n_handles): the handles; the array stays the caller's
 * Returns: (transfer full): the pool
 */
GstBufferPool *gst_phys_buffer_pool_new_with_handles (GstPhysBufferHandle *const *handles,
    guint n_handles);

/**
 * A pool that borrows the handles: the application frees each whenever it likes. Its buffer is
 * then not handed out again, a map of it fails, and `validate` says FALSE.
 *
 * handles: (transfer none) (array length=n_handles): the handles
 * Returns: (transfer full): the pool
 */
GstBufferPool *gst_phys_buffer_pool_new_with_borrowed_handles (GstPhysBufferHandle *const *handles,
    guint n_handles);

/* --- The four verbs, and export, with their reasons ---
 *
 * They do what the signals of the same names do. Any number of threads may use them at
 * once; flushing and deactivating the pool end every wait. A timeout is in nanoseconds, 0
 * for no wait, -1 for ever.
 */

/** Why a function below returned NULL, FALSE or -1. */
typedef enum {
  GST_PHYS_POOL_ERROR_FAILED = 0,       /**< the system refused, as the message says */
  GST_PHYS_POOL_ERROR_NO_BUFFER = 1,    /**< none within the time given */
  GST_PHYS_POOL_ERROR_FLUSHING = 2,     /**< the pool is flushing or inactive */
  GST_PHYS_POOL_ERROR_NO_MEMORY = 3,    /**< more memory could not be had */
  GST_PHYS_POOL_ERROR_ILLEGAL_STEP = 4, /**< the buffer's state does not allow this */
  GST_PHYS_POOL_ERROR_NO_SUCH_ID = 5,   /**< no buffer of the pool has this id */
  GST_PHYS_POOL_ERROR_GONE = 6,         /**< the owner of the memory freed it */
  GST_PHYS_POOL_ERROR_NO_DMA_BUF = 7    /**< memory of this kind has none */
} GstPhysPoolError;

/** The domain of these errors. */
#define GST_PHYS_POOL_ERROR (gst_phys_pool_error_quark ())
GQuark gst_phys_pool_error_quark (void);

/** Returns: (transfer full) (nullable): a free buffer, to be filled */
GstBuffer *gst_phys_buffer_pool_acquire_free (GstBufferPool *pool, gint64 timeout, GError **error);

/**
 * Puts a buffer at the end of the filled queue.
 *
 * buffer: (transfer full): the buffer, taken also when this fails (the signal takes none)
 */
gboolean gst_phys_buffer_pool_submit_filled (GstBufferPool *pool, GstBuffer *buffer, GError **error);

/** Returns: (transfer full) (nullable): the oldest filled buffer */
GstBuffer *gst_phys_buffer_pool_acquire_filled (GstBufferPool *pool, gint64 timeout, GError **error);

/**
 * Ends the consumer's use of a buffer. It is free again when its last reference is gone.
 *
 * buffer: (transfer full): the buffer, taken also when this fails (the signal takes none)
 */
gboolean gst_phys_buffer_pool_release_filled (GstBufferPool *pool, GstBuffer *buffer, GError **error);

/** Returns: a new file descriptor of the buffer's dma-buf, the caller's to close, or -1 */
gint gst_phys_buffer_pool_export_dmabuf (GstBufferPool *pool, guint32 id, GError **error);

G_END_DECLS

#endif
