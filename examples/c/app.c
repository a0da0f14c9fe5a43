/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Fills buffers of known physical address, in C, without linking a library of this project:
 *
 *     cc app.c -o app -I../../include $(pkg-config --cflags --libs \
 *         gstreamer-app-1.0 gstreamer-video-1.0)
 *     ./app                 # or: ./app fbpansink, ./app "kmsflipsink driver-name=vkms"
 *
 * It takes the pool that the sink proposes, so that frames are written into memory that the
 * sink shows without a copy. If the sink proposes none, it makes a pool. It first uses the
 * pool without a pipeline (the four verbs, the meta), then feeds 30 frames through appsrc.
 */
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>
#include <gst/video/video.h>
#include <gstphysmem.h>
#include <string.h>

/* A frame that is small enough for any screen; the sink centres it. */
#define WIDTH 320
#define HEIGHT 240
#define FRAMES 30
#define TIMEOUT (30 * GST_SECOND)

static void
check (gboolean fine, const char *what)
{
  if (!fine) {
    g_printerr ("app: %s failed\n", what);
    exit (1);
  }
}

static void
activate (GstBufferPool *pool, GstCaps *caps, guint size, guint min, guint max)
{
  GstStructure *config = gst_buffer_pool_get_config (pool);

  gst_buffer_pool_config_set_params (config, caps, size, min, max);
  /* The sink's rows may be padded: GstVideoMeta gives their stride. */
  gst_buffer_pool_config_add_option (config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  check (gst_buffer_pool_set_config (pool, config), "configuring the pool");
  check (gst_buffer_pool_set_active (pool, TRUE), "activating the pool");
}

/* The sink's pool if it proposes a GstPhysBufferPool, else NULL. appsrc itself does not ask. */
static GstBufferPool *
ask_for_pool (GstElement *sink, GstCaps *caps)
{
  GstPad *pad = gst_element_get_static_pad (sink, "sink");
  GstQuery *query = gst_query_new_allocation (caps, TRUE);
  GstBufferPool *pool = NULL;
  guint size, min, max;

  if (gst_pad_query (pad, query) && gst_query_get_n_allocation_pools (query) > 0)
    gst_query_parse_nth_allocation_pool (query, 0, &pool, &size, &min, &max);
  if (pool != NULL && g_type_is_a (G_OBJECT_TYPE (pool), g_type_from_name ("GstPhysBufferPool")))
    activate (pool, caps, size, min, max);
  else
    gst_clear_object (&pool);
  gst_query_unref (query);
  gst_object_unref (pad);
  return pool;
}

static GstBufferPool *
make_pool (GstCaps *caps)
{
  GstVideoInfo info;
  GstBufferPool *pool = g_object_new (g_type_from_name ("GstPhysBufferPool"),
      /* AUTO takes the best kind that works here, contiguous memory with a dma-buf first. */
      "kind", GST_PHYS_MEMORY_KIND_AUTO, NULL);

  gst_object_ref_sink (pool);
  check (gst_video_info_from_caps (&info, caps), "understanding the caps");
  activate (pool, caps, GST_VIDEO_INFO_SIZE (&info), 3, 4);
  return pool;
}

static void
print_meta (GstBuffer *buffer)
{
  const GstPhysMemMeta *meta = gst_buffer_get_phys_mem_meta (buffer);
  guint64 last;

  check (meta != NULL, "reading the meta");
  if (gst_phys_mem_meta_is_address_known (meta)) {
    check (gst_phys_mem_meta_address_at (meta, meta->size - 1, &last), "asking for the last byte");
    g_print ("buffer %u: %" G_GUINT64_FORMAT " bytes at 0x%" G_GINT64_MODIFIER "x, "
             "%u extents, last byte 0x%" G_GINT64_MODIFIER "x, %s\n",
        meta->id, meta->size, meta->phys_addr, meta->n_extents, last,
        meta->flags & GST_PHYS_MEM_FLAG_PINNED ? "pinned" : "not pinned");
  } else {
    g_print ("buffer %u: %" G_GUINT64_FORMAT " bytes, address unknown: %s\n",
        meta->id, meta->size, meta->unknown_reason);
  }
}

static void
print_stats (gpointer object, const char *whose)
{
  GstStructure *stats;
  gchar *text;

  g_object_get (object, "stats", &stats, NULL);
  text = gst_structure_to_string (stats);
  g_print ("%s: %s\n", whose, text);
  g_free (text);
  gst_structure_free (stats);
}

/* Caps that the sink takes, with WIDTH and HEIGHT where the sink leaves the choice. */
static GstCaps *
choose_caps (GstElement *sink)
{
  GstCaps *wanted = gst_caps_from_string ("video/x-raw,width=" G_STRINGIFY (WIDTH)
      ",height=" G_STRINGIFY (HEIGHT) ",framerate=30/1");
  GstPad *pad = gst_element_get_static_pad (sink, "sink");
  GstCaps *caps = gst_pad_query_caps (pad, wanted);

  gst_object_unref (pad);
  gst_caps_unref (wanted);
  check (!gst_caps_is_empty (caps), "finding a format that the sink takes");
  caps = gst_caps_make_writable (gst_caps_truncate (caps));
  if (!gst_structure_has_field (gst_caps_get_structure (caps, 0), "format"))
    gst_caps_set_simple (caps, "format", G_TYPE_STRING, "BGRx", NULL);
  return gst_caps_fixate (caps);
}

/* Fills the frame with grey, in any format, at the strides of the buffer's GstVideoMeta. The
 * bytes between two rows of a sink's memory belong to the rest of the screen. */
static void
draw (GstBuffer *buffer, GstCaps *caps, guint8 grey)
{
  GstVideoInfo info;
  GstVideoFrame frame;
  guint component;
  gint y;

  check (gst_video_info_from_caps (&info, caps), "understanding the caps");
  check (gst_video_frame_map (&frame, &info, buffer, GST_MAP_WRITE), "mapping the frame");
  for (component = 0; component < GST_VIDEO_FRAME_N_COMPONENTS (&frame); component++) {
    gint plane = GST_VIDEO_FRAME_COMP_PLANE (&frame, component);
    guint8 *data = GST_VIDEO_FRAME_PLANE_DATA (&frame, plane);

    for (y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT (&frame, component); y++)
      memset (data + y * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, plane), grey,
          GST_VIDEO_FRAME_COMP_WIDTH (&frame, component) * GST_VIDEO_FRAME_COMP_PSTRIDE (&frame, component));
  }
  gst_video_frame_unmap (&frame);
}

