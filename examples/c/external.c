/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Pools over memory that the application allocates and frees; and the four verbs as
 * functions, which set a GError:
 *
 *     cc external.c -o external $(pkg-config --cflags --libs gstphysmem)
 */
#define _GNU_SOURCE /* memfd_create */
#include <gst/gst.h>
#include <gstphysmem.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 4096
/* In a real program this address may come from the device tree. */
#define CARVED_OUT 0x40000000

static guint freed = 0;

static void
check (gboolean fine, const char *what)
{
  if (!fine) {
    g_printerr ("external: %s failed\n", what);
    exit (1);
  }
}

/* A real program may call munmap, cudaFree, ... here. */
static void
destroy (gpointer data)
{
  free (data);
  freed++;
}

static void
activate (GstBufferPool *pool, guint buffers)
{
  GstStructure *config = gst_buffer_pool_get_config (pool);

  gst_buffer_pool_config_set_params (config, NULL, SIZE, buffers, buffers);
  check (gst_buffer_pool_set_config (pool, config), "configuring the pool");
  check (gst_buffer_pool_set_active (pool, TRUE), "activating the pool");
}

static GstBuffer *
acquire (GstBufferPool *pool)
{
  GstBuffer *buffer = NULL;

  g_signal_emit_by_name (pool, "acquire-free", (gint64) 0, &buffer);
  return buffer;
}

static GstPhysBufferHandle *
make_handle (guint64 phys_addr)
{
  gpointer data = aligned_alloc (4096, SIZE);

  check (data != NULL, "allocating");
  return gst_phys_buffer_handle_new (data, SIZE, phys_addr, destroy, data);
}

/* Memory that is never freed. */
static void
regions (void)
{
  static guint8 bytes[SIZE];
  GstPhysMemBlock block = { bytes, sizeof bytes, CARVED_OUT };
  GstBufferPool *pool = gst_phys_buffer_pool_new_with_regions (&block, 1);
  GstBuffer *buffer;
  const GstPhysMemMeta *meta;
  guint64 address;

  check (pool != NULL, "making a pool over a block");
  activate (pool, 1);
  buffer = acquire (pool);
  check (buffer != NULL, "acquiring the block");
  meta = gst_buffer_get_phys_mem_meta (buffer);
  check (meta->phys_addr == CARVED_OUT && meta->source == GST_PHYS_ADDRESS_SOURCE_USER, "reading the address given");
  gst_buffer_memset (buffer, 0, 7, SIZE);
  check (bytes[SIZE - 1] == 7, "writing into the block");
  gst_buffer_resize (buffer, 100, 50);
  check (gst_buffer_get_phys_addr (buffer, &address) && address == CARVED_OUT + 100, "finding a part of the block");
  gst_buffer_unref (buffer);
  gst_buffer_pool_set_active (pool, FALSE);
  gst_object_unref (pool);
  g_print ("regions: ok\n");
}

/* Memory that the pool owns and frees. */
static void
owned (void)
{
  GstPhysBufferHandle *handles[] = { make_handle (GST_PHYS_ADDR_UNKNOWN), make_handle (GST_PHYS_ADDR_UNKNOWN) };
  GstBufferPool *pool = gst_phys_buffer_pool_new_with_handles (handles, 2);
  GstBuffer *buffer;

  activate (pool, 2);
  buffer = acquire (pool);
  gst_buffer_pool_set_active (pool, FALSE);
  gst_object_unref (pool);
  check (buffer != NULL && gst_buffer_memset (buffer, 0, 1, SIZE) == SIZE, "a buffer outliving its pool");
  gst_buffer_unref (buffer);
  check (freed == 2, "freeing each block once");
  g_print ("owned handles: ok\n");
}

/* Memory that the application owns and frees while the pool is in use. */
static void
borrowed (void)
{
  GstPhysBufferHandle *handle = make_handle (CARVED_OUT), *other = make_handle (CARVED_OUT + SIZE);
  GstPhysBufferHandle *handles[] = { handle, other };
  GstBufferPool *pool = gst_phys_buffer_pool_new_with_borrowed_handles (handles, 2);
  GstBuffer *buffer;
  GstMapInfo map;
  gboolean valid;

  freed = 0;
  activate (pool, 2);
  g_signal_emit_by_name (pool, "validate-all", &valid);
  check (valid, "validating");
  buffer = acquire (pool);
  check (buffer != NULL, "acquiring");
  check (gst_buffer_map (buffer, &map, GST_MAP_WRITE), "mapping");
  /* A block is freed at once, unless it is mapped; then the unmap frees it. */
  gst_phys_buffer_handle_free (handle);
  gst_phys_buffer_handle_free (other);
  check (freed == 1, "keeping the block that is mapped");
  map.data[0] = 1;
  gst_buffer_unmap (buffer, &map);
  check (freed == 2, "freeing it after the map");
  check (!gst_buffer_map (buffer, &map, GST_MAP_READ), "refusing to map freed memory");
  check (!gst_phys_mem_meta_is_address_known (gst_buffer_get_phys_mem_meta (buffer)), "forgetting where it was");
  gst_buffer_unref (buffer);
  check (acquire (pool) == NULL, "handing out no freed memory");
  g_signal_emit_by_name (pool, "validate-all", &valid);
  check (!valid, "seeing that it is gone");
  gst_buffer_pool_set_active (pool, FALSE);
  gst_object_unref (pool);
  g_print ("borrowed handles: ok\n");
}

