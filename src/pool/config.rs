// SPDX-License-Identifier: MPL-2.0
//! Checks and completes the configuration of a pool.

use gst_video::prelude::*;

use crate::layout::{Layout, Plane};

/// A configuration that the pool can fulfil.
#[derive(Debug, Clone)]
pub(super) struct BufferConfig {
    pub size_bytes: usize,
    pub prefix_bytes: usize,
    /// Prefix, buffer and padding together.
    pub block_bytes: usize,
    pub min_buffers: usize,
    pub max_buffers: usize,
    pub video: Option<VideoConfig>,
}

/// What goes into each buffer's GstVideoMeta.
#[derive(Debug, Clone)]
pub(super) struct VideoConfig {
    pub info: gst_video::VideoInfo,
    pub layout: Layout,
    pub alignment: Option<gst_video::VideoAlignment>,
}

/// Why a configuration was not accepted as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    /// The config was corrected; the caller may read it back and set it again.
    #[error("{0}")]
    Corrected(String),
    #[error("{0}")]
    Impossible(String),
}

/// What the pool's memory allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Strides and offsets that the hardware dictates.
    pub layout: Option<Layout>,
    /// Number and least size of existing regions; `None` for a pool that allocates its own.
    pub regions: Option<(usize, usize)>,
    /// Alignment of every block, as a mask of the kind that GstAllocationParams has.
    pub align: usize,
}

/// Checks `config` against `limits` and completes it in place.
pub(super) fn complete(
    config: &mut gst::BufferPoolConfigRef,
    limits: &Limits,
) -> Result<BufferConfig, ConfigError> {
    let (caps, size, min, max) = config
        .params()
        .ok_or_else(|| ConfigError::Impossible("the config has no parameters".into()))?;
    let mut corrections = Vec::new();
    let (prefix, padding) = match (limits.layout, config.allocator()) {
        // With a fixed layout the bytes before and after the frame do not belong to the buffer.
        (Some(_), _) | (None, None) => (0, 0),
        (None, Some((allocator, params))) => {
            if params.align() & !limits.align != 0 {
                let possible = gst::AllocationParams::new(
                    params.flags(),
                    limits.align,
                    params.prefix(),
                    params.padding(),
                );
                config.set_allocator(allocator.as_ref(), Some(&possible));
                corrections.push(format!(
                    "blocks aligned by {:#x} wanted, these are by {:#x}",
                    params.align(),
                    limits.align
                ));
            }
            (params.prefix(), params.padding())
        }
    };

    let video = match caps.as_deref().map(video_info) {
        Some(Some(info)) => Some(video_config(config, info, limits, &mut corrections)?),
        _ => None,
    };
    let mut wanted = size as usize;
    if let Some(layout) = limits.layout {
        wanted = layout.size_bytes;
    } else if let Some(video) = &video {
        wanted = wanted.max(video.info.size());
    }
    if wanted == 0 {
        return Err(ConfigError::Impossible("the buffer size is 0".into()));
    }
    let Ok(new_size) = u32::try_from(wanted) else {
        return Err(ConfigError::Impossible(format!(
            "{wanted} bytes a buffer are more than a pool config can say"
        )));
    };

    let block = prefix
        .checked_add(wanted)
        .and_then(|sum| sum.checked_add(padding))
        .filter(|&sum| isize::try_from(sum).is_ok());
    let Some(block_bytes) = block else {
        return Err(ConfigError::Impossible(format!(
            "{wanted} bytes a buffer, prefix {prefix} and padding {padding} are more than an \
             address space holds"
        )));
    };

    if let Some((0, _)) = limits.regions {
        return Err(ConfigError::Impossible(
            "there is no memory to serve buffers from: none was given, or its owner freed it"
                .into(),
        ));
    }
    let (mut new_min, mut new_max) = (min, max);
    if let Some((count, region_bytes)) = limits.regions {
        if block_bytes > region_bytes {
            return Err(ConfigError::Impossible(format!(
                "{wanted} bytes a buffer (prefix {prefix}, padding {padding}) do not fit into the \
                 {region_bytes} bytes of each existing block"
            )));
        }
        let count = count as u32;
        new_min = min.min(count);
        new_max = if max == 0 { count } else { max.min(count) };
        if min > count {
            corrections.push(format!("{min} buffers wanted, there are only {count}"));
        } else if max != 0 && max < min {
            return Err(ConfigError::Impossible(format!("max {max} < min {min}")));
        }
    } else if max != 0 && max < min {
        return Err(ConfigError::Impossible(format!("max {max} < min {min}")));
    }
    config.set_params(caps.as_ref(), new_size, new_min, new_max);
    if !corrections.is_empty() {
        return Err(ConfigError::Corrected(corrections.join("; ")));
    }
    Ok(BufferConfig {
        size_bytes: wanted,
        prefix_bytes: prefix,
        block_bytes,
        min_buffers: new_min as usize,
        max_buffers: match new_max {
            0 => usize::MAX,
            n => n as usize,
        },
        video,
    })
}

