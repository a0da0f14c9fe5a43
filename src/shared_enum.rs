// SPDX-License-Identifier: MPL-2.0
//! Enumerations that all copies of this library in a process share.
//!
//! glib's derive macro registers a new type, and panics if another copy of the library has registered one
//! of that name (`copies`). The macro here takes the existing type if its values are the same, so an
//! application that is built with the crate can set the properties of the plugin's elements.

use std::ffi::{CStr, CString};

use gst::glib::{self, gobject_ffi::GEnumValue, translate::from_glib};

/// Values for GObject, ended by one without a name.
#[repr(transparent)]
pub struct Values<const N: usize>(pub [GEnumValue; N]);
// SAFETY: the pointers are to static strings, and nothing changes them.
unsafe impl<const N: usize> Sync for Values<N> {}

/// Returns the type of this name with these values, which is registered if it does not exist. If the type
/// of this name has other values, the next free name with a number is used.
pub fn register(name: &'static CStr, values: &'static [GEnumValue]) -> glib::Type {
    let mut candidate: CString = name.to_owned();
    let mut number = 0;
    loop {
        // SAFETY: the name is a C string; the values are static, and the last one has no name.
        unsafe {
            let existing = glib::gobject_ffi::g_type_from_name(candidate.as_ptr());
            if existing == glib::gobject_ffi::G_TYPE_INVALID {
                let registered =
                    glib::gobject_ffi::g_enum_register_static(candidate.as_ptr(), values.as_ptr());
                return from_glib(registered);
            }
            if has_values(from_glib(existing), values) {
                return from_glib(existing);
            }
        }
        number += 1;
        let text = [name.to_bytes(), format!("-{number}").as_bytes()].concat();
        // A C string and a number contain no NUL.
        candidate = CString::new(text).unwrap_or_default();
    }
}

fn has_values(existing: glib::Type, values: &[GEnumValue]) -> bool {
    let Some(class) = glib::EnumClass::with_type(existing) else {
        return false;
    };
    let theirs = class.values().iter().map(|v| (v.value(), v.nick()));
    let ours = values.iter().filter(|v| !v.value_nick.is_null()).map(|v| {
        // SAFETY: the nick is a static C string.
        let nick = unsafe { CStr::from_ptr(v.value_nick) };
        (v.value, nick.to_str().unwrap_or_default())
    });
    theirs.eq(ours)
}

