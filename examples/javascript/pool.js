#!/usr/bin/gjs
// SPDX-License-Identifier: MPL-2.0
// The pool's four verbs, its meta and its errors in JavaScript, by the typelib GstPhysMem-0.1.
//
//     gjs pool.js
//
// Set GST_PLUGIN_PATH if the plugin is not installed, and GI_TYPELIB_PATH and LD_LIBRARY_PATH if the typelib
// and the library are not.
imports.gi.versions.Gst = '1.0';
imports.gi.versions.GstPhysMem = '0.1';
const {Gst, GstPhysMem} = imports.gi;

function check(fine, what) {
    if (!fine)
        throw new Error(`${what} failed`);
}

function refused(code, act) {
    try {
        act();
    } catch (error) {
        check(error.matches(GstPhysMem.phys_pool_error_quark(), code), `finding ${code} in ${error}`);
        print(`refused: ${error.message}`);
        return;
    }
    check(false, `refusing with ${code}`);
}

Gst.init(null);
const pool = GstPhysMem.PhysBufferPool.new(GstPhysMem.PhysMemoryKind.NORMAL);
const config = pool.get_config();
Gst.BufferPool.config_set_params(config, null, 4096, 2, 2);
check(pool.set_config(config) && pool.set_active(true), 'activating the pool');

const buffer = pool.acquire_free(-1);
// GJS has no objects for metas, so the pool describes the buffer.
const described = pool.emit('describe', buffer);
const [, number] = described.get_uint('id');
const [known, address] = GstPhysMem.buffer_get_phys_addr(buffer);
print(known
    ? `buffer ${number} is at 0x${address.toString(16)}`
    : `buffer ${number}: ${described.get_string('address-unknown')}`);
refused(GstPhysMem.PhysPoolError.NO_DMA_BUF, () => pool.export_dmabuf(number));
buffer.fill(0, [0x66, 0x72, 0x61, 0x6d, 0x65]);
pool.submit_filled(buffer);
refused(GstPhysMem.PhysPoolError.ILLEGAL_STEP, () => pool.submit_filled(buffer));
const filled = pool.acquire_filled(Gst.SECOND);
check(filled.extract_dup(0, 5).join() === '102,114,97,109,101', "finding the producer's bytes");
pool.release_filled(filled);
refused(GstPhysMem.PhysPoolError.NO_BUFFER, () => pool.acquire_filled(0));
pool.set_active(false);
print('ok');
