// SPDX-License-Identifier: MPL-2.0
//! The element that made a pool for others to use, and what it has to say for it.

use super::imp::PhysBufferPool;

impl PhysBufferPool {
    pub(super) fn set_maker(&self, element: Option<&gst::Element>) {
        self.maker.set(element);
    }

    /// Whoever adopted the pool knows that there is no buffer, and calls it what it likes
    /// ("not-negotiated", say); the reason is known here.
    pub(super) fn post_want_of_memory(&self) {
        if let Some(maker) = self.maker.upgrade() {
            let reason = self.last_error().unwrap_or_default();
            gst::element_error!(
                maker,
                gst::ResourceError::NoSpaceLeft,
                ("No memory for the frames: {reason}")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;

    use crate::{memory::MemoryKind, pool::PhysBufferPool};

    /// A pool of a heap that does not exist, configured for at least so many buffers.
    fn hopeless(min: u32) -> PhysBufferPool {
        let builder = PhysBufferPool::builder().kind(MemoryKind::Cma);
        let pool = builder.heap("no-such-heap").build();
        let mut config = pool.config();
        config.set_params(None, 4096, min, 0);
        pool.set_config(config).unwrap();
        pool
    }

    fn posted(use_pool: impl FnOnce(&gst::Element)) -> Option<String> {
        gst::init().unwrap();
        let element = gst::Bin::new();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        use_pool(element.upcast_ref());
        element.set_bus(None);
        let message = bus.pop()?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn assert_names_the_heap(message: Option<String>) {
        let message = message.expect("an error is posted");
        assert!(
            message.starts_with("No memory for the frames: "),
            "{message}"
        );
        assert!(message.contains("no-such-heap"), "{message}");
    }

    #[test]
    fn who_adopts_a_pool_without_memory_is_not_left_to_guess() {
        assert_names_the_heap(posted(|element| {
            let pool = hopeless(2);
            pool.set_maker(Some(element));
            assert!(pool.set_active(true).is_err());
        }));
        // With nothing to be had at once, the first buffer is what fails.
        assert_names_the_heap(posted(|element| {
            let pool = hopeless(0);
            pool.set_maker(Some(element));
            pool.set_active(true).unwrap();
            assert!(pool.acquire_buffer(None).is_err());
            pool.set_active(false).unwrap();
        }));
    }

    #[test]
    fn who_tries_a_pool_himself_is_told_by_its_last_error_alone() {
        let message = posted(|element| {
            let pool = hopeless(1);
            pool.set_maker(Some(element));
            pool.set_maker(None);
            assert!(pool.set_active(true).is_err());
            assert!(pool.last_error().unwrap().contains("no-such-heap"));
        });
        assert_eq!(message, None);
    }
}
