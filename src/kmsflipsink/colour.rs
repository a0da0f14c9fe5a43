// SPDX-License-Identifier: MPL-2.0
//! The colours of frames, and the KMS properties by which they are shown right: how the plane converts YUV to RGB, and
//! what the connector tells the display. Pure; `tune` reads and sets the properties.

use gst_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange};

use super::edid::DisplayColours;
use super::frame_caps::FrameCaps;
use super::hdr::{self, Eotf, StaticMetadata};

/// What caps say of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colours {
    /// How YUV is to be converted; `None` for frames that are not YUV.
    yuv: Option<(VideoColorMatrix, VideoColorRange)>,
    /// Bits of the deepest component; 0 if not known.
    depth: u32,
    /// Whether the primaries are those of ITU-R BT.2020.
    is_wide: bool,
    /// The transfer function of HDR, with the static metadata.
    hdr: Option<(Eotf, StaticMetadata)>,
}

/// The values of COLOR_ENCODING, as the kernel names them (drm_color_mgmt.c).
const ENCODINGS: [(&str, VideoColorMatrix); 3] = [
    ("ITU-R BT.601 YCbCr", VideoColorMatrix::Bt601),
    ("ITU-R BT.709 YCbCr", VideoColorMatrix::Bt709),
    ("ITU-R BT.2020 YCbCr", VideoColorMatrix::Bt2020),
];

/// The object that has a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Plane,
    Crtc,
    Connector,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    /// A value of an enumeration.
    Name(&'static str),
    /// The bytes of a property blob.
    Blob([u8; hdr::BLOB_BYTES]),
}

/// A property to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub of: Of,
    pub name: &'static str,
    pub value: Value,
}

/// A property as the driver has it.
#[derive(Debug, Default)]
pub struct Offer {
    /// The names of an enumeration's values.
    pub names: Vec<String>,
    /// The largest value of a range.
    pub max: u64,
    pub now: u64,
}

/// Who sets the properties of the connector that have to do with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decides {
    ThisSink,
    /// The first sink on the CRTC.
    OtherSink,
    /// The driver has refused what this sink wishes.
    Nobody,
}

/// What there is to show the colours with.
pub struct Output<'a> {
    /// Finds a property; `None` if the object does not have it.
    pub offer: &'a dyn Fn(Of, &str) -> Option<Offer>,
    /// Whether the user has asked for a value of the property.
    pub is_by_user: &'a dyn Fn(Of, &str) -> bool,
    pub display: DisplayColours,
    pub decides: Decides,
    /// Whether values that another program has left are reset.
    pub resets: bool,
}

/// The properties to set, and in words what comes of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub wishes: Vec<Wish>,
    /// In what the picture differs from what the caps say.
    pub faults: Vec<String>,
    /// What is set on the connector for these frames.
    pub done: Vec<String>,
}

impl Colours {
    pub fn of(caps: &FrameCaps) -> Self {
        let colorimetry = caps.info.colorimetry();
        let (matrix, range) = (colorimetry.matrix(), colorimetry.range());
        // A fourcc without a GStreamer format does not say whether it is YUV, but the matrix does.
        let is_yuv = match caps.info.n_planes() {
            0 => !matches!(matrix, VideoColorMatrix::Unknown | VideoColorMatrix::Rgb),
            _ => caps.info.is_yuv(),
        };
        let eotf = Eotf::of(colorimetry.transfer());
        Self {
            yuv: is_yuv.then_some((matrix, range)),
            depth: caps
                .info
                .format_info()
                .depth()
                .iter()
                .copied()
                .max()
                .unwrap_or(0),
            is_wide: colorimetry.primaries() == VideoColorPrimaries::Bt2020,
            hdr: eotf.map(|eotf| (eotf, caps.metadata)),
        }
    }

    pub fn plan(&self, output: &Output<'_>) -> Plan {
        let mut plan = Plan::default();
        if let Some((matrix, range)) = self.yuv {
            plan_conversion(&mut plan, output, matrix, range);
        }
        match output.decides {
            Decides::ThisSink => self.plan_connector(&mut plan, output),
            Decides::OtherSink if self.needs_connector() => {
                let fault =
                    "another sink on this display decides which colours the display expects";
                plan.faults.push(fault.into());
            }
            Decides::Nobody if self.needs_connector() => {
                let fault = "the driver refuses to tell the display of these colours";
                plan.faults.push(fault.into());
            }
            _ => {}
        }
        plan
    }

