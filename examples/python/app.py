#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""An application that fills buffers of known physical address, in Python, by GObject
introspection alone.

    app.py                 # or: app.py fbpansink, app.py "kmsflipsink driver-name=vkms"

It takes the pool that the sink proposes, so that frames are written into memory that the
sink shows without a copy. If the sink proposes none, it makes a pool. It first uses the
pool without a pipeline (the four verbs, the meta), then feeds 30 frames through appsrc.
Set GST_PLUGIN_PATH if the plugin is not installed.
"""
import sys

import gi

gi.require_version('Gst', '1.0')
gi.require_version('GstApp', '1.0')
gi.require_version('GstVideo', '1.0')
from gi.repository import GObject, Gst, GstApp, GstVideo  # noqa: F401 (GstApp for appsrc's methods)

FRAMES = 30
TIMEOUT = 30 * Gst.SECOND


def check(fine, what):
    if not fine:
        sys.exit(f'app: {what} failed')


def activate(pool, caps, size, minimum, maximum):
    config = pool.get_config()
    Gst.BufferPool.config_set_params(config, caps, size, minimum, maximum)
    # The sink's rows may be padded: GstVideoMeta gives their stride.
    Gst.BufferPool.config_add_option(config, GstVideo.BUFFER_POOL_OPTION_VIDEO_META)
    check(pool.set_config(config), 'configuring the pool')
    check(pool.set_active(True), 'activating the pool')
    return pool


def ask_for_pool(sink, caps):
    """The sink's pool, if it proposes a GstPhysBufferPool. appsrc itself does not ask."""
    query = Gst.Query.new_allocation(caps, True)
    if sink.get_static_pad('sink').query(query) and query.get_n_allocation_pools() > 0:
        pool, size, minimum, maximum = query.parse_nth_allocation_pool(0)
        if pool is not None and pool.__gtype__.name == 'GstPhysBufferPool':
            return activate(pool, caps, size, minimum, maximum)
    return None


def make_pool(caps):
    # auto takes the best kind that works here, contiguous memory with a dma-buf first.
    pool = GObject.new(GObject.type_from_name('GstPhysBufferPool'), kind='auto')
    return activate(pool, caps, GstVideo.VideoInfo.new_from_caps(caps).size, 3, 4)


def describe(pool, buffer):
    """The contents of the meta, as a sentence."""
    meta = pool.emit('describe', buffer)
    check(meta, 'reading the meta')
    text = f"buffer {meta.get_value('id')}: {meta.get_value('size')} bytes"
    if meta.has_field('phys-addr'):
        pinned = 'pinned' if meta.get_value('pinned') else 'not pinned'
        contiguous = 'contiguous' if meta.get_value('contiguous') else 'scattered'
        return f"{text} at {meta.get_value('phys-addr'):#x}, {contiguous}, {pinned}"
    return f"{text}, address unknown: {meta.get_value('address-unknown')}"


def choose_caps(sink):
    """Caps that the sink takes and `draw` can fill. The size is small enough for any screen."""
    ours = Gst.Caps.from_string('video/x-raw,width=320,height=240,framerate=30/1,'
                                'format={BGRx,RGBx,BGRA,RGBA,xRGB,BGR,RGB,RGB16}')
    caps = sink.get_static_pad('sink').query_caps(ours)
    check(not caps.is_empty(), 'finding a format that the sink takes')
    return caps.fixate()


def draw(buffer, info, grey):
    """Fill the frame with grey, at the strides of the buffer's GstVideoMeta. The bytes
    between two rows of a sink's memory belong to the rest of the screen."""
    meta = GstVideo.buffer_get_video_meta(buffer)
    row = bytes([grey]) * (info.width * info.finfo.pixel_stride[0])
    for y in range(info.height):
        buffer.fill(meta.offset[0] + y * meta.stride[0], row)


def four_verbs(pool, info):
    """Act as the producer and the consumer of one buffer, without a pipeline."""
    buffer = pool.emit('acquire-free', TIMEOUT)
    check(buffer, 'acquire-free')
    print(describe(pool, buffer))
    draw(buffer, info, 0x5a)
    check(pool.emit('submit-filled', buffer), 'submit-filled')
    # The filled queue holds the buffer now. A second submit is refused and changes nothing.
    check(not pool.emit('submit-filled', buffer), 'refusing a second submit-filled')
    del buffer

    buffer = pool.emit('acquire-filled', TIMEOUT)
    check(buffer, 'acquire-filled')
    check(buffer.extract_dup(GstVideo.buffer_get_video_meta(buffer).offset[0], 1) == b'\x5a', "finding the producer's bytes")
    check(pool.emit('release-filled', buffer), 'release-filled')
    del buffer  # the buffer is free once its last reference is gone
    check(pool.emit('acquire-filled', 0) is None, 'finding the queue empty')
    print('four verbs: ok')


def feed(appsrc, pool, info):
    """Push FRAMES frames. acquire-free waits while the sink holds all buffers."""
    for n in range(FRAMES):
        buffer = pool.emit('acquire-free', TIMEOUT)
        if buffer is None:  # the error is on the bus
            break
        draw(buffer, info, n * 255 // FRAMES)
        buffer.pts = n * Gst.SECOND // 30
        buffer.duration = Gst.SECOND // 30
        appsrc.push_buffer(buffer)
        del buffer  # this reference would keep the buffer from becoming free
    appsrc.end_of_stream()


def main():
    Gst.init(None)
    # Registers the types. An element of the plugin in a pipeline would do so, too.
    check(Gst.Plugin.load_by_name('physmem'), 'finding the plugin physmem (is GST_PLUGIN_PATH right?)')
    pipeline = Gst.parse_launch(f"appsrc name=src format=time ! {' '.join(sys.argv[1:]) or 'fakesink'}")
    src = pipeline.get_by_name('src')
    sink = src.get_static_pad('src').get_peer().get_parent_element()
    bus = pipeline.get_bus()
    if pipeline.set_state(Gst.State.READY) == Gst.StateChangeReturn.FAILURE:
        sys.exit(f'app: {bus.pop_filtered(Gst.MessageType.ERROR).parse_error()[0].message}')
    caps = choose_caps(sink)  # the sink has its device open in READY
    src.set_caps(caps)
    pool = ask_for_pool(sink, caps)
    print(f"frames are written into {'the sink' if pool else 'the application'}'s pool")
    pool = pool or make_pool(caps)
    info = GstVideo.VideoInfo.new_from_caps(caps)
    four_verbs(pool, info)

    pipeline.set_state(Gst.State.PLAYING)
    feed(src, pool, info)
    message = bus.timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    print(f"sink: {sink.get_property('stats').to_string()}")
    print(f"pool: {pool.get_property('stats').to_string()}")
    pipeline.set_state(Gst.State.NULL)
    pool.set_active(False)
    if message is not None and message.type == Gst.MessageType.ERROR:
        sys.exit(f'app: {message.parse_error()[0].message}')
    check(message is not None, 'playing to the end')


if __name__ == '__main__':
    main()
