// SPDX-License-Identifier: MPL-2.0
//! A GstStructure as a derived GObject property. glib's derive macro does not know the type, so this
//! wrapper holds the same boxed value.

use gst::{
    glib::{self, HasParamSpec, ParamSpecBoxed, value::FromValue},
    prelude::*,
};

/// The value of a property that holds a GstStructure. `None` is NULL.
#[derive(Debug, Clone, Default)]
pub struct StructureProperty(pub Option<gst::Structure>);

impl From<gst::Structure> for StructureProperty {
    fn from(structure: gst::Structure) -> Self {
        Self(Some(structure))
    }
}

impl HasParamSpec for StructureProperty {
    type ParamSpec = ParamSpecBoxed;
    type SetValue = Self;
    type BuilderFn = fn(&str) -> glib::ParamSpecBoxedBuilder<gst::Structure>;

    fn param_spec_builder() -> Self::BuilderFn {
        ParamSpecBoxed::builder
    }
}

impl StaticType for StructureProperty {
    fn static_type() -> glib::Type {
        gst::Structure::static_type()
    }
}

impl ToValue for StructureProperty {
    fn to_value(&self) -> glib::Value {
        self.0.to_value()
    }

    fn value_type(&self) -> glib::Type {
        Self::static_type()
    }
}

impl From<StructureProperty> for glib::Value {
    fn from(property: StructureProperty) -> Self {
        property.to_value()
    }
}

// SAFETY: it checks and reads the value exactly as Option<Structure> does.
unsafe impl<'a> FromValue<'a> for StructureProperty {
    type Checker = <Option<gst::Structure> as FromValue<'a>>::Checker;

    unsafe fn from_value(value: &'a glib::Value) -> Self {
        // SAFETY: the caller ran the same checker.
        Self(unsafe { Option::<gst::Structure>::from_value(value) })
    }
}

/// The named fields of the statistics in one line, which an element logs when it stops.
pub(crate) fn in_one_line(stats: &StructureProperty, names: &[&str]) -> String {
    let value = |name: &&str| {
        let value = stats.0.as_ref()?.value(*name).ok()?;
        let text = value.get::<String>();
        Some(format!(
            "{name} {}",
            text.ok()
                .or_else(|| value.transform::<String>().ok()?.get().ok())?
        ))
    };
    names
        .iter()
        .filter_map(value)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_in_the_line_in_the_order_asked_for() {
        gst::init().unwrap();
        let stats = gst::Structure::builder("stats")
            .field("copied", 2u64)
            .field("path", "copying: it is so")
            .field("shown", 3u32);
        let line = in_one_line(
            &stats.build().into(),
            &["shown", "copied", "no-such", "path"],
        );
        assert_eq!(line, "shown 3, copied 2, path copying: it is so");
        assert_eq!(in_one_line(&StructureProperty(None), &["shown"]), "");
    }
}
