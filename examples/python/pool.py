#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Everything the pool does, in Python, without a pipeline and by GObject introspection alone.

    pool.py [KIND [HEAP]]  # default: normal; cma and the others need their devices, region its heap

A signal that fails returns None, False or -1; the pool's property last-error says why.
Set GST_PLUGIN_PATH if the plugin is not installed.
"""
import os
import sys

import gi

gi.require_version('Gst', '1.0')
from gi.repository import GObject, Gst  # noqa: E402

SIZE = 4096


def check(fine, what):
    if not fine:
        sys.exit(f'pool: {what} failed')


def make(**properties):
    """A pool that is not active yet. The properties given can only be set at construction."""
    pool = GObject.new(GObject.type_from_name('GstPhysBufferPool'), **properties)
    config = pool.get_config()
    Gst.BufferPool.config_set_params(config, None, SIZE, 2, 2)
    check(pool.set_config(config), 'configuring the pool')
    return pool


def main():
    Gst.init(None)
    check(Gst.Plugin.load_by_name('physmem'), 'finding the plugin physmem (is GST_PLUGIN_PATH right?)')
    kind, heap = (sys.argv[1:] + [None, None])[:2]
    pool = make(kind=kind or 'normal', heap=heap)
    if not pool.set_active(True):
        sys.exit(f'pool: {pool.props.last_error}')
    print(f'{pool.props.total} buffers of {pool.props.buffer_size} bytes, {pool.props.free} free')

    # The four verbs. A timeout is in nanoseconds; 0 does not wait, -1 waits for ever.
    buffer = pool.emit('acquire-free', -1)
    check(buffer, 'acquire-free')
    described = pool.emit('describe', buffer)
    number = described.get_value('id')
    where = described.get_value('phys-addr')
    print(f'buffer {number} is at {where:#x}' if where is not None else f"buffer {number}: {described.get_value('address-unknown')}")
    buffer.fill(0, b'frame')
    # A completion interrupt knows only the id. The id finds a buffer that something holds.
    check(pool.emit('submit-filled', pool.emit('buffer-by-id', number)), 'submitting the buffer found by its id')
    check(not pool.emit('submit-filled', buffer), 'refusing a second submit-filled')
    print(f'refused: {pool.props.last_error}')
    del buffer
    buffer = pool.emit('acquire-filled', Gst.SECOND)
    check(buffer and buffer.extract_dup(0, 5) == b'frame', "finding the producer's bytes")
    check(pool.emit('release-filled', buffer), 'release-filled')
    del buffer  # the last reference: the buffer is free, and its id finds nothing
    check(pool.emit('buffer-by-id', number) is None, 'not finding a free buffer')
    check(pool.emit('acquire-filled', 0) is None, 'finding the queue empty')
    print(f'refused: {pool.props.last_error}')

    # A file descriptor for another process or device, where the memory is a dma-buf.
    descriptor = pool.emit('export-dmabuf', number)
    if descriptor >= 0:
        print(f'exported: {os.lseek(descriptor, 0, os.SEEK_END)} bytes')
        os.close(descriptor)
    else:
        print(f'refused: {pool.props.last_error}')

    # The application may object to a buffer in a validation.
    check(pool.emit('validate-all'), 'validating')
    handler = pool.connect('validating', lambda _pool, asked: asked != number)
    check(not pool.emit('validate', number), 'objecting to a buffer')
    pool.disconnect(handler)
    check(pool.emit('validate', number), 'validating again')

    print(pool.emit('dump'), end='')
    stats = pool.props.stats
    print(f"acquired {stats.get_value('acquired')}, refused {stats.get_value('refused-steps')}")
    pool.set_active(False)

    # For hardware that cannot reach all addresses, the pool refuses memory beyond max-address.
    narrow = make(kind='normal', max_address=0xfff)
    check(not narrow.set_active(True), 'refusing memory beyond the mask')
    print(f'refused: {narrow.props.last_error}')


if __name__ == '__main__':
    main()