static guint8
first_byte (GstBuffer *buffer, GstCaps *caps)
{
  GstVideoInfo info;
  GstVideoFrame frame;
  guint8 byte;

  check (gst_video_info_from_caps (&info, caps), "understanding the caps");
  check (gst_video_frame_map (&frame, &info, buffer, GST_MAP_READ), "mapping the frame");
  byte = *(guint8 *) GST_VIDEO_FRAME_PLANE_DATA (&frame, 0);
  gst_video_frame_unmap (&frame);
  return byte;
}

/* Acts as the producer and the consumer of one buffer, without a pipeline. */
static void
four_verbs (GstBufferPool *pool, GstCaps *caps)
{
  GstBuffer *produced = NULL, *consumed = NULL;
  gboolean fine;

  g_signal_emit_by_name (pool, "acquire-free", (gint64) TIMEOUT, &produced);
  check (produced != NULL, "acquire-free");
  print_meta (produced);
  draw (produced, caps, 0x5a);
  g_signal_emit_by_name (pool, "submit-filled", produced, &fine);
  check (fine, "submit-filled");
  /* The filled queue holds the buffer now. A second submit is refused and changes nothing. */
  g_signal_emit_by_name (pool, "submit-filled", produced, &fine);
  check (!fine, "refusing a second submit-filled");
  gst_buffer_unref (produced);

  g_signal_emit_by_name (pool, "acquire-filled", (gint64) TIMEOUT, &consumed);
  check (consumed == produced, "acquire-filled");
  check (first_byte (consumed, caps) == 0x5a, "finding the producer's bytes");
  g_signal_emit_by_name (pool, "release-filled", consumed, &fine);
  check (fine, "release-filled");
  gst_buffer_unref (consumed);

  g_signal_emit_by_name (pool, "acquire-filled", (gint64) 0, &consumed);
  check (consumed == NULL, "finding the queue empty");
  g_print ("four verbs: ok\n");
}

