#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""The pool with its functions, meta, handles and exceptions, by the typelib GstPhysMem-0.1.

    typelib.py

Where the typelib is not installed, pool.py does the same by signals. The maps here copy no byte; they need
GStreamer's additions for Python (Debian: python3-gst-1.0). Set GST_PLUGIN_PATH if the plugin is not installed,
and GI_TYPELIB_PATH and LD_LIBRARY_PATH if the typelib and the library are not.
"""
import ctypes
import mmap
import os
import sys

import gi

gi.require_version('Gst', '1.0')
gi.require_version('GstPhysMem', '0.1')
from gi.repository import GLib, Gst, GstPhysMem  # noqa: E402

SIZE = 4096
BOTH = Gst.MapFlags.READ | Gst.MapFlags.WRITE
Kind = GstPhysMem.PhysMemoryKind
PoolError = GstPhysMem.PhysPoolError


def check(fine, what):
    if not fine:
        sys.exit(f'typelib: {what} failed')


def activate(pool, minimum=1, maximum=1):
    config = pool.get_config()
    Gst.BufferPool.config_set_params(config, None, SIZE, minimum, maximum)
    check(pool.set_config(config) and pool.set_active(True), 'activating the pool')
    return pool


def refused(code, function, *arguments):
    """Has a function fail, and prints why."""
    try:
        function(*arguments)
    except GLib.Error as error:
        check(error.matches(GstPhysMem.phys_pool_error_quark(), code), f'finding {code} in {error}')
        print(f'{code.value_nick if hasattr(code, "value_nick") else int(code)}: {error.message}')
    else:
        check(False, f'refusing with {code}')


def verbs():
    """Act as producer and consumer. Each function raises GLib.Error where it refuses."""
    pool = GstPhysMem.PhysBufferPool.new(Kind.NORMAL)
    refused(PoolError.FLUSHING, pool.acquire_free, 0)
    activate(pool)
    buffer = pool.acquire_free(-1)
    meta = GstPhysMem.buffer_get_phys_mem_meta(buffer)
    check(meta.kind == Kind.NORMAL and meta.size == SIZE, 'reading the meta')
    known, address = GstPhysMem.buffer_get_phys_addr(buffer)
    print(f'buffer {meta.id} is at {address:#x}' if known else f'buffer {meta.id}: {meta.unknown_reason}')
    check(known == meta.is_address_known() == bool(meta.get_extents()), 'agreeing on the address')
    number = meta.id
    refused(PoolError.NO_DMA_BUF, pool.export_dmabuf, number)
    refused(PoolError.NO_SUCH_ID, pool.export_dmabuf, number + 1000)
    refused(PoolError.NO_BUFFER, pool.acquire_free, Gst.MSECOND)

    with buffer.map(BOTH) as frame:
        # A memoryview: numpy.asarray(frame.data) takes it, too, and copies no byte.
        check(isinstance(frame.data, memoryview) and len(frame.data) == SIZE, 'mapping without a copy')
        frame.data[:5] = b'frame'
    pool.submit_filled(buffer)
    refused(PoolError.ILLEGAL_STEP, pool.submit_filled, buffer)
    del buffer
    buffer = pool.acquire_filled(Gst.SECOND)
    with buffer.map(Gst.MapFlags.READ) as frame:
        check(frame.data.readonly and bytes(frame.data[:5]) == b'frame', "finding the producer's bytes")
    pool.release_filled(buffer)
    del buffer  # the buffer is free once its last reference is gone
    refused(PoolError.NO_BUFFER, pool.acquire_filled, 0)
    pool.set_active(False)

    # For hardware that cannot reach all addresses, the pool refuses memory beyond max-address.
    narrow = activate(GstPhysMem.PhysBufferPool(kind=Kind.NORMAL, max_address=0xfff), minimum=0)
    refused(PoolError.NO_MEMORY, narrow.acquire_free, 0)
    narrow.set_active(False)


class Memory:
    """Memory of the application: a memfd, mapped."""

    def __init__(self):
        self.descriptor = os.memfd_create('typelib')
        os.truncate(self.descriptor, SIZE)
        self.map = mmap.mmap(self.descriptor, SIZE)
        # ctypes tells the address of a buffer, and keeps the mapping from being closed.
        self.bytes = (ctypes.c_char * SIZE).from_buffer(self.map)
        self.address = ctypes.addressof(self.bytes)


def extent(address, size):
    made = GstPhysMem.PhysExtent()
    made.phys_addr, made.size = address, size
    return made


def memory_of_the_application():
    """Pools over memory that this program owns. Its addresses are made up here; a driver would tell them."""
    memory, freed = Memory(), []

    # The pool owns the memory, and frees it after its last use.
    pieces = [extent(0x40001000, SIZE // 2), extent(0x40000000, SIZE // 2)]
    handle = GstPhysMem.PhysBufferHandle.new_full(memory.address, SIZE, pieces, memory.descriptor,
                                                  lambda *_: freed.append('owned'))
    pool = activate(GstPhysMem.PhysBufferPool.new_with_handles([handle]))
    del handle
    buffer = pool.acquire_free(0)
    meta = GstPhysMem.buffer_get_phys_mem_meta(buffer)
    told = [(piece.phys_addr, piece.size) for piece in meta.get_extents()]
    check(told == [(0x40001000, SIZE // 2), (0x40000000, SIZE // 2)], f'finding the pieces in {told}')
    check(meta.address_at(SIZE // 2) == (True, 0x40000000), 'finding the second piece')
    exported = pool.export_dmabuf(meta.id)
    check(os.path.sameopenfile(exported, memory.descriptor), 'exporting the dma-buf')
    os.close(exported)
    pool.set_active(False)
    del pool, meta
    check(not freed, 'keeping memory that a buffer uses')
    del buffer
    check(freed == ['owned'], 'freeing the memory')
    print('the memory was freed after its last use')

    # The program keeps the memory, and takes it back when it likes.
    handle = GstPhysMem.PhysBufferHandle.new(memory.address, SIZE, 0x40000000, lambda *_: freed.append('borrowed'))
    pool = activate(GstPhysMem.PhysBufferPool.new_with_borrowed_handles([handle]))
    buffer = pool.acquire_free(0)
    check(GstPhysMem.buffer_get_phys_addr(buffer) == (True, 0x40000000), 'finding the address')
    del handle
    check(freed == ['owned', 'borrowed'], 'freeing borrowed memory')
    check(not GstPhysMem.buffer_get_phys_mem_meta(buffer).is_address_known(), 'forgetting the address')
    del buffer
    refused(PoolError.GONE, pool.acquire_free, 0)
    pool.set_active(False)

    # The memory stays for ever.
    block = GstPhysMem.PhysMemBlock()
    block.data, block.size, block.phys_addr = memory.address, SIZE, 0x40000000
    pool = activate(GstPhysMem.PhysBufferPool.new_with_regions([block]))
    buffer = pool.acquire_free(0)
    with buffer.map(BOTH) as frame:
        frame.data[0] = 0x5a
    check(memory.map[0] == 0x5a, 'sharing the memory with its buffer')
    del buffer
    pool.set_active(False)

    refused(PoolError.FAILED, GstPhysMem.PhysBufferHandle.new_from_dmabuf, memory.descriptor)


def main():
    Gst.init(None)
    verbs()
    memory_of_the_application()
    print('ok')


if __name__ == '__main__':
    main()
