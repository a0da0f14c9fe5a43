#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""A pool over memory of the application, in physical pieces and with a dma-buf, in Python.

Here the memory is a memfd, and its addresses are made up. In a real program the memory is a driver's, and the
driver tells the addresses and makes the dma-buf. Set GST_PLUGIN_PATH if the plugin is not installed.
"""
import ctypes
import mmap
import os
import sys

import gi

gi.require_version('Gst', '1.0')
from gi.repository import GLib, GObject, Gst  # noqa: E402

SIZE = 4096
PIECES = [(0x40001000, SIZE // 2), (0x40000000, SIZE // 2)]

freed = []


def check(fine, what):
    if not fine:
        sys.exit(f'external: {what} failed')


class Memory(GObject.Object):
    """Keeps the memory mapped. The pool holds this object as long as anything uses the memory."""

    def __init__(self, descriptor):
        super().__init__()
        self.map = mmap.mmap(descriptor, SIZE)
        # ctypes tells the address of a buffer, and keeps the mapping from being closed.
        self.bytes = (ctypes.c_char * SIZE).from_buffer(self.map)
        self.weak_ref(lambda: freed.append(True))

    def address(self):
        return ctypes.addressof(self.bytes)


def main():
    Gst.init(None)
    check(Gst.Plugin.load_by_name('physmem'), 'finding the plugin physmem (is GST_PLUGIN_PATH right?)')
    pool = GObject.new(GObject.type_from_name('GstPhysBufferPool'), kind='external')
    descriptor = os.memfd_create('external')
    os.truncate(descriptor, SIZE)
    memory = Memory(descriptor)
    address = memory.address()

    wrong = GLib.Variant('a(tt)', PIECES[:1])
    check(not pool.emit('add-memory', address, SIZE, wrong, -1, memory), 'refusing the address of a half')
    print(f'refused: {pool.props.last_error}')
    # The pool takes a duplicate of the descriptor. -1 is none, and None instead of the pieces has them looked up.
    check(pool.emit('add-memory', address, SIZE, GLib.Variant('a(tt)', PIECES), descriptor, memory), 'adding memory')
    config = pool.get_config()
    Gst.BufferPool.config_set_params(config, None, SIZE, 1, 1)
    check(pool.set_config(config) and pool.set_active(True), 'activating the pool')
    check(not pool.emit('add-memory', address, SIZE, None, -1, memory), 'refusing memory that comes too late')
    print(f'refused: {pool.props.last_error}')

    buffer = pool.emit('acquire-free', 0)
    check(buffer, 'acquire-free')
    described = pool.emit('describe', buffer)
    text = described.to_string()
    check(all(str(phys) in text for phys, _ in PIECES), f'finding the pieces in {text}')
    check(not described.get_value('contiguous'), 'telling pieces from one block')
    print(f"{len(PIECES)} pieces, the first at {described.get_value('phys-addr'):#x}")
    exported = pool.emit('export-dmabuf', described.get_value('id'))
    check(exported >= 0 and os.path.sameopenfile(exported, descriptor), 'exporting the dma-buf')
    os.close(exported)
    os.close(descriptor)
    print('the dma-buf is exported')

    pool.set_active(False)
    del pool, memory
    check(not freed, 'keeping memory that a buffer uses')
    del buffer
    check(freed, 'freeing the memory')
    print('the memory was freed after its last use')


if __name__ == '__main__':
    main()