/* Pushes FRAMES frames. acquire-free waits while the sink holds all buffers. */
static void
feed (GstAppSrc *appsrc, GstBufferPool *pool, GstCaps *caps)
{
  guint n;

  for (n = 0; n < FRAMES; n++) {
    GstBuffer *buffer = NULL;

    /* gst_buffer_pool_acquire_buffer() works too, but has no timeout. */
    g_signal_emit_by_name (pool, "acquire-free", (gint64) TIMEOUT, &buffer);
    if (buffer == NULL)
      break; /* the error is on the bus */
    draw (buffer, caps, (guint8) (n * 255 / FRAMES));
    GST_BUFFER_PTS (buffer) = gst_util_uint64_scale (n, GST_SECOND, 30);
    GST_BUFFER_DURATION (buffer) = GST_SECOND / 30;
    gst_app_src_push_buffer (appsrc, buffer); /* takes the reference */
  }
  gst_app_src_end_of_stream (appsrc);
}

static GstElement *
find_sink (GstElement *src)
{
  GstPad *pad = gst_element_get_static_pad (src, "src");
  GstPad *peer = gst_pad_get_peer (pad);
  GstElement *sink = gst_pad_get_parent_element (peer);

  gst_object_unref (peer);
  gst_object_unref (pad);
  return sink;
}

static void
run (const char *sink_description)
{
  gchar *line = g_strdup_printf ("appsrc name=src format=time ! %s", sink_description);
  GError *error = NULL;
  GstElement *pipeline = gst_parse_launch (line, &error);
  GstElement *src, *sink;
  GstCaps *caps;
  GstBufferPool *pool;
  GstBus *bus;
  GstMessage *message;

  if (error != NULL)
    g_printerr ("app: %s: %s\n", line, error->message);
  check (pipeline != NULL && error == NULL, "making the pipeline");
  g_free (line);
  src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  sink = find_sink (src);
  bus = gst_element_get_bus (pipeline);

  /* In READY the sink has its device open and knows which caps it takes. */
  if (gst_element_set_state (pipeline, GST_STATE_READY) != GST_STATE_CHANGE_FAILURE) {
    caps = choose_caps (sink);
    gst_app_src_set_caps (GST_APP_SRC (src), caps);
    pool = ask_for_pool (sink, caps);
    g_print ("frames are written into %s pool\n", pool ? "the sink's" : "the application's");
    if (pool == NULL)
      pool = make_pool (caps);
    four_verbs (pool, caps);

    gst_element_set_state (pipeline, GST_STATE_PLAYING);
    feed (GST_APP_SRC (src), pool, caps);
    message = gst_bus_timed_pop_filtered (bus, 60 * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
    print_stats (sink, "sink");
    print_stats (pool, "pool");
    gst_element_set_state (pipeline, GST_STATE_NULL);
    gst_buffer_pool_set_active (pool, FALSE);
    gst_object_unref (pool);
    gst_caps_unref (caps);
  } else {
    message = gst_bus_pop_filtered (bus, GST_MESSAGE_ERROR);
    gst_element_set_state (pipeline, GST_STATE_NULL);
  }

  if (message != NULL && GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    gst_message_parse_error (message, &error, NULL);
    g_printerr ("app: %s\n", error->message);
    g_clear_error (&error);
  }
  check (message != NULL && GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS, "playing");
  gst_message_unref (message);
  gst_object_unref (bus);
  gst_object_unref (sink);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

int
main (int argc, char **argv)
{
  GstPlugin *plugin;

  gst_init (&argc, &argv);
  /* Registers the types. An element of the plugin in a pipeline would do so, too. */
  plugin = gst_plugin_load_by_name ("physmem");
  check (plugin != NULL, "finding the plugin physmem (is GST_PLUGIN_PATH right?)");
  run (argc > 1 ? argv[1] : "fakesink");
  gst_object_unref (plugin);
  gst_deinit (); /* makes GST_TRACERS=leaks report what is left */
  return 0;
}
