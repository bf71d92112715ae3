//! How the types that both halves share are declared. Knows none of them.

/// Derives what the user half needs to decode without `unsafe`.
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident = $size:literal { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
    };
}
