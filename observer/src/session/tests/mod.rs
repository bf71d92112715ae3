//! Sessions as a whole: what goes in comes out, whatever happens to disk and recorder.

mod bodies;
mod death;
mod directory;
mod many;
mod redaction;
mod resume;
mod ring;
mod service;
mod store;
