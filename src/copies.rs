// SPDX-License-Identifier: MPL-2.0
//! Other copies of this library in the same process.
//!
//! An application that is built with the crate may load the plugin, too, and a plugin may
//! be there twice. What a process has only once is a name: of a type, of an allocator, of
//! an element. So each copy keeps to types of its own (`ALLOW_NAME_CONFLICT` gives the
//! second a name with a number) and never looks into an object that another has made; what
//! is C on both sides they share: the meta (`meta::other`) and the enumerations
//! (`shared_enum`). The elements' names belong to one copy, and a second plugin is refused.

use gst::glib;

use crate::sys::maps::{self, MappedFile};

/// A quark for data that only this copy understands.
pub fn quark_of_this_copy(name: &str) -> glib::Quark {
    static ANCHOR: u8 = 0;
    glib::Quark::from_str(format!("{name}-{:p}", &ANCHOR))
}

/// The file that this copy is in.
fn own_file() -> Option<MappedFile> {
    maps::file_at(own_file as *const () as usize)
}

/// The file with the code of a class that is in use.
fn file_of(type_: glib::Type) -> Option<MappedFile> {
    let class = glib::Class::<glib::Object>::from_type(type_)?;
    let finalize = class.as_ref().finalize?;
    maps::file_at(finalize as *const () as usize)
}

/// Refuses to be a plugin beside another that has registered elements of these names: the
/// registry would go from one to the other. An application that registers its own copy
/// takes the names over; what it makes from then on is of the types that it knows.
///
/// # Errors
/// The sentence names both files.
pub fn refuse_second_plugin(
    plugin: &gst::Plugin,
    elements: &[&str],
) -> Result<(), glib::BoolError> {
    let (Some(path), Some(own)) = (plugin.filename(), own_file()) else {
        return Ok(());
    };
    let other = elements
        .iter()
        .filter_map(|name| gst::ElementFactory::find(name))
        .map(|factory| factory.element_type())
        .filter(|type_| type_.is_valid())
        .find_map(|type_| file_of(type_).filter(|other| *other != own));
    let Some(other) = other else {
        return Ok(());
    };
    let sentence = format!(
        "{} is not loaded: another copy of this plugin is in the process already, {}; remove one of them, or take its directory out of GST_PLUGIN_PATH",
        path.display(),
        other.path.display(),
    );
    // GStreamer says no more than that loading failed.
    glib::g_message!("GStreamer-PhysMem", "{sentence}");
    Err(glib::bool_error!("{sentence}"))
}
