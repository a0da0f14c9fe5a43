// SPDX-License-Identifier: MPL-2.0
//! Other copies of this library in the same process.
//!
//! An application that is built with the crate may load the plugin as well, and the plugin may be there
//! twice. Names of types, allocators and elements are unique in a process. So each copy registers types of
//! its own (`ALLOW_NAME_CONFLICT` appends a number to the second copy's name) and never looks into an
//! object that another copy made. The copies share only what has a C layout: the meta (`meta::other`) and
//! the enumerations (`shared_enum`). Only one copy has the elements' names: a second plugin is refused.

use gst::glib;

use crate::sys::maps::{self, MappedFile};

/// A quark for data that only this copy of the library understands.
pub fn quark_of_this_copy(name: &str) -> glib::Quark {
    static ANCHOR: u8 = 0;
    glib::Quark::from_str(format!("{name}-{:p}", &ANCHOR))
}

/// The file that holds this copy's code.
fn own_file() -> Option<MappedFile> {
    maps::file_at(own_file as *const () as usize)
}

/// The file that holds the code of a class that is in use.
fn file_of(type_: glib::Type) -> Option<MappedFile> {
    let class = glib::Class::<glib::Object>::from_type(type_)?;
    let finalize = class.as_ref().finalize?;
    maps::file_at(finalize as *const () as usize)
}

/// Refuses to load this plugin if another file has registered elements of these names, since the registry
/// would then switch from one to the other. An application may still register its own copy, which takes the
/// names over: elements made after that are of the types that the application knows.
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
    // GStreamer itself reports only that loading failed.
    glib::g_message!("GStreamer-PhysMem", "{sentence}");
    Err(glib::bool_error!("{sentence}"))
}