/// Gives an enumeration what `#[derive(glib::Enum)]` does, but with a shared type. Each variant has a nick,
/// by which properties are set, and a text for people.
macro_rules! shared_enum {
    ($enum:ident, $gtype:literal, { $($variant:ident: $nick:literal, $text:literal;)+ }) => {
        impl $enum {
            const VARIANTS: &[Self] = &[$(Self::$variant),+];

            /// The variant's nick.
            #[allow(dead_code)] // some enumerations are only set by users
            pub fn nick(self) -> &'static str {
                let nick = match self {
                    $(Self::$variant => const { $nick.to_str() },)+
                };
                nick.unwrap_or_default()
            }
        }

        impl gst::glib::translate::IntoGlib for $enum {
            type GlibType = i32;

            fn into_glib(self) -> i32 {
                self as i32
            }
        }

        impl gst::glib::translate::TryFromGlib<i32> for $enum {
            type Error = i32;

            unsafe fn try_from_glib(value: i32) -> Result<Self, i32> {
                let found = Self::VARIANTS.iter().find(|variant| **variant as i32 == value);
                found.copied().ok_or(value)
            }
        }

        impl gst::glib::translate::FromGlib<i32> for $enum {
            unsafe fn from_glib(value: i32) -> Self {
                // GObject accepts any number for an enumeration from code that sets it by number.
                // SAFETY: try_from_glib accepts any number.
                unsafe { gst::glib::translate::TryFromGlib::try_from_glib(value) }
                    .unwrap_or(Self::VARIANTS[0])
            }
        }

        impl gst::glib::value::ValueType for $enum {
            type Type = Self;
        }

        // SAFETY: the checker makes sure that the value is of this type, whose values are the variants:
        // `register` compared them.
        unsafe impl<'a> gst::glib::value::FromValue<'a> for $enum {
            type Checker = gst::glib::value::GenericValueTypeChecker<Self>;

            unsafe fn from_value(value: &'a gst::glib::Value) -> Self {
                use gst::glib::translate::{FromGlib, ToGlibPtr};
                // SAFETY: as above.
                unsafe {
                    let number = gst::glib::gobject_ffi::g_value_get_enum(value.to_glib_none().0);
                    Self::from_glib(number)
                }
            }
        }

        impl gst::glib::value::ToValue for $enum {
            fn to_value(&self) -> gst::glib::Value {
                use gst::glib::translate::{IntoGlib, ToGlibPtrMut};
                let mut value = gst::glib::Value::for_value_type::<Self>();
                // SAFETY: the value was initialised with this type.
                unsafe {
                    let raw = value.to_glib_none_mut().0;
                    gst::glib::gobject_ffi::g_value_set_enum(raw, self.into_glib());
                }
                value
            }

            fn value_type(&self) -> gst::glib::Type {
                <Self as gst::glib::prelude::StaticType>::static_type()
            }
        }

        impl From<$enum> for gst::glib::Value {
            fn from(value: $enum) -> Self {
                gst::glib::value::ToValue::to_value(&value)
            }
        }

        impl gst::glib::prelude::StaticType for $enum {
            fn static_type() -> gst::glib::Type {
                use gst::glib::gobject_ffi::GEnumValue;
                const N: usize = $enum::VARIANTS.len() + 1;
                static VALUES: $crate::shared_enum::Values<N> = $crate::shared_enum::Values([
                    $(GEnumValue {
                        value: $enum::$variant as i32,
                        value_name: $text.as_ptr(),
                        value_nick: $nick.as_ptr(),
                    },)+
                    GEnumValue {
                        value: 0,
                        value_name: std::ptr::null(),
                        value_nick: std::ptr::null(),
                    },
                ]);
                static TYPE: std::sync::OnceLock<gst::glib::Type> = std::sync::OnceLock::new();
                *TYPE.get_or_init(|| $crate::shared_enum::register($gtype, &VALUES.0))
            }
        }

        impl gst::glib::HasParamSpec for $enum {
            type ParamSpec = gst::glib::ParamSpecEnum;
            type SetValue = Self;
            type BuilderFn = fn(&str, Self) -> gst::glib::ParamSpecEnumBuilder<Self>;

            fn param_spec_builder() -> Self::BuilderFn {
                |name, default_value| Self::ParamSpec::builder_with_default(name, default_value)
            }
        }
    };
}
pub(crate) use shared_enum;

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use gst::glib::{self, gobject_ffi::GEnumValue, prelude::*};

    use super::{Values, register};

    const fn values(nick: &'static CStr) -> Values<2> {
        Values([
            GEnumValue {
                value: 3,
                value_name: c"Three".as_ptr(),
                value_nick: nick.as_ptr(),
            },
            GEnumValue {
                value: 0,
                value_name: std::ptr::null(),
                value_nick: std::ptr::null(),
            },
        ])
    }

    #[test]
    fn a_type_with_the_same_values_is_taken_and_another_left_alone() {
        static THREE: Values<2> = values(c"three");
        static SAME: Values<2> = values(c"three");
        static OTHER: Values<2> = values(c"drei");
        let first = register(c"PhysMemTestThree", &THREE.0);
        assert_eq!(register(c"PhysMemTestThree", &SAME.0), first);
        let other = register(c"PhysMemTestThree", &OTHER.0);
        assert_eq!(other.name(), "PhysMemTestThree-1");
        assert_eq!(register(c"PhysMemTestThree", &OTHER.0), other);
        // The type GObject is no enumeration and has no values.
        assert!(glib::Object::static_type().is_valid());
        assert_eq!(register(c"GObject", &THREE.0).name(), "GObject-1");
    }
}