    /// Whether the display has to be told of the colours.
    fn needs_connector(&self) -> bool {
        self.is_wide || self.hdr.is_some()
    }

    /// Whether the words of a plan are worth telling, even if they are that all is as the caps say.
    pub fn is_notable(&self) -> bool {
        self.yuv.is_some() || self.needs_connector()
    }

    fn plan_connector(&self, plan: &mut Plan, output: &Output<'_>) {
        let connector = |name: &str| {
            let offer = (output.offer)(Of::Connector, name)?;
            (!(output.is_by_user)(Of::Connector, name)).then_some(offer)
        };
        let mut wish = |name, value| {
            let of = Of::Connector;
            plan.wishes.push(Wish { of, name, value });
        };
        let has = |offer: &Offer, name: &str| offer.names.iter().any(|known| known == name);
        if let Some(offer) = connector("max bpc").filter(|_| self.depth > 8) {
            // The property has the value of this sink if it was set for earlier frames.
            let bits = offer.now.max(offer.max.min(self.depth.into()));
            wish("max bpc", Value::Number(bits));
            plan.done.push(format!("max bpc {bits}"));
        }
        const WIDE: &str = "BT2020_RGB";
        match connector("Colorspace") {
            Some(offer) if self.is_wide && output.display.shows_bt2020_rgb && has(&offer, WIDE) => {
                wish("Colorspace", Value::Name(WIDE));
                plan.done.push(format!("Colorspace {WIDE}"));
            }
            Some(offer) if output.resets && has(&offer, "Default") => {
                wish("Colorspace", Value::Name("Default"));
            }
            _ => {}
        }
        if let Some(offer) = connector("Broadcast RGB")
            && output.resets
            && has(&offer, "Automatic")
        {
            wish("Broadcast RGB", Value::Name("Automatic"));
        }
        let offer = connector("HDR_OUTPUT_METADATA");
        match self.hdr.filter(|&(eotf, _)| output.display.shows(eotf)) {
            Some((eotf, metadata)) if offer.is_some() => {
                wish("HDR_OUTPUT_METADATA", Value::Blob(metadata.blob(eotf)));
                plan.done.push(format!("HDR metadata for {}", eotf.name()));
            }
            _ if output.resets && offer.is_some() => wish("HDR_OUTPUT_METADATA", Value::Number(0)),
            _ => {}
        }
        plan.faults.extend(self.missing(output));
    }

    /// What the display, or the driver, does not do of what these colours need. What the user has asked for is no fault.
    fn missing(&self, output: &Output<'_>) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |name: &str, what: &str, is_shown: bool| {
            if (output.is_by_user)(Of::Connector, name) {
                return;
            }
            if !is_shown {
                missing.push(format!("the display does not say that it shows {what}"));
            } else if (output.offer)(Of::Connector, name).is_none() {
                missing.push(format!("the connector cannot tell the display of {what}"));
            }
        };
        if self.is_wide {
            need("Colorspace", "BT.2020", output.display.shows_bt2020_rgb);
        }
        if let Some((eotf, _)) = self.hdr {
            need(
                "HDR_OUTPUT_METADATA",
                eotf.name(),
                output.display.shows(eotf),
            );
        }
        missing
    }
}

impl Plan {
    /// One sentence for `stats`.
    pub fn words(&self) -> String {
        let faults = match self.faults.is_empty() {
            true => "as the caps say".to_owned(),
            false => self.faults.join("; "),
        };
        match self.done.is_empty() {
            true => faults,
            false => format!("{faults}; set on the connector: {}", self.done.join(", ")),
        }
    }
}