/// The layout of `video/x-raw` caps. Buffers of all other caps are plain bytes to the pool, and so are those of caps with a
/// negative size, of which GStreamer makes a GstVideoInfo that its own functions warn of.
fn video_info(caps: &gst::CapsRef) -> Option<gst_video::VideoInfo> {
    if !caps.is_fixed() || caps.structure(0)?.name() != "video/x-raw" {
        return None;
    }
    let info = gst_video::VideoInfo::from_caps(caps).ok()?;
    let is_size = |px: u32| i32::try_from(px).is_ok();
    let is_laid_out = info.format() != gst_video::VideoFormat::Encoded
        && is_size(info.width())
        && is_size(info.height());
    is_laid_out.then_some(info)
}

fn video_config(
    config: &mut gst::BufferPoolConfigRef,
    packed: gst_video::VideoInfo,
    limits: &Limits,
    corrections: &mut Vec<String>,
) -> Result<VideoConfig, ConfigError> {
    let has_meta = config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    let mut info = packed.clone();
    let stock = Layout::of_info(&packed);
    let mut alignment = None;

    let layout = if let Some(layout) = limits.layout {
        let Some(fitted) = layout.with_rows_of(&packed) else {
            let places = |plane: &Plane| (plane.offset_bytes, plane.stride_bytes);
            return Err(ConfigError::Impossible(format!(
                "{}x{} {} does not fit the fixed layout: (offset, stride) {:?}, {} bytes",
                packed.width(),
                packed.height(),
                packed.format(),
                layout.planes.each_ref().map(places),
                layout.size_bytes
            )));
        };
        let wants_alignment = config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
        if wants_alignment && !fits_alignment(config, &layout) {
            return Err(ConfigError::Impossible(
                "the memory's layout is fixed and does not fit the alignment asked for".into(),
            ));
        }
        fitted
    } else {
        if config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT)
            && let Some(mut align) = config.video_alignment()
        {
            let aligned = info.align(&mut align).is_ok();
            if !aligned || Layout::of_info(&info).with_rows_of(&packed).is_none() {
                return Err(ConfigError::Impossible(format!(
                    "alignment {align:?} cannot be laid out"
                )));
            }
            config.set_video_alignment(&align);
            alignment = Some(align);
        }
        Layout::of_info(&info)
    };

    let is_padded = layout.planes() != stock.planes();
    if is_padded && !has_meta {
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        corrections.push("rows are padded, which only GstVideoMeta can tell".into());
    }
    Ok(VideoConfig {
        info,
        layout,
        alignment,
    })
}

