/* SPDX-License-Identifier: MPL-2.0 */
/* What a program must not do with the functions of the library, ten times; and what it may. */
#include <gst/gst.h>
#include <gstphysmem.h>
#include <stdlib.h>

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

/* g_object_new() gives a floating reference, which is the caller's and stays so. */
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
  GstPhysMemBlock zeroed = { bytes, SIZE, 0 };
  GstPhysBufferHandle *handles[] = { NULL, NULL };
  GstBufferPool *pool;
  GError *error = NULL;

  gst_init (&argc, &argv);
  gst_plugin_load_by_name ("physmem");
  floating ();

  check (gst_phys_buffer_pool_new_with_regions (&none, 1) == NULL, "a block without data");
  check (gst_phys_buffer_pool_new_with_regions (&empty, 1) == NULL, "an empty block");
  check (gst_phys_buffer_pool_new_with_regions (&beyond, 1) == NULL, "a block beyond all addresses");
  check (gst_phys_buffer_handle_new (bytes, 0, 0, destroy, NULL) == NULL, "an empty handle");
  check (gst_phys_buffer_handle_new (bytes, SIZE, G_MAXUINT64, destroy, NULL) == NULL, "a handle beyond all addresses");
  handles[0] = gst_phys_buffer_handle_new (bytes, SIZE, 0, destroy, NULL);
  check (gst_phys_buffer_pool_new_with_handles (handles, 2) == NULL, "a NULL among the handles");
  check (gst_phys_buffer_pool_new_with_borrowed_handles (NULL, 2) == NULL, "no handles");
  check (destroyed == 0, "a handle of a refused pool was destroyed");
  gst_phys_buffer_handle_free (handles[0]);
  check (destroyed == 1, "a handle was not destroyed");

  /* 0 is no address: it has to be looked up. */
  pool = gst_phys_buffer_pool_new_with_regions (&zeroed, 1);
  check (pool != NULL, "a block whose address is not known");
  check (!gst_phys_buffer_pool_submit_filled (pool, NULL, &error), "a NULL buffer");
  check (!gst_phys_buffer_pool_release_filled (pool, NULL, &error), "a NULL buffer");
  check (gst_phys_buffer_pool_acquire_free (NULL, 0, &error) == NULL, "a NULL pool");
  check (error == NULL, "misuse is no error");
  gst_object_unref (pool);
  return 0;
}