/* Memory in two pieces, with a dma-buf. Only a driver makes a real one; a memfd can be exported like it, but
 * not mapped, because it takes no DMA_BUF_IOCTL_SYNC. */
static void
pieces (void)
{
  const GstPhysExtent extents[] = { { CARVED_OUT + SIZE, SIZE / 2 }, { CARVED_OUT, SIZE / 2 } };
  gpointer data = aligned_alloc (4096, SIZE);
  int fd = memfd_create ("external", 0), exported;
  struct stat ours, theirs;
  GstPhysBufferHandle *handle;
  GstBufferPool *pool;
  GstBuffer *buffer;
  const GstPhysMemMeta *meta;
  guint64 address;

  check (data != NULL && fd >= 0 && fstat (fd, &ours) == 0, "making memory");
  freed = 0;
  handle = gst_phys_buffer_handle_new_full (data, SIZE, extents, 2, fd, destroy, data);
  check (handle != NULL, "making a handle of two pieces");
  close (fd); /* the handle has a descriptor of its own */
  pool = gst_phys_buffer_pool_new_with_handles (&handle, 1);
  activate (pool, 1);
  buffer = acquire (pool);
  meta = gst_buffer_get_phys_mem_meta (buffer);
  check (meta->n_extents == 2 && (meta->flags & GST_PHYS_MEM_FLAG_CONTIGUOUS) == 0, "reading two extents");
  check (gst_phys_mem_meta_address_at (meta, SIZE / 2, &address) && address == CARVED_OUT, "finding the second piece");
  exported = gst_phys_buffer_pool_export_dmabuf (pool, meta->id, NULL);
  check (exported >= 0 && fstat (exported, &theirs) == 0 && theirs.st_ino == ours.st_ino, "exporting the dma-buf");
  close (exported);
  gst_buffer_unref (buffer);
  gst_buffer_pool_set_active (pool, FALSE);
  gst_object_unref (pool);
  check (freed == 1, "freeing the memory");
  g_print ("pieces and dma-buf: ok\n");
}

/* Whether a verb failed with this code. Frees the error. */
static gboolean
failed_with (GError **error, GstPhysPoolError code)
{
  gboolean matches = g_error_matches (*error, GST_PHYS_POOL_ERROR, code);

  if (!matches)
    g_printerr ("external: %s\n", *error ? (*error)->message : "no error");
  g_clear_error (error);
  return matches;
}

/* Submit and release take the caller's reference, as gst_buffer_pool_release_buffer() does. */
static void
verbs (void)
{
  static guint8 bytes[SIZE];
  GstPhysMemBlock block = { bytes, sizeof bytes, GST_PHYS_ADDR_UNKNOWN };
  GstBufferPool *pool = gst_phys_buffer_pool_new_with_regions (&block, 1);
  GError *error = NULL;
  GstBuffer *buffer;
  guint32 id;

  buffer = gst_phys_buffer_pool_acquire_free (pool, -1, &error);
  check (buffer == NULL && failed_with (&error, GST_PHYS_POOL_ERROR_FLUSHING), "refusing to wait for an inactive pool");
  activate (pool, 1);
  buffer = gst_phys_buffer_pool_acquire_free (pool, -1, &error);
  check (buffer != NULL && error == NULL, "acquire_free");
  id = gst_buffer_get_phys_mem_meta (buffer)->id;
  check (gst_phys_buffer_pool_acquire_free (pool, GST_MSECOND, &error) == NULL
      && failed_with (&error, GST_PHYS_POOL_ERROR_NO_BUFFER), "waiting for a second buffer in vain");
  check (gst_phys_buffer_pool_export_dmabuf (pool, id, &error) == -1
      && failed_with (&error, GST_PHYS_POOL_ERROR_NO_DMA_BUF), "refusing to export static memory");
  check (gst_phys_buffer_pool_export_dmabuf (pool, id + 1, NULL) == -1, "refusing without asking why");

  check (gst_phys_buffer_pool_submit_filled (pool, gst_buffer_ref (buffer), &error), "submit_filled");
  check (!gst_phys_buffer_pool_submit_filled (pool, buffer, &error)
      && failed_with (&error, GST_PHYS_POOL_ERROR_ILLEGAL_STEP), "refusing a second submit_filled");
  buffer = gst_phys_buffer_pool_acquire_filled (pool, 0, &error);
  check (buffer != NULL && gst_buffer_get_phys_mem_meta (buffer)->id == id, "acquire_filled");
  check (gst_phys_buffer_pool_release_filled (pool, buffer, &error), "release_filled");
  buffer = gst_phys_buffer_pool_acquire_free (pool, 0, &error);
  check (buffer != NULL, "having the buffer free again");
  gst_buffer_unref (buffer);
  gst_buffer_pool_set_active (pool, FALSE);
  gst_object_unref (pool);
  g_print ("verbs and their errors: ok\n");
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  regions ();
  owned ();
  borrowed ();
  pieces ();
  verbs ();
  return 0;
}
