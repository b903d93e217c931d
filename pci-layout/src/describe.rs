//! The two macros by which a constant or a structure is written once and known twice: to Rust as an item, and to the
//! header generator as data.

/// A constant as the C header shows it.
#[derive(Debug, Clone, Copy)]
pub struct ConstInfo {
    /// The Rust name; the C name is this with `VGPU_` before it.
    pub name: &'static str,
    /// The value; strings of bytes are not described.
    pub value: u64,
    /// The doc comment.
    pub doc: &'static str,
}

/// A field of a structure as the C header shows it.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// The field's name, the same in C.
    pub name: &'static str,
    /// The Rust type as written: `u32`, `[u8; 16]`, `Run` …
    pub ty: &'static str,
    /// Offset from the start of the structure, in bytes.
    pub offset: usize,
    /// The doc comment.
    pub doc: &'static str,
}

/// A structure as the C header shows it.
#[derive(Debug, Clone, Copy)]
pub struct StructInfo {
    /// The Rust name; the C name is `struct vgpu_` and this in snake case.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Fields in order.
    pub fields: &'static [FieldInfo],
    /// The doc comment.
    pub doc: &'static str,
}

macro_rules! consts {
    ($( $(#[doc = $doc:literal])+ pub const $name:ident : $ty:ty = $value:expr; )+) => {
        $( $(#[doc = $doc])+ pub const $name: $ty = $value; )+
        /// The constants above, as the header generator reads them.
        pub const C_CONSTS: &[$crate::ConstInfo] = &[
            $( $crate::ConstInfo { name: stringify!($name), value: $name as u64, doc: concat!($($doc, "\n"),+) } ),+
        ];
    };
}

macro_rules! structs {
    ($( $(#[doc = $doc:literal])+ pub struct $name:ident { $( $(#[doc = $fdoc:literal])+ pub $field:ident : $fty:ty, )+ } )+) => {
        $(
            $(#[doc = $doc])+
            #[repr(C)]
            #[derive(Debug, Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            pub struct $name { $( $(#[doc = $fdoc])+ pub $field: $fty, )+ }

            const _: () = assert!(size_of::<$name>() % 8 == 0);
        )+
        /// The structures above, as the header generator reads them.
        pub const C_STRUCTS: &[$crate::StructInfo] = &[
            $( $crate::StructInfo {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: &[ $( $crate::FieldInfo {
                    name: stringify!($field),
                    ty: stringify!($fty),
                    offset: core::mem::offset_of!($name, $field),
                    doc: concat!($($fdoc, "\n"),+),
                } ),+ ],
                doc: concat!($($doc, "\n"),+),
            } ),+
        ];
    };
}