/// Whether a fixed layout satisfies the alignment in `config`: the alignment wants no padding, and
/// the strides meet its stride masks.
fn fits_alignment(config: &gst::BufferPoolConfigRef, layout: &Layout) -> bool {
    let Some(align) = config.video_alignment() else {
        return true;
    };
    let bare = align.padding_top() == 0
        && align.padding_bottom() == 0
        && align.padding_left() == 0
        && align.padding_right() == 0;
    bare && layout
        .planes()
        .iter()
        .zip(align.stride_align())
        .all(|(plane, &mask)| plane.stride_bytes & mask as usize == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNED: Limits = Limits {
        layout: None,
        regions: None,
        align: 4095,
    };

    fn config(caps: Option<&gst::Caps>, size: u32, min: u32, max: u32) -> gst::BufferPoolConfig {
        gst::init().unwrap();
        // The config is one of the base class, whose own set_config is not called.
        let mut config = gst::BufferPool::new().config();
        config.set_params(caps, size, min, max);
        config
    }

    fn bgrx(width: u32, height: u32) -> gst::Caps {
        gst::init().unwrap();
        gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, width, height)
            .build()
            .unwrap()
            .to_caps()
            .unwrap()
    }

    #[test]
    fn bytes_of_any_caps_are_taken_as_they_are() {
        let mut config = config(None, 1234, 2, 5);
        let completed = complete(&mut config, &OWNED).unwrap();
        assert_eq!(
            (
                completed.size_bytes,
                completed.min_buffers,
                completed.max_buffers
            ),
            (1234, 2, 5)
        );
        assert!(completed.video.is_none());
    }

    #[test]
    fn a_size_of_nothing_is_refused() {
        let mut config = config(None, 0, 0, 0);
        assert!(matches!(
            complete(&mut config, &OWNED),
            Err(ConfigError::Impossible(_))
        ));
    }

    #[test]
    fn a_size_below_the_frame_is_raised() {
        let mut config = config(Some(&bgrx(320, 240)), 1, 0, 0);
        let completed = complete(&mut config, &OWNED).unwrap();
        assert_eq!(completed.size_bytes, 320 * 240 * 4);
        assert_eq!(config.params().unwrap().1, 320 * 240 * 4);
    }

    #[test]
    fn caps_of_a_negative_size_are_plain_bytes() {
        for size in [(-1, 32), (64, -1)] {
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "NV12")
                .field("width", size.0)
                .field("height", size.1)
                .build();
            let mut config = config(Some(&caps), 4096, 0, 0);
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
            config.set_video_alignment(&gst_video::VideoAlignment::new(1, 0, 0, 16, &[63; 4]));
            let completed = complete(&mut config, &OWNED).unwrap();
            assert!(completed.video.is_none());
        }
    }

    #[test]
    fn a_padded_layout_without_video_meta_comes_back_corrected() {
        let caps = bgrx(100, 50);
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut config = config(Some(&caps), 0, 0, 0);
        let limits = Limits {
            layout: Some(Layout::custom(&info, &[512], &[64], 512 * 50).unwrap()),
            regions: Some((3, 512 * 60)),
            align: 0,
        };
        assert!(matches!(
            complete(&mut config, &limits),
            Err(ConfigError::Corrected(_))
        ));
        let completed = complete(&mut config, &limits).unwrap();
        assert_eq!(completed.size_bytes, 512 * 50);
        assert_eq!(completed.video.unwrap().layout.planes[0].offset_bytes, 64);
        assert_eq!(config.params().unwrap().3, 3, "max is what exists");
    }

    fn with_params(align: usize, prefix: usize, padding: usize) -> gst::BufferPoolConfig {
        let config = config(None, 64, 0, 0);
        let params = gst::AllocationParams::new(gst::MemoryFlags::empty(), align, prefix, padding);
        config.set_allocator(None::<&gst::Allocator>, Some(&params));
        config
    }

    #[test]
    fn prefix_and_padding_beyond_all_memory_are_refused() {
        for (prefix, padding) in [(usize::MAX, 0), (0, usize::MAX), (usize::MAX / 2, 0)] {
            let mut config = with_params(0, prefix, padding);
            assert!(matches!(
                complete(&mut config, &OWNED),
                Err(ConfigError::Impossible(_))
            ));
        }
        let completed = complete(&mut with_params(0, 100, 10), &OWNED).unwrap();
        assert_eq!((completed.prefix_bytes, completed.block_bytes), (100, 174));
    }

    #[test]
    fn paddings_that_wrap_around_are_refused() {
        let huge = [
            // Found by trial: the planes end behind the buffer, or lie before it.
            (15, 4_294_966_656, 0, 0),
            (0, 4_294_967_040, 1, 0),
            (4_294_967_040, 0, 0, 4_294_967_040),
            (0, 0, u32::MAX, 0),
            (0, 0, 0, u32::MAX),
        ];
        for format in ["I420", "BGRx", "NV12", "GRAY8"] {
            for (left, right, top, bottom) in huge {
                let caps = format!("video/x-raw,format={format},width=640,height=480");
                gst::init().unwrap();
                let caps: gst::Caps = caps.parse().unwrap();
                let mut config = config(Some(&caps), 0, 0, 0);
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
                let align = gst_video::VideoAlignment::new(top, bottom, left, right, &[0; 4]);
                config.set_video_alignment(&align);
                match complete(&mut config, &OWNED) {
                    Err(ConfigError::Impossible(_)) => {}
                    Err(corrected) => panic!("{corrected}"),
                    // A layout that is accepted has room for every byte of every row.
                    Ok(completed) => {
                        let video = completed.video.unwrap();
                        let stock = gst_video::VideoInfo::from_caps(&caps).unwrap();
                        for n in 0..stock.n_planes() as usize {
                            let rows = stock.comp_height(n as u8) as usize;
                            let plane = video.layout.planes[n];
                            let end = plane.stride_bytes * rows + plane.offset_bytes;
                            assert!(end <= completed.size_bytes, "{format} plane {n}: {align:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_alignment_that_blocks_do_not_have_comes_back_corrected() {
        let mut config = with_params(0xffff, 0, 0);
        assert_eq!(
            complete(&mut config, &OWNED).unwrap_err(),
            ConfigError::Corrected("blocks aligned by 0xffff wanted, these are by 0xfff".into())
        );
        assert_eq!(config.allocator().unwrap().1.align(), 4095);
        assert!(complete(&mut config, &OWNED).is_ok());
    }

    #[test]
    fn no_memory_at_all_is_refused() {
        let limits = Limits {
            layout: None,
            regions: Some((0, usize::MAX)),
            align: 0,
        };
        assert!(matches!(
            complete(&mut config(None, 64, 0, 0), &limits),
            Err(ConfigError::Impossible(_))
        ));
    }

    #[test]
    fn more_buffers_than_exist_come_back_corrected() {
        let mut config = config(None, 64, 9, 0);
        let limits = Limits {
            layout: None,
            regions: Some((3, 64)),
            align: 0,
        };
        let refused = complete(&mut config, &limits).unwrap_err();
        assert_eq!(
            refused,
            ConfigError::Corrected("9 buffers wanted, there are only 3".into())
        );
        assert_eq!(config.params().unwrap().2, 3);
    }
}
