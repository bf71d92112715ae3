//! The service: watches for workers by itself, keeps what they did in a bounded ring, and lets users record what is theirs. It puts the
//! other rooms together and knows them all; nothing but `cli` knows it.

pub mod index;
pub mod report;
pub mod settings;
pub mod status;
