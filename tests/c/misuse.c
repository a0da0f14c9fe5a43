/* SPDX-License-Identifier: MPL-2.0 */
/* Misuse of the library's functions, which must be refused, and a few uses that are allowed. */
#include <gst/gst.h>
#include <gstphysmem.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 4096

static guint destroyed = 0;

static void
check (gboolean fine, const char *what)
{
  if (!fine) {
    g_printerr ("misuse: %s\n", what);
    exit (1);
  }
}

static void
destroy (gpointer data)
{
  (void) data;
  destroyed++;
}

/* A meta that is added by name would describe nothing: only a pool makes one. */
static void
meta_by_name (void)
{
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, SIZE, NULL);
  const GstMetaInfo *info = gst_meta_get_info ("GstPhysMemMeta");
  GstBuffer *copy;

  check (info != NULL, "the meta is not registered");
  check (gst_buffer_add_meta (buffer, info, NULL) == NULL, "a meta that nobody filled");
  check (gst_buffer_get_phys_mem_meta (buffer) == NULL, "a meta stayed");
  copy = gst_buffer_copy (buffer);
  gst_buffer_unref (copy);
  gst_buffer_unref (buffer);
}

/* A block longer than its mapping breaks the caller's promise. The library only looks it up in
 * the page tables, where the rest is missing. */
static void
much_too_long (guint8 *bytes)
{
  GstPhysMemBlock block = { bytes, G_MAXSIZE / 4, GST_PHYS_ADDR_UNKNOWN };
  GstBufferPool *pool = gst_phys_buffer_pool_new_with_regions (&block, 1);
  gchar *text = NULL;

  check (pool != NULL, "a long block");
  g_signal_emit_by_name (pool, "dump", &text);
  check (strstr (text, "address unknown") != NULL, text);
  g_free (text);
  gst_object_unref (pool);
}

/* A pool by its kind, and a handle of a descriptor that is no dma-buf. */
static void
made_by_functions (void)
{
  GstBufferPool *pool = gst_phys_buffer_pool_new (GST_PHYS_MEMORY_KIND_NORMAL);
  GError *error = NULL;
  gint kind = -1;

  check (G_OBJECT_TYPE (pool) == GST_TYPE_PHYS_BUFFER_POOL, "the type of a pool");
  g_object_get (pool, "kind", &kind, NULL);
  check (kind == GST_PHYS_MEMORY_KIND_NORMAL, "the kind of a pool");
  gst_object_unref (pool);
  check (gst_phys_buffer_pool_new (99) == NULL, "a kind that does not exist");
  {
    g_autoptr (GstPhysBufferHandle) handle = gst_phys_buffer_handle_new_from_dmabuf (1, &error);
    check (handle == NULL && g_error_matches (error, GST_PHYS_POOL_ERROR, GST_PHYS_POOL_ERROR_FAILED), "a dma-buf that is none");
    check (strstr (error->message, "file descriptor 1 ") != NULL, error->message);
  }
  g_clear_error (&error);
  check (gst_phys_buffer_handle_new_from_dmabuf (-1, NULL) == NULL, "no descriptor");
}

/* g_object_new() returns a floating reference, which the functions must not take over. */
static void
floating (void)
{
  GstBufferPool *pool = g_object_new (g_type_from_name ("GstPhysBufferPool"), NULL);
  GError *error = NULL;

  check (gst_phys_buffer_pool_acquire_free (pool, 0, &error) == NULL, "a buffer of an inactive pool");
  g_clear_error (&error);
  check (g_object_is_floating (pool) && G_OBJECT (pool)->ref_count == 1, "the reference was taken");
  gst_object_ref_sink (pool);
  gst_object_unref (pool);
}

int
main (int argc, char **argv)
{
  static guint8 bytes[SIZE];
  GstPhysMemBlock none = { NULL, SIZE, GST_PHYS_ADDR_UNKNOWN };
  GstPhysMemBlock empty = { bytes, 0, GST_PHYS_ADDR_UNKNOWN };
  GstPhysMemBlock beyond = { bytes, SIZE, G_MAXUINT64 - 5 };
  GstPhysMemBlock wraps = { bytes, G_MAXSIZE, GST_PHYS_ADDR_UNKNOWN };
  GstPhysMemBlock last = { (gpointer) (G_MAXSIZE - 4095), 2 * SIZE, GST_PHYS_ADDR_UNKNOWN };
  GstPhysMemBlock zeroed = { bytes, SIZE, 0 };
  GstPhysExtent half = { 0x1000, SIZE / 2 }, far = { G_MAXUINT64 - 5, SIZE }, nowhere = { 0, SIZE };
  GstPhysBufferHandle *handles[] = { NULL, NULL };
  GstBufferPool *pool;
  GError *error = NULL;

  gst_init (&argc, &argv);
  gst_plugin_load_by_name ("physmem");
  floating ();
  meta_by_name ();
  made_by_functions ();
  much_too_long (bytes);

  check (gst_phys_buffer_pool_new_with_regions (&none, 1) == NULL, "a block without data");
  check (gst_phys_buffer_pool_new_with_regions (&empty, 1) == NULL, "an empty block");
  check (gst_phys_buffer_pool_new_with_regions (&beyond, 1) == NULL, "a block beyond all addresses");
  check (gst_phys_buffer_pool_new_with_regions (&wraps, 1) == NULL, "a block as large as all memory");
  check (gst_phys_buffer_pool_new_with_regions (&last, 1) == NULL, "a block past the last pointer");
  check (gst_phys_buffer_handle_new (bytes, 0, 0, destroy, NULL) == NULL, "an empty handle");
  check (gst_phys_buffer_handle_new (bytes, SIZE, G_MAXUINT64, destroy, NULL) == NULL, "a handle beyond all addresses");
  check (gst_phys_buffer_handle_new_full (NULL, SIZE, NULL, 0, -1, destroy, NULL) == NULL, "a handle without data");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, &half, 1, -1, destroy, NULL) == NULL, "too short extents");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, &far, 1, -1, destroy, NULL) == NULL, "an extent beyond all addresses");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, &half, 0, -1, destroy, NULL) == NULL, "no extents");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, &nowhere, 1, -1, destroy, NULL) == NULL, "an extent at 0");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, NULL, 0, 12345, destroy, NULL) == NULL, "a closed descriptor");
  check (gst_phys_buffer_handle_new_full (bytes, SIZE, NULL, 0, -2, destroy, NULL) == NULL, "no descriptor");
  handles[0] = gst_phys_buffer_handle_new (bytes, SIZE, 0, destroy, NULL);
  check (gst_phys_buffer_pool_new_with_handles (handles, 2) == NULL, "a NULL among the handles");
  check (gst_phys_buffer_pool_new_with_borrowed_handles (NULL, 2) == NULL, "no handles");
  check (destroyed == 0, "a handle of a refused pool was destroyed");
  gst_phys_buffer_handle_free (handles[0]);
  check (destroyed == 1, "a handle was not destroyed");

  /* 0 means unknown, so the library looks the address up. */
  pool = gst_phys_buffer_pool_new_with_regions (&zeroed, 1);
  check (pool != NULL, "a block whose address is not known");
  check (!gst_phys_buffer_pool_submit_filled (pool, NULL, &error), "a NULL buffer");
  check (!gst_phys_buffer_pool_release_filled (pool, NULL, &error), "a NULL buffer");
  check (gst_phys_buffer_pool_acquire_free (NULL, 0, &error) == NULL, "a NULL pool");
  check (error == NULL, "misuse is no error");
  gst_object_unref (pool);
  return 0;
}