/// Plans COLOR_ENCODING and COLOR_RANGE of the plane, unless the user sets them. Most planes have neither. They convert in
/// one way, which KMS does not report, so they get the wish too, whose failure says that.
fn plan_conversion(
    plan: &mut Plan,
    output: &Output<'_>,
    matrix: VideoColorMatrix,
    range: VideoColorRange,
) {
    let encodings = (output.offer)(Of::Plane, "COLOR_ENCODING").unwrap_or_default();
    let is_there = |name: &str| encodings.names.iter().any(|known| known == name);
    for (name, wanted, nearest) in [
        (
            "COLOR_ENCODING",
            encoding(matrix, |_| true),
            encoding(matrix, is_there),
        ),
        ("COLOR_RANGE", range_name(range), range_name(range)),
    ] {
        if (output.is_by_user)(Of::Plane, name) {
            plan.faults
                .push(format!("{name} is that of plane-properties"));
            continue;
        }
        let Some(wanted) = wanted else {
            plan.faults
                .push(format!("the caps do not say which {name}"));
            continue;
        };
        let value = nearest.unwrap_or(wanted);
        if value != wanted {
            plan.faults.push(format!(
                "the plane has no {wanted}, and the nearest is {value}"
            ));
        }
        plan.wishes.push(Wish {
            of: Of::Plane,
            name,
            value: Value::Name(value),
        });
    }
}

/// The value of COLOR_ENCODING whose Kr and Kb are nearest to those of the matrix, among the values for which `is_there`
/// is true. DRM has no names for FCC and SMPTE 240M, for which the nearest values differ by at most 0.015. `None` if the
/// matrix is not known, or the plane has no encoding.
fn encoding(matrix: VideoColorMatrix, is_there: impl Fn(&str) -> bool) -> Option<&'static str> {
    let (kr, kb) = matrix.kr_kb().ok()?;
    let distance = |matrix: VideoColorMatrix| {
        let (other_kr, other_kb) = matrix.kr_kb().unwrap_or((1.0, 1.0));
        (other_kr - kr).abs().max((other_kb - kb).abs())
    };
    let there = ENCODINGS.into_iter().filter(|&(name, _)| is_there(name));
    let nearest = there.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    nearest.map(|(name, _)| name)
}

