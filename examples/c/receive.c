/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Receives frames of another process and prints their addresses, for GStreamer 1.24 and newer:
 *
 *     cc receive.c -o receive -I../../include $(pkg-config --cflags --libs gstreamer-app-1.0)
 *     gst-launch-1.0 rawvideosrc ! physmemupload ! unixfdsink socket-path=/run/frames &
 *     ./receive /run/frames 10
 *
 * The plugin must be built with its feature v1_24 on both sides.
 */
#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gstphysmem.h>
#include <stdlib.h>

static void
print_frame (GstBuffer *buffer)
{
  const GstPhysMemMeta *meta = gst_buffer_get_phys_mem_meta (buffer);
  GstMapInfo map;

  if (meta == NULL) {
    g_print ("a buffer of no known place\n");
    return;
  }
  g_print ("buffer %u: %" G_GUINT64_FORMAT " bytes ", meta->id, meta->size);
  if (gst_phys_mem_meta_is_address_known (meta))
    g_print ("at 0x%" G_GINT64_MODIFIER "x in %u pieces", meta->phys_addr, meta->n_extents);
  else
    g_print ("unknown");
  if (gst_buffer_map (buffer, &map, GST_MAP_READ)) {
    g_print (", first byte %u", map.data[0]);
    gst_buffer_unmap (buffer, &map);
  }
  g_print ("\n");
}

int
main (int argc, char **argv)
{
  GstElement *pipeline, *source, *sink;
  GstSample *sample = NULL;
  int frames, status = 0;

  gst_init (&argc, &argv);
  if (argc != 3) {
    g_printerr ("usage: receive SOCKET FRAMES\n");
    return 2;
  }
  /* The plugin makes the meta of a received buffer; no element of this pipeline loads it. */
  if (gst_plugin_load_by_name ("physmem") == NULL) {
    g_printerr ("receive: no plugin physmem: set GST_PLUGIN_PATH\n");
    return 1;
  }
  pipeline = gst_parse_launch ("unixfdsrc name=source ! appsink name=sink sync=false", NULL);
  source = gst_bin_get_by_name (GST_BIN (pipeline), "source");
  sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  g_object_set (source, "socket-path", argv[1], NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);

  for (frames = atoi (argv[2]); frames > 0; frames--) {
    sample = gst_app_sink_pull_sample (GST_APP_SINK (sink));
    if (sample == NULL)
      break;
    print_frame (gst_sample_get_buffer (sample));
    gst_sample_unref (sample);
  }
  if (frames > 0) {
    g_printerr ("receive: the sender has gone, %d frames early\n", frames);
    status = 1;
  }

  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (sink);
  gst_object_unref (source);
  gst_object_unref (pipeline);
  return status;
}
