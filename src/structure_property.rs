// SPDX-License-Identifier: MPL-2.0
//! A GstStructure as a derived GObject property, which glib's derive does not
//! know: the same boxed value, under a name of ours.

use gst::{
    glib::{self, HasParamSpec, ParamSpecBoxed, value::FromValue},
    prelude::*,
};

/// A structure that a property holds; `None` reads as NULL.
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
