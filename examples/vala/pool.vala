// SPDX-License-Identifier: MPL-2.0
// The pool's four verbs, its meta and its errors in Vala, by the description GstPhysMem-0.1.gir. Vala
// calls its contents Gst.Phys..., by the names of the C types.
//
//     valac --pkg gstreamer-1.0 --pkg GstPhysMem-0.1 pool.vala
//
// Set GST_PLUGIN_PATH if the plugin is not installed.

void check (bool fine, string what) {
    if (!fine)
        error ("%s failed", what);
}

int main (string[] args) {
    Gst.init (ref args);
    var pool = new Gst.PhysBufferPool (Gst.PhysMemoryKind.NORMAL);
    var config = pool.get_config ();
    Gst.BufferPool.config_set_params (config, null, 4096, 2, 2);
    check (pool.set_config ((owned) config) && pool.set_active (true), "activating the pool");
    try {
        var buffer = pool.acquire_free (-1);
        unowned var meta = Gst.buffer_get_phys_mem_meta (buffer);
        uint64 address;
        if (Gst.buffer_get_phys_addr (buffer, out address))
            print ("buffer %u is at 0x%" + uint64.FORMAT_MODIFIER + "x\n", meta.id, address);
        else
            print ("buffer %u: %s\n", meta.id, meta.unknown_reason);
        buffer.fill (0, "frame".data);
        pool.submit_filled ((owned) buffer);
        buffer = pool.acquire_filled (Gst.SECOND);
        check (buffer.memcmp (0, "frame".data) == 0, "finding the producer's bytes");
        pool.release_filled ((owned) buffer);
        pool.acquire_filled (0);
        check (false, "refusing");
    } catch (Gst.PhysPoolError.NO_BUFFER error) {
        print ("refused: %s\n", error.message);
    } catch (Error error) {
        check (false, error.message);
    }
    pool.set_active (false);
    print ("ok\n");
    return 0;
}