/// The value of COLOR_RANGE. `None` if the caps name no range.
fn range_name(range: VideoColorRange) -> Option<&'static str> {
    match range {
        VideoColorRange::Range0_255 => Some("YCbCr full range"),
        VideoColorRange::Range16_235 => Some("YCbCr limited range"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::edid::LG_HDR_4K;

    const FULL: &str = "YCbCr full range";
    const LIMITED: &str = "YCbCr limited range";

    fn colours(format: &str, colorimetry: &str) -> Colours {
        gst::init().unwrap();
        let caps: gst::Caps = format!(
            "video/x-raw,format={format},width=64,height=64,colorimetry=(string){colorimetry},\
             content-light-level=(string)1000:400"
        )
        .parse()
        .unwrap();
        Colours::of(&FrameCaps::parse(&caps).unwrap())
    }

    /// A connector of HDMI as drm_connector.c makes it, and a plane that converts in all ways.
    fn hdmi(of: Of, name: &str) -> Option<Offer> {
        let of_names = |list: &[&str]| Offer {
            names: list.iter().map(|name| name.to_string()).collect(),
            ..Offer::default()
        };
        match (of, name) {
            (Of::Plane, "COLOR_ENCODING") => Some(of_names(&ENCODINGS.map(|(name, _)| name))),
            (Of::Plane, "COLOR_RANGE") => Some(of_names(&[LIMITED, FULL])),
            (Of::Connector, "Colorspace") => Some(of_names(&[
                "Default",
                "BT709_YCC",
                "BT2020_RGB",
                "BT2020_YCC",
            ])),
            (Of::Connector, "Broadcast RGB") => {
                Some(of_names(&["Automatic", "Full", "Limited 16:235"]))
            }
            (Of::Connector, "max bpc") => Some(Offer {
                max: 12,
                now: 8,
                ..Offer::default()
            }),
            (Of::Connector, "HDR_OUTPUT_METADATA") => Some(Offer::default()),
            _ => None,
        }
    }

    /// That connector and plane, with a display whose EDID says nothing of colours.
    const SDR: Output<'static> = Output {
        offer: &hdmi,
        is_by_user: &|_, _| false,
        display: DisplayColours::of_nothing(),
        decides: Decides::ThisSink,
        resets: true,
    };

    /// The same with a display of HDR10.
    fn hdr10() -> Output<'static> {
        Output {
            display: DisplayColours::of_edid(&LG_HDR_4K),
            ..SDR
        }
    }

    fn wish(of: Of, name: &'static str, value: Value) -> Wish {
        Wish { of, name, value }
    }

    /// Each property has the value that the kernel's documentation of it asks for (drm_connector.c,
    /// drm_color_mgmt.c): HDR10 on a display that shows it.
    #[test]
    fn hdr10_sets_each_property_as_documented() {
        gst::init().unwrap();
        let metadata = StaticMetadata::of(
            &"video/x-raw,content-light-level=(string)1000:400"
                .parse::<gst::Caps>()
                .unwrap(),
        );
        let plan = colours("P010_10LE", "bt2100-pq").plan(&hdr10());
        let expected = [
            // "Color Encoding property of YUV to RGB conversion": the matrix of BT.2100 is that of BT.2020.
            wish(
                Of::Plane,
                "COLOR_ENCODING",
                Value::Name("ITU-R BT.2020 YCbCr"),
            ),
            wish(Of::Plane, "COLOR_RANGE", Value::Name(LIMITED)),
            // "This range property is used by userspace to limit the bit depth."
            wish(Of::Connector, "max bpc", Value::Number(10)),
            // "ITU-R BT.2020 R' G' B' colorimetry format": the plane has made RGB of YUV.
            wish(Of::Connector, "Colorspace", Value::Name("BT2020_RGB")),
            // "Automatic" lets the driver choose by the mode, as the display expects it.
            wish(Of::Connector, "Broadcast RGB", Value::Name("Automatic")),
            // "Driver expects metadata to be put in &struct hdr_output_metadata"; see `hdr`.
            wish(
                Of::Connector,
                "HDR_OUTPUT_METADATA",
                Value::Blob(metadata.blob(Eotf::Pq)),
            ),
        ];
        assert_eq!(plan.wishes, expected);
        assert_eq!(
            plan.words(),
            "as the caps say; set on the connector: max bpc 10, Colorspace BT2020_RGB, HDR metadata for PQ"
        );
    }

    #[test]
    fn sdr_clears_what_hdr_has_set_and_leaves_the_depth() {
        let plan = colours("NV12", "bt709").plan(&hdr10());
        let connector = plan.wishes.iter().filter(|wish| wish.of == Of::Connector);
        let connector: Vec<_> = connector.copied().collect();
        assert_eq!(
            connector,
            [
                wish(Of::Connector, "Colorspace", Value::Name("Default")),
                wish(Of::Connector, "Broadcast RGB", Value::Name("Automatic")),
                wish(Of::Connector, "HDR_OUTPUT_METADATA", Value::Number(0)),
            ]
        );
        assert_eq!(plan.words(), "as the caps say");
        let kept = Output {
            resets: false,
            ..hdr10()
        };
        let plan = colours("NV12", "bt709").plan(&kept);
        assert!(plan.wishes.iter().all(|wish| wish.of == Of::Plane));
    }

    #[test]
    fn a_display_that_does_not_say_hdr_is_told_of_none() {
        let plan = colours("P010_10LE", "bt2100-hlg").plan(&hdr10());
        let last = plan.wishes.last().unwrap();
        assert_eq!(last.value, Value::Number(0), "no metadata");
        assert_eq!(plan.faults, ["the display does not say that it shows HLG"]);
        let plan = colours("P010_10LE", "bt2100-pq").plan(&SDR);
        let value = |name| {
            plan.wishes
                .iter()
                .find(|wish| wish.name == name)
                .unwrap()
                .value
        };
        assert_eq!(value("Colorspace"), Value::Name("Default"));
        assert_eq!(value("HDR_OUTPUT_METADATA"), Value::Number(0));
        assert_eq!(plan.faults.len(), 2, "BT.2020 and PQ");
        let bare = Output {
            offer: &|of, name| hdmi(of, name).filter(|_| of == Of::Plane),
            ..hdr10()
        };
        let faults = colours("P010_10LE", "bt2100-pq").plan(&bare).faults;
        assert_eq!(faults[1], "the connector cannot tell the display of PQ");
    }

    #[test]
    fn what_the_user_sets_is_left_to_the_user() {
        let by_user = Output {
            is_by_user: &|of, _| of == Of::Connector,
            ..hdr10()
        };
        let plan = colours("P010_10LE", "bt2100-pq").plan(&by_user);
        assert!(plan.wishes.iter().all(|wish| wish.of == Of::Plane));
        assert_eq!(plan.words(), "as the caps say");
    }

    #[test]
    fn a_sink_that_does_not_decide_says_so_if_it_would() {
        for (decides, colorimetry, n_faults) in [
            (Decides::OtherSink, "bt2100-pq", 1),
            (Decides::Nobody, "bt2020-10", 1),
            (Decides::OtherSink, "bt709", 0),
        ] {
            let output = Output { decides, ..hdr10() };
            let plan = colours("P010_10LE", colorimetry).plan(&output);
            assert_eq!(plan.faults.len(), n_faults, "{colorimetry}");
            assert!(plan.wishes.iter().all(|wish| wish.of == Of::Plane));
        }
    }

    #[test]
    fn the_depth_is_raised_to_that_of_the_frames_and_never_lowered() {
        for (format, now, bits) in [
            ("NV12", 8, None),
            ("BGRx", 8, None),
            ("NV12_10LE40", 8, Some(10)),
            ("BGR10A2_LE", 8, Some(10)),
            ("P012_LE", 8, Some(12)),
            ("BGRA64_LE", 8, Some(12)),
            ("P010_10LE", 12, Some(12)),
        ] {
            let offer = |of, name: &str| match name {
                "max bpc" => Some(Offer {
                    now,
                    ..hdmi(of, name)?
                }),
                _ => hdmi(of, name),
            };
            let output = Output {
                offer: &offer,
                ..hdr10()
            };
            let plan = colours(format, "bt709").plan(&output);
            let wish = plan.wishes.iter().find(|wish| wish.name == "max bpc");
            let value = wish.map(|wish| wish.value);
            assert_eq!(value, bits.map(Value::Number), "{format}");
        }
    }

    #[test]
    fn yuv_is_converted_as_the_caps_say() {
        for (colorimetry, encoding, range) in [
            ("bt601", Some("ITU-R BT.601 YCbCr"), Some(LIMITED)),
            ("bt709", Some("ITU-R BT.709 YCbCr"), Some(LIMITED)),
            ("bt2020-10", Some("ITU-R BT.2020 YCbCr"), Some(LIMITED)),
            ("smpte240m", Some("ITU-R BT.709 YCbCr"), Some(LIMITED)),
            ("2:2:0:0", Some("ITU-R BT.601 YCbCr"), Some(LIMITED)),
            ("1:4:0:0", Some("ITU-R BT.601 YCbCr"), Some(FULL)),
            ("1:3:0:0", Some("ITU-R BT.709 YCbCr"), Some(FULL)),
        ] {
            let wishes = colours("NV12", colorimetry).plan(&hdr10()).wishes;
            let value = |name| {
                let wish = wishes.iter().find(|wish| wish.name == name);
                wish.map(|wish| wish.value)
            };
            assert_eq!(
                value("COLOR_ENCODING"),
                encoding.map(Value::Name),
                "{colorimetry}"
            );
            assert_eq!(
                value("COLOR_RANGE"),
                range.map(Value::Name),
                "{colorimetry}"
            );
        }
        assert!(!colours("BGRx", "sRGB").is_notable());
        let unknown = Colours {
            yuv: Some((VideoColorMatrix::Unknown, VideoColorRange::Unknown)),
            ..colours("NV12", "bt709")
        };
        let plan = unknown.plan(&hdr10());
        assert_eq!(plan.faults.len(), 2, "neither matrix nor range is known");
    }

    #[test]
    fn a_plane_without_the_encoding_gets_the_nearest() {
        gst::init().unwrap();
        for (matrix, plane_has, nearest) in [
            (
                VideoColorMatrix::Bt2020,
                "601 709",
                Some("ITU-R BT.709 YCbCr"),
            ),
            (
                VideoColorMatrix::Bt601,
                "709 2020",
                Some("ITU-R BT.2020 YCbCr"),
            ),
            (VideoColorMatrix::Bt709, "601", Some("ITU-R BT.601 YCbCr")),
            (VideoColorMatrix::Bt709, "", None),
        ] {
            let is_there = |name: &str| {
                let mut numbers = plane_has.split(' ');
                numbers.any(|n| !n.is_empty() && name.contains(&format!(".{n} ")))
            };
            assert_eq!(
                encoding(matrix, is_there),
                nearest,
                "{matrix:?} of {plane_has}"
            );
        }
    }
}
